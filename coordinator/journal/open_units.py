"""Open units read back from their rows, with the mapping that their plan was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import Problem
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Origin, Unit
from coordinator.domain.plan_json import plan_from_json
from coordinator.engine.ports import OpenUnit
from coordinator.journal.mappings import JournaledMappings

COLUMNS = (
    "u.seq, u.id, u.digest, u.status, u.mapping, u.plan, u.received_at, u.deadline_at, u.topic,"
    ' u.partition, u."offset", u.metadata, u.reply_to, u.traceparent, u.cancel_requested, u.cause'
)


async def open_units(
    rows: Sequence[Mapping[str, Any]], mappings: JournaledMappings
) -> list[OpenUnit]:
    """Make values of rows that hold `COLUMNS`."""
    known = await mappings.load(row["mapping"] for row in rows)
    return [
        OpenUnit(
            unit=unit_of(row, known[row["mapping"]]),
            status=Status(row["status"]),
            cause=problem_of(row["cause"]),
            cancel_reason=row["cancel_requested"],
        )
        for row in rows
    ]


def unit_of(row: Mapping[str, Any], mapping: EntityMapping) -> Unit:
    """Make the unit of a row."""
    return Unit(
        seq=row["seq"],
        id=row["id"],
        digest=row["digest"],
        plan=plan_from_json(row["plan"], mapping),
        mapping=mapping,
        received_at=row["received_at"],
        deadline_at=row["deadline_at"],
        metadata=row["metadata"],
        reply_to=row["reply_to"],
        traceparent=row["traceparent"],
        origin=Origin(row["topic"], row["partition"], row["offset"]),
        size_bytes=len(row["plan"]) + len(row["metadata"] or b""),
    )


def problem_of(raw: str | None) -> Problem | None:
    """Make the problem of a jsonb column."""
    return None if raw is None else Problem.from_json(orjson.loads(raw))
