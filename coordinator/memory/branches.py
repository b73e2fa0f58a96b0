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
from coordinator.domain.sharing import Escrow, Line
from coordinator.memory.store_tables import Draft, Forbidden, StoreTables
from coordinator.memory.witness import RowWrite, Way


class BranchWork:
    """What became of the branches of a batch at one store; kept in a draft until it commits.

    ``line`` holds the units that share keys, ``escrow`` judges them; without one each is decided
    on what the former left, as if that were committed: so it is in the pivot.
    """

    def __init__(
        self,
        tables: StoreTables,
        worker: int,
        line: Line | None = None,
        escrow: Escrow | None = None,
    ) -> None:
        self.tables = tables
        self.worker = worker
        self.draft = Draft(tables)
        self.line = line
        self.escrow = escrow
        self.behind: set[int] = set()
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
            if self.line is not None and self.line.holds(unit):
                self.behind.add(unit.seq)
                continue
            if self._is_held(unit):
                if self.tables.kind is StoreKind.MONGODB:
                    raise StoreBusy(name, "a document is in a stranger's transaction")
                self.busy.add(unit.seq)
                self._stop(unit)
                continue
            decided = self._decide(unit)
            if decided is None:
                self.behind.add(unit.seq)
                self._stop(unit)
                continue
            if isinstance(decided, Problem):
                self.refused[unit.seq] = decided
                if self.line is not None:
                    self.line.refused(unit)
                continue
            try:
                for write in decided:
                    self._write(unit, write)
            except Forbidden as refusal:
                raise refused(self.tables, unit, units, str(refusal)) from refusal
            self.writes[unit.seq] = decided
            self.done[unit.seq] = done_of(unit, decided)

    def _decide(self, unit: Unit) -> tuple[Write, ...] | Problem | None:
        if self.escrow is None:
            return decide_branch(unit, self.tables.name, self.draft)
        return self.escrow.decide(unit, self.tables.name, self.draft)

    def _stop(self, unit: Unit) -> None:
        if self.line is not None:
            self.line.stop(unit)

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
    return tuple(
        one_done(
            entities[write.operation.entity],
            write.position,
            write.effect,
            write.before,
            write.after,
        )
        for write in writes
    )


def one_done(
    entity: Entity, position: int, effect: Effect, before: Image | None, after: Image | None
) -> Done:
    """Tell what one operation did."""
    version = None
    if entity.version is not None and after is not None:
        version = after.get(entity.version)
    if effect is Effect.NOTHING:
        return Done(position, effect, None, None, version)
    shown_before, shown_after = show_image(entity, before), show_image(entity, after)
    return Done(
        position,
        effect,
        None if shown_before is None else orjson.dumps(shown_before),
        None if shown_after is None else orjson.dumps(shown_after),
        version,
    )
