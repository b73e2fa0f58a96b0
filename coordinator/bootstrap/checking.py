"""`coordinator check`: everything that a start would need, looked at and nothing changed (F35)."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator import postgres_pool
from coordinator.bootstrap.intakes import judge_grants
from coordinator.bootstrap.journal import journal_dsn
from coordinator.bootstrap.kafka_security import kafka_options
from coordinator.bootstrap.stores import connect, read_catalog
from coordinator.bootstrap.topics import topic_names
from coordinator.bootstrap.transports import unprotected
from coordinator.daemon.check_report import CheckReport, Finding, Verdict
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import ConfigurationInvalid, StoreError
from coordinator.engine.ports import JOURNAL
from coordinator.journal.migrate import pending
from coordinator.kafka.topics import describe_topics
from coordinator.mapping import Catalog, Declaration, load_entities, resolve
from coordinator.settings import Settings


async def check(settings: Settings) -> CheckReport:
    """Check configuration, mapping, journal, stores and topics; every finding at once."""
    findings: list[Finding] = []
    for name, sentence in unprotected(settings).items():
        findings.append(Finding(f"connection {name}", Verdict.WARNING, sentence))
    await _check_journal(settings, findings)
    mapping = await _check_mapping(settings, findings)
    await _check_topics(settings, mapping, findings)
    return CheckReport(tuple(findings))


async def _check_journal(settings: Settings, findings: list[Finding]) -> None:
    try:
        pool = await postgres_pool.open_pool(journal_dsn(settings), "coordinator/check", max_size=1)
        try:
            async with postgres_pool.connected(pool, JOURNAL) as connection:
                missing = await pending(connection)
        finally:
            await postgres_pool.close_pool(pool)
    except StoreError as error:
        findings.append(Finding(JOURNAL, Verdict.AWAY, settings.redact(error.message)))
        return
    except ConfigurationInvalid as error:
        findings.extend(Finding(JOURNAL, Verdict.WRONG, each) for each in error.mistakes)
        return
    if not missing:
        findings.append(Finding(JOURNAL, Verdict.OK, "its tables are up to date"))
    elif settings.journal.migrate:
        findings.append(
            Finding(JOURNAL, Verdict.OK, f"{len(missing)} migrations wait for the next start")
        )
    else:
        findings.append(
            Finding(JOURNAL, Verdict.WRONG, f"run `coordinator migrate`: {', '.join(missing)}")
        )


async def _check_mapping(settings: Settings, findings: list[Finding]) -> EntityMapping | None:
    try:
        declarations = load_entities(settings)
    except ConfigurationInvalid as error:
        findings.extend(Finding("mapping", Verdict.WRONG, each) for each in error.mistakes)
        return None
    connections = await connect(settings, "coordinator/check")
    try:
        catalogs: dict[str, Catalog] = {}
        for store in settings.stores:
            try:
                catalogs[store] = await read_catalog(settings, connections, store, declarations)
            except StoreError as error:
                findings.append(
                    Finding(f"store {store}", Verdict.AWAY, settings.redact(error.message))
                )
            else:
                findings.append(Finding(f"store {store}", Verdict.OK))
        return _resolved(settings, declarations, catalogs, findings)
    finally:
        await connections.close()


def _resolved(
    settings: Settings,
    declarations: Sequence[Declaration],
    catalogs: dict[str, Catalog],
    findings: list[Finding],
) -> EntityMapping | None:
    # What a store that is away would say is not known; the others are compared all the same.
    known = [each for each in declarations if each.entity.store in catalogs]
    try:
        resolution = resolve(known, catalogs, journal_store=settings.journal.store)
        judge_grants(settings, resolution.mapping)
    except ConfigurationInvalid as error:
        findings.extend(Finding("mapping", Verdict.WRONG, each) for each in error.mistakes)
        return None
    findings.extend(Finding(f"entity {name}", Verdict.OK) for name in resolution.mapping.entities)
    findings.extend(
        Finding("mapping", Verdict.WARNING, each)
        for each in (*resolution.warnings, *resolution.missing_rights)
    )
    findings.extend(
        Finding(f"store {store}", Verdict.WARNING, f"the start will make the collection {name}")
        for store, names in resolution.missing_collections.items()
        for name in names
    )
    return resolution.mapping


async def _check_topics(
    settings: Settings, mapping: EntityMapping | None, findings: list[Finding]
) -> None:
    if mapping is None:
        return
    names = topic_names(settings, mapping)
    try:
        facts = await describe_topics(
            settings.kafka.bootstrap_servers,
            names,
            client_options=kafka_options(settings),
            allow_plaintext=settings.kafka.allow_plaintext,
        )
    except StoreError as error:
        findings.append(Finding("kafka", Verdict.AWAY, settings.redact(error.message)))
        return
    except ConfigurationInvalid as error:
        findings.extend(Finding("kafka", Verdict.WRONG, each) for each in error.mistakes)
        return
    for name in names:
        if name in facts:
            findings.append(Finding(f"topic {name}", Verdict.OK))
        elif settings.topics.create:
            findings.append(Finding(f"topic {name}", Verdict.WARNING, "the start will make it"))
        else:
            findings.append(
                Finding(f"topic {name}", Verdict.WRONG, "it is missing, and topics.create is false")
            )
