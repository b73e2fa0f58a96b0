"""``coordinator explain``: a submission against the live mapping, or a unit of the journal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from coordinator import postgres_pool
from coordinator.bootstrap.intakes import intake_rules
from coordinator.bootstrap.journal import journal_dsn
from coordinator.bootstrap.stores import connect, read_catalog
from coordinator.daemon.system_clock import SystemChance, SystemClock
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.domain.explanation import Explained, explain_reading
from coordinator.domain.situation import Situation
from coordinator.domain.submission import read
from coordinator.engine.drawing import Drawing
from coordinator.journal.situation import situation_of
from coordinator.mapping import load_entities, resolve
from coordinator.settings import Settings

_NAME = "coordinator/explain"


async def explain_submissions(
    settings: Settings, values: Sequence[bytes], topic: str | None
) -> list[Explained]:
    """Explain submissions as if they came from a topic of units; nothing is sent or changed.

    A signature is not judged: what is told of a signed topic holds for whom it grants its own.
    Raises `ConfigurationInvalid` and `StoreUnavailable`: the mapping is compared with the stores.
    """
    declarations = load_entities(settings)
    connections = await connect(settings, _NAME)
    try:
        catalogs = {
            store: await read_catalog(settings, connections, store, declarations)
            for store in settings.stores
        }
    finally:
        await connections.close()
    mapping = resolve(declarations, catalogs, journal_store=settings.journal.store).mapping
    intakes = intake_rules(settings, mapping)
    if topic is None and len(intakes) > 1:
        raise ConfigurationInvalid([f"--topic: say which of {', '.join(intakes)}"])
    name = next(iter(intakes)) if topic is None else topic
    if name not in intakes:
        raise ConfigurationInvalid([f"--topic: {name} is no topic of units"])
    rules = intakes[name]
    drawing = Drawing(SystemClock(), SystemChance())
    return [
        explain_reading(
            read(
                value,
                (),
                mapping,
                settings.units.max_bytes,
                settings.units.timeout_ms,
                rules.reply_topics,
                drawing,
                rules.authority,
            ),
            mapping,
            settings.journal.store,
        )
        for value in values
    ]


async def situation(settings: Settings, unit_id: str) -> Situation | None:
    """Read where a unit stands; None when the journal does not know it."""
    pool = await postgres_pool.open_pool(journal_dsn(settings), _NAME, max_size=1)
    try:
        return await situation_of(
            pool,
            unit_id,
            timedelta(seconds=settings.units.undo_retention_seconds),
            timedelta(days=settings.units.retention_days),
        )
    finally:
        await postgres_pool.close_pool(pool)
