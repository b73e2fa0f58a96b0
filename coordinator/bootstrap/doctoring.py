"""``coordinator doctor``: what `check` looks at, and how the servers themselves stand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from coordinator import postgres_pool
from coordinator.bootstrap.checking import check
from coordinator.bootstrap.journal import journal_dsn
from coordinator.bootstrap.kafka_security import kafka_options
from coordinator.bootstrap.stores import Connections, connect
from coordinator.bootstrap.topics import reply_topics
from coordinator.daemon.check_report import Verdict
from coordinator.domain.announce import Announcer
from coordinator.domain.diagnosis import (
    Diagnosis,
    Health,
    TopicRole,
    diagnose_mongodb,
    diagnose_postgresql,
    diagnose_topic,
)
from coordinator.domain.errors import ConfigurationInvalid, StoreError
from coordinator.engine.ports import JOURNAL
from coordinator.kafka.topic_settings import read_topic_settings
from coordinator.mapping import Declaration, load_entities
from coordinator.participants.mongodb.server_facts import read_facts as read_mongodb
from coordinator.participants.postgresql.server_facts import read_facts as read_postgresql
from coordinator.settings import MongodbStore, PostgresqlStore, Settings

_NAME = "coordinator/doctor"
_JOURNAL_CONNECTIONS = 6
_HEALTH = {
    Verdict.OK: Health.OK,
    Verdict.WARNING: Health.WARN,
    Verdict.AWAY: Health.FAIL,
    Verdict.WRONG: Health.FAIL,
}
_REMEDY = {
    Verdict.AWAY: "Make it reachable from here; see its own log.",
    Verdict.WRONG: "Correct it; `coordinator check` tells the same to scripts.",
}


async def doctor(settings: Settings) -> list[Diagnosis]:
    """Look at everything; raises nothing for what is away or wrong, that is told."""
    found = [
        Diagnosis(each.subject, _HEALTH[each.verdict], each.detail, _REMEDY.get(each.verdict, ""))
        for each in (await check(settings)).findings
    ]
    try:
        declarations = load_entities(settings)
    except ConfigurationInvalid:
        return found  # told by the check
    async for each in _servers(settings, declarations):
        found.append(each)
    async for each in _topics(settings, [declared.entity.name for declared in declarations]):
        found.append(each)
    return found


async def _servers(
    settings: Settings, declarations: Iterable[Declaration]
) -> AsyncIterator[Diagnosis]:
    connections = await connect(settings, _NAME)
    journal = await postgres_pool.open_pool(journal_dsn(settings), _NAME, max_size=1)
    try:
        subjects = [JOURNAL, *(n for n in settings.stores if n != settings.journal.store)]
        for name in subjects:
            subject = JOURNAL if name == JOURNAL else f"store {name}"
            collections = [each.entity.table for each in declarations if each.entity.store == name]
            try:
                told = await _server(settings, connections, journal, name, collections)
            except StoreError as error:
                message = settings.redact(error.message)
                yield Diagnosis(subject, Health.FAIL, message, _REMEDY[Verdict.AWAY])
                continue
            for each in told:
                yield each
    finally:
        await postgres_pool.close_pool(journal)
        await connections.close()


async def _server(
    settings: Settings,
    connections: Connections,
    journal: postgres_pool.Pool,
    name: str,
    collections: list[str],
) -> list[Diagnosis]:
    if name == JOURNAL:
        facts = await read_postgresql(journal, JOURNAL)
        needed = settings.worker.lanes + _JOURNAL_CONNECTIONS
        return list(diagnose_postgresql(JOURNAL, facts, needed))
    store = settings.stores[name]
    if isinstance(store, PostgresqlStore):
        facts = await read_postgresql(connections.pools[name], name)
        return list(diagnose_postgresql(f"store {name}", facts, store.pool_max_size))
    assert isinstance(store, MongodbStore)
    told = await read_mongodb(connections.drivers[name], name, store.database, collections)
    return list(diagnose_mongodb(f"store {name}", told))


async def _topics(settings: Settings, entities: Iterable[str]) -> AsyncIterator[Diagnosis]:
    topics = settings.topics
    changes = Announcer("", "", topics.outcomes, topics.changes)
    roles = {
        **dict.fromkeys(reply_topics(settings), TopicRole.OTHER),
        **dict.fromkeys(map(changes.topic_of, entities), TopicRole.OTHER),
        topics.outcomes: TopicRole.OTHER,
        topics.dead_letters: TopicRole.DEAD_LETTERS,
        **{intake.topic: TopicRole.UNITS for intake in settings.intakes},
    }
    try:
        facts = await read_topic_settings(
            settings.kafka.bootstrap_servers,
            list(roles),
            client_options=kafka_options(settings),
            allow_plaintext=settings.kafka.allow_plaintext,
        )
    except StoreError as error:
        message = settings.redact(error.message)
        yield Diagnosis("kafka", Health.FAIL, message, _REMEDY[Verdict.AWAY])
        return
    except ConfigurationInvalid:
        return  # told by the check
    for name, role in roles.items():
        if name in facts:  # what is missing was told by the check
            for each in diagnose_topic(name, role, facts[name]):
                yield each
