"""How settings go together: what no setting can say of itself.

Owns the relations between settings. Each check looks at what is valid so far, so that one wrong
setting does not hide another mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from coordinator.settings.addresses import database_of, servers_of
from coordinator.settings.intake_relations import intake_mistakes
from coordinator.settings.intakes import Intake
from coordinator.settings.models import (
    Backlog,
    Batch,
    Journal,
    Kafka,
    MongodbStore,
    PostgresqlStore,
    Store,
    Topics,
    Units,
    Worker,
)
from coordinator.settings.section import Section
from coordinator.settings.security import kafka_mistakes, transport_mistakes
from coordinator.toml_reading import Place, hint

Found = Iterator[tuple[Place, str]]
"""(place of the setting, sentence)."""

SectionT = TypeVar("SectionT", bound=Section)


_NO_INTAKES: Final[Mapping[int, Intake]] = MappingProxyType({})


class Valid:
    """What is valid so far: sections and stores by name, intakes by their place in the file.

    ``kinds`` holds every store that is named.
    """

    def __init__(
        self,
        sections: Mapping[str, Section],
        stores: Mapping[str, Store],
        kinds: Mapping[str, str | None],
        intakes: Mapping[int, Intake] = _NO_INTAKES,
    ) -> None:
        self._sections = sections
        self.stores = stores
        self.kinds = kinds
        self.intakes = intakes

    def section(self, model: type[SectionT]) -> SectionT | None:
        """Give the section of this model if it is valid."""
        section = self._sections.get(model.__name__.lower())
        return section if isinstance(section, model) else None


def mistakes(valid: Valid) -> Found:
    """Give every broken relation."""
    yield from _journal(valid)
    yield from _one_database_each(valid)
    yield from _topics(valid)
    yield from intake_mistakes(valid.intakes, valid.section(Topics), valid.section(Units))
    yield from _sizes(valid)
    yield from _lease(valid)
    yield from _undo_records(valid)
    kafka = valid.section(Kafka)
    if kafka is not None:
        yield from kafka_mistakes(kafka)
    yield from transport_mistakes(kafka, valid.section(Journal), valid.stores)


def _journal(valid: Valid) -> Found:
    journal = valid.section(Journal)
    if journal is None:
        return
    if journal.store is None and journal.dsn is None:
        yield ("journal",), "needs store, the name of a postgresql store, or dsn"
    if journal.store is None:
        return
    at = ("journal", "store")
    if journal.dsn is not None:
        yield at, "journal.dsn is given as well; give one of them"
    if journal.store not in valid.kinds:
        yield at, f"names no store{hint(journal.store, valid.kinds)}"
    elif valid.kinds[journal.store] not in {"postgresql", None}:
        yield at, "must name a postgresql store"


def _one_database_each(valid: Valid) -> Found:
    """Bookkeeping is per database (F37): two stores in one would take each other's undo records."""
    seen: dict[tuple[str, ...], str] = {}
    journal = valid.section(Journal)
    if journal is not None and journal.dsn is not None:
        database = database_of(journal.dsn.get_secret_value())
        if database is not None:
            seen["postgresql", *database] = "journal.dsn"
    for name, store in valid.stores.items():
        database = _database(store)
        if database is None:
            continue
        other = seen.setdefault(database, f"stores.{name}")
        if other == "journal.dsn":
            yield (
                ("journal", "dsn"),
                f'is the database of stores.{name}; write journal.store = "{name}" instead',
            )
        elif other != f"stores.{name}":
            yield ("stores", name), f"is the same database as {other}; make them one store"


def _database(store: Store) -> tuple[str, ...] | None:
    if isinstance(store, PostgresqlStore):
        found = database_of(store.dsn.get_secret_value())
        return None if found is None else ("postgresql", *found)
    return ("mongodb", *servers_of(store.uri.get_secret_value()), store.database)


def _topics(valid: Valid) -> Found:
    topics = valid.section(Topics)
    if topics is None:
        return
    seen: dict[str, str] = {}
    for name in ("units", "outcomes", "dead_letters"):
        topic: str = getattr(topics, name)
        other = seen.setdefault(topic, name)
        if other != name:
            yield ("topics", name), f"is the same topic as topics.{other}"
    for topic in topics.reply_to:
        if topic in {topics.units, topics.dead_letters}:
            at = seen[topic]
            yield ("topics", "reply_to"), f"holds topics.{at}, where outcomes must not go"


def _sizes(valid: Valid) -> Found:
    batch, backlog, worker = valid.section(Batch), valid.section(Backlog), valid.section(Worker)
    if batch and backlog and backlog.max_units < batch.max_units:
        yield ("backlog", "max_units"), "must not be less than batch.max_units"
    kafka, units = valid.section(Kafka), valid.section(Units)
    if backlog and units and backlog.max_bytes < units.max_bytes:
        yield ("backlog", "max_bytes"), "must not be less than units.max_bytes"
    if kafka and units and kafka.unpacked_batch_max_bytes < units.max_bytes:
        yield ("kafka", "unpacked_batch_max_bytes"), "must not be less than units.max_bytes"
    for name, store in valid.stores.items():
        if isinstance(store, MongodbStore):
            continue
        if worker and store.pool_max_size <= worker.lanes:
            yield (
                ("stores", name, "pool_max_size"),
                "must be more than worker.lanes, each of which needs a connection",
            )


def _lease(valid: Valid) -> Found:
    """A frozen worker must not hold the door (rule 5): waits stay well under the lease."""
    worker = valid.section(Worker)
    if worker is None:
        return
    for name, store in valid.stores.items():
        if isinstance(store, PostgresqlStore) and (
            store.lock_timeout_ms * 3 > worker.lease_ttl_seconds * 1000
        ):
            yield (
                ("stores", name, "lock_timeout_ms"),
                "must be at most a third of worker.lease_ttl_seconds",
            )


def _undo_records(valid: Valid) -> Found:
    """What a worker may still repeat is not swept: it can repeat it until its lease ends."""
    units, worker = valid.section(Units), valid.section(Worker)
    if units and worker and units.undo_retention_seconds < worker.lease_ttl_seconds:
        yield (
            ("units", "undo_retention_seconds"),
            "must not be less than worker.lease_ttl_seconds",
        )
