"""Applying a unit's branch to rows: decide, write into a draft, tell what was done.

Shared by the participant and by the pivot's data, as the two real ones of PostgreSQL do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from coordinator.domain.decide import Effect, Image, ImageKey, Write, decide_branch, show_image
from coordinator.domain.entity import Entity, StoreKind
from coordinator.domain.errors import BatchRefused, ErrorCode, Problem, StoreBusy
from coordinator.domain.operation import Unit
from coordinator.domain.publishing import Done
from coordinator.memory.store_tables import Draft, Forbidden, StoreTables
from coordinator.memory.witness import RowWrite, Way


class BranchWork:
    """What became of the branches of a batch at one store; kept in a draft until it commits."""

    def __init__(self, tables: StoreTables, worker: int) -> None:
        self.tables = tables
        self.worker = worker
        self.draft = Draft(tables)
        self.writes: dict[int, tuple[Write, ...]] = {}
        self.done: dict[int, tuple[Done, ...]] = {}
        self.refused: dict[int, Problem] = {}
        self.busy: set[int] = set()
        self.seen: list[RowWrite] = []

    def apply(self, units: Sequence[Unit]) -> None:
        """Decide and write each unit's branch; raise `BatchRefused` or `StoreBusy` for the batch.

        Like the real ones, a store of documents names the unit that is refused and does not wait
        for strangers; a store of tables names it only when it is alone, and sets it aside.
        """
        name = self.tables.name
        for unit in units:
            if self._is_held(unit):
                if self.tables.kind is StoreKind.MONGODB:
                    raise StoreBusy(name, "a document is in a stranger's transaction")
                self.busy.add(unit.seq)
                continue
            decided = decide_branch(unit, name, self.draft)
            if isinstance(decided, Problem):
                self.refused[unit.seq] = decided
                continue
            try:
                for write in decided:
                    self._write(unit, write)
            except Forbidden as refusal:
                raise refused(self.tables, unit, units, str(refusal)) from refusal
            self.writes[unit.seq] = decided
            self.done[unit.seq] = done_of(unit, decided)

    def _is_held(self, unit: Unit) -> bool:
        held = self.tables.held
        return bool(held) and any(
            (operation.entity, operation.key_text) in held
            for _, operation in unit.branch(self.tables.name)
        )

    def _write(self, unit: Unit, write: Write) -> None:
        if write.effect is Effect.NOTHING:
            return
        operation = write.operation
        at = (operation.entity, operation.key_text)
        self.draft.write(at, write.after)
        deltas = write.deltas or {}
        self.seen.append(
            RowWrite(
                self.tables.name,
                self.worker,
                unit.seq,
                write.position,
                Way.FORWARD,
                at,
                write.before,
                write.after,
                frozenset({*write.assigned, *write.unset} - deltas.keys()),
                sum(deltas.values()),
            )
        )


def refused(tables: StoreTables, unit: Unit, units: Sequence[Unit], sentence: str) -> BatchRefused:
    """Refuse a batch for one unit's write, naming it where such a store does."""
    operation = unit.branch(tables.name)[0][1]
    problem = Problem(
        ErrorCode.CONSTRAINT_VIOLATED,
        f"{tables.name} refused a write: {sentence}",
        path=f"operations.{operation.index}",
        operation=operation.index,
        entity=operation.entity,
    )
    is_named = len(units) == 1 or tables.kind is StoreKind.MONGODB
    return BatchRefused(tables.name, problem, {unit.seq: problem} if is_named else {})


def load(tables: StoreTables, units: Sequence[Unit]) -> Mapping[ImageKey, Image | None]:
    """Read the images of all keys of these units' branches."""
    return {
        (operation.entity, operation.key_text): tables.rows[operation.entity, operation.key_text]
        for unit in units
        for _, operation in unit.branch(tables.name)
    }


def done_of(unit: Unit, writes: Sequence[Write]) -> tuple[Done, ...]:
    """Tell what a branch did, as it will be announced."""
    entities = unit.mapping.entities
    return tuple(_one_done(entities[write.operation.entity], write) for write in writes)


def _one_done(entity: Entity, write: Write) -> Done:
    version = None
    if entity.version is not None and write.after is not None:
        version = write.after.get(entity.version)
    if write.effect is Effect.NOTHING:
        return Done(write.position, write.effect, None, None, version)
    before, after = show_image(entity, write.before), show_image(entity, write.after)
    return Done(
        write.position,
        write.effect,
        None if before is None else orjson.dumps(before),
        None if after is None else orjson.dumps(after),
        version,
    )
