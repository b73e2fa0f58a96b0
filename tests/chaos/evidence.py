"""Reads everything from outside when all has come to rest: topics, stores, journal, logs."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import asyncpg

from tests.acceptance.harness.topics import Record
from tests.acceptance.harness.world import World
from tests.chaos import bank, lists
from tests.chaos.fleet import Fleet
from tests.chaos.history import (
    At,
    Change,
    Evidence,
    Image,
    JournalUnit,
    Outcome,
    Sent,
    Submission,
    UndoRecord,
    normal,
)

ALARMING = {
    "daemon.task_failed",
    "http.failed",
    "unit.parked",
    "intake.partition_parked",
    "intake.records_lost",
    "relay.topic_set_aside",
    "relay.message_too_large",
}
_READ_SECONDS = 60.0
_LEFT = ("locks", "outbox", "outbox_aside", "newcomers")


async def at_rest(world: World, sent: Iterable[str], records: int) -> str:
    """Say what still keeps the journal busy; nothing when it is at rest.

    ``records``: how many the units topic holds; all of them must have been read.
    """
    try:
        connection = await asyncpg.connect(world.dsn_of["ledger"], timeout=5)
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        return f"PostgreSQL: {error!r}"
    try:
        counts = await _left(connection)
        counts["open units"] = await connection.fetchval(
            "SELECT count(*) FROM coordinator.units WHERE finished_at IS NULL"
        )
        wanted = list(sent)
        known = await connection.fetchval(
            "SELECT count(*) FROM coordinator.units WHERE id = ANY($1)", wanted
        )
        counts["units not admitted"] = len(wanted) - known
        read = await connection.fetchval("SELECT sum(next_offset) FROM coordinator.positions")
        counts["records not read"] = records - int(read or 0)
    finally:
        connection.terminate()
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


async def collect(
    world: World, fleet: Fleet, start: dict[At, Image], sent: dict[str, Sent]
) -> Evidence:
    """Read it all; the daemons have ended."""
    topics = world.topics
    published = [topics.units, topics.outcomes_topic, topics.dead_letters_topic]
    await topics.open([*published, *(topics.changes_topic(name) for name in world.entities)])
    await topics.caught_up(_READ_SECONDS)
    records = topics.records
    ledger, archive = await world.connect("ledger"), await world.connect("archive")
    rows: dict[At, Any] = await bank.stored(world, ledger)
    rows |= await lists.stored(world, ledger, archive)
    return Evidence(
        start=start,
        rows={at: image for at, row in rows.items() if (image := normal(row)) is not None},
        sent=sent,
        submissions=tuple(_submission(each) for each in records if each.topic == topics.units),
        outcomes=tuple(
            Outcome(each.ce_id, each.json, each.timestamp / 1000)
            for each in records
            if each.topic == topics.outcomes_topic
        ),
        changes=tuple(
            _change(each) for each in records if each.topic.startswith(topics.changes_topic(""))
        ),
        units={
            row["id"]: JournalUnit(
                row["seq"], row["status"], row["received_at"], row["finished_at"], row["worker"]
            )
            for row in await ledger.fetch("SELECT * FROM coordinator.units")
        },
        fenced={
            row["id"]: row["fenced_at"]
            for row in await ledger.fetch(
                "SELECT * FROM coordinator.workers WHERE fenced_at IS NOT NULL"
            )
        },
        undo=tuple(await _undo_records(world, archive)),
        left=await _left(ledger) | {"dead letters": len(topics.of(topics.dead_letters_topic))},
        ends=tuple(fleet.ends),
        alarms=(*fleet.alarms, *_alarms(fleet)),
    )


async def takeovers(world: World) -> int:
    """Count the workers that another one has fenced."""
    connection = await world.connect("ledger")
    count: int = await connection.fetchval(
        "SELECT count(*) FROM coordinator.workers WHERE fenced AND fenced_by <> id"
    )
    return count


def log_events(fleet: Fleet) -> Counter[str]:
    """Count the events in the logs of all daemons."""
    return Counter(str(line.get("event")) for daemon in fleet.daemons for line in daemon.logs())


async def _left(connection: Any) -> dict[str, int]:
    return {
        name: await connection.fetchval(f"SELECT count(*) FROM coordinator.{name}")
        for name in _LEFT
    }


async def _undo_records(world: World, archive: Any) -> list[UndoRecord]:
    found = [
        UndoRecord("archive", row["unit_id"], row["state"])
        for row in await archive.fetch("SELECT unit_id, state FROM coordinator.undo")
    ]
    documents = await asyncio.to_thread(lambda: list(world.catalog["_coordinator_undo"].find()))
    return found + [UndoRecord("catalog", each["unit"], each["state"]) for each in documents]


def _submission(record: Record) -> Submission:
    body = record.json
    place = f"{record.topic}-{record.partition}-{record.offset}"
    is_cancel = "cancel" in body
    unit = body["cancel"] if is_cancel else body["id"]
    return Submission(unit, place, is_cancel, is_altered="metadata" in body)


def _change(record: Record) -> Change:
    body = record.json
    return Change(
        entity=body["source"]["entity"],
        key=json.loads(record.key or b"null"),
        ce_id=record.ce_id,
        unit=body["transaction"]["id"],
        before=normal(body["before"]),
        after=normal(body["after"]),
        text=record.value or b"",
    )


def _alarms(fleet: Fleet) -> list[str]:
    found = []
    for daemon in fleet.daemons:
        for line in daemon.logs():
            if "unreadable" in line:
                found.append(f"log of {daemon.config.stem}: {line['unreadable'][:300]}")
            elif line.get("event") in ALARMING:
                found.append(f"log of {daemon.config.stem}: {json.dumps(line)[:600]}")
    return found
