"""Reading and writing mapped tables for a batch of units, inside a transaction of the caller's.

Shared by the journal's pivot and by the participant of a store of its own: both call
`Tables.apply` between their BEGIN and COMMIT. A batch takes one statement to lock the rows of a
table, one more where rows were not returned (are they missing, or held by a stranger?), and one
per shape of write (see `waves`). What is written is read back by RETURNING, so after-images know
column defaults, generated columns and triggers.

What can go wrong: a stranger holds a row: its unit is ``busy`` and the rest goes on (rule 9). A
unit is decided against: it is ``refused`` and the rest goes on. The store refuses a statement:
`BatchRefused`, and the caller rolls back; a unit is named only when it was alone in the batch,
since a neighbour's write may have been the cause. A caller who tries such a batch again does it
*carefully*: in parts, each under a savepoint, until what is refused is single units; they are
``failing`` and the rest goes on. Refuses to BEGIN, COMMIT or know of undo.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from coordinator.domain.decide import (
    Effect,
    Image,
    ImageKey,
    Refused,
    decide_branch,
    decide_operation,
    key_as_json,
)
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import BatchRefused, ErrorCode, Problem, StoreBusy
from coordinator.domain.operation import OperationKind, Unit
from coordinator.domain.preview import NOTHING_SEEN, Loaded, Preview
from coordinator.domain.publishing import Done
from coordinator.domain.sharing import Line
from coordinator.participants.postgresql.foretelling import Foretelling, Foretold
from coordinator.participants.postgresql.key_taken import is_key_taken
from coordinator.participants.postgresql.mapped_table import (
    MappedTable,
    SeenRow,
    Texts,
    mapped_table,
)
from coordinator.participants.postgresql.row_locks import lock_rows
from coordinator.participants.postgresql.row_rules import has_rules
from coordinator.participants.postgresql.shared_rows import SharedRows
from coordinator.participants.postgresql.statements import RowLock
from coordinator.participants.postgresql.step_values import columnwise, done_of
from coordinator.participants.postgresql.waves import Shape, Step, shape_of, spread
from coordinator.postgres_pool import DRIVER_ERRORS, Connection, translate, translated

_STRENGTHS = {
    OperationKind.CHECK: 0,
    OperationKind.INSERT: 1,
    OperationKind.UPDATE: 1,
    OperationKind.UPSERT: 1,
    OperationKind.DELETE: 2,
}
_LOCKS = (RowLock.SHARE, RowLock.NO_KEY_UPDATE, RowLock.UPDATE)


@dataclass(slots=True)
class TableWork:
    """What became of a batch's branches here, by ``seq``; nothing is durable before COMMIT.

    ``done``: written (or checked). ``refused``: decided against under the lock. ``failing``: the
    store refused it by itself, after all earlier ones of the batch that are not busy. ``busy``: a
    stranger holds a row of it. ``behind``: it shares a key with an earlier one that stays open. Of
    the latter four nothing was written. ``steps`` holds, for the done ones, every operation with
    the texts of its row before and after: what undo is made of (but for shared keys).
    """

    done: dict[int, tuple[Done, ...]] = field(default_factory=dict)
    refused: dict[int, Problem] = field(default_factory=dict)
    failing: dict[int, Problem] = field(default_factory=dict)
    busy: frozenset[int] = frozenset()
    behind: frozenset[int] = frozenset()
    steps: dict[int, Sequence[Step]] = field(default_factory=dict)


class Tables:
    """The mapped tables of one PostgreSQL store."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._foretelling = Foretelling(store)
        self._one_by_one: set[str] = set()

    def foretell(self, units: Sequence[Unit], preview: Preview) -> Foretold | None:
        """Foretell what `apply` will do if the rows are as in the preview; see `foretelling`."""
        return self._foretelling.foretell(units, preview)

    def not_foretold(self, foretold: Foretold) -> None:
        """Note that the store has made something else of what was written."""
        self._foretelling.failed(foretold)

    async def load(self, connection: Connection, units: Sequence[Unit]) -> Loaded:
        """Read the images of all keys of the branches here, without locks.

        Raises driver errors untranslated.
        """
        images: dict[ImageKey, Image | None] = {}
        rows_by_key: dict[ImageKey, Any] = {}
        for mapping, group in _by_mapping(units):
            for name, keys in _demanded(self._store, group).items():
                table = mapped_table(mapping, name)
                texts = [written for written, _ in keys.values()]
                rows = await connection.fetch(table.statements.preview, texts)
                found = {row[0]: row for row in rows}
                for number, key_text in enumerate(keys, 1):
                    at = (name, key_text)
                    row = found.get(number)
                    if row is None:
                        images.setdefault(at, None)
                        continue
                    # Two mappings of one entity in a batch: a checked row has the fields of both.
                    known = images.get(at)
                    image = table.image(row)
                    images[at] = {**known, **image} if known else image
                    rows_by_key[at] = SeenRow(row[1:-1], row[-1])
        return Loaded(images, rows_by_key)

    async def apply(
        self,
        connection: Connection,
        units: Sequence[Unit],
        preview: Preview = NOTHING_SEEN,
        *,
        carefully: bool = False,
        line: Line | None = None,
    ) -> TableWork:
        """Lock, decide and write the branches of ``units`` here, in admission order.

        Units that share keys, as ``line`` tells, are decided one after the other, each on what
        the former leaves, and written with one statement per row (see `SharedRows`).

        To be called in a transaction of the caller's, who rolls back if it raises: `BatchRefused`,
        `StoreBusy` or `StoreUnavailable`. Of a unit alone, and carefully, deferred constraints have
        been checked when it returns; else COMMIT checks them, and the batch is tried again.
        """
        groups = _by_mapping(units)
        if len(groups) > 1:
            preview = NOTHING_SEEN  # its images may have the fields of another mapping
        shared = None if line is None else SharedRows(line, self._store, self._one_by_one)
        batch = _Batch(self._store, connection, units, preview, shared, carefully=carefully)
        if not units:
            return batch.work
        try:
            for mapping, group in groups:
                await batch.apply(mapping, group)
            if len(units) == 1:
                await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except DRIVER_ERRORS as error:
            raise batch.named(translate(self._store, error)) from error
        return batch.work


def _by_mapping(units: Sequence[Unit]) -> Sequence[tuple[EntityMapping, Sequence[Unit]]]:
    """Units with their mapping: one group, but for the time after a change of the mapping."""
    first = units[0].mapping if units else None
    if first is None or all(unit.mapping is first for unit in units):
        return [(first, units)] if first is not None else []
    groups: dict[str, list[Unit]] = {}
    for unit in units:
        groups.setdefault(unit.mapping.fingerprint, []).append(unit)
    return [(group[0].mapping, group) for group in groups.values()]


_PROVEN = (
    "SAVEPOINT proof; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO SAVEPOINT proof;"
    " RELEASE SAVEPOINT part"
)
"""Check deferred constraints, and let those of the next part be deferred again."""

_Keys = dict[str, tuple[str, int]]
"""Key text → (the key as the column's text, strength of the lock)."""


def _demanded(store: str, units: Sequence[Unit]) -> dict[str, _Keys]:
    demanded: dict[str, _Keys] = {}
    for unit in units:
        plan = unit.plan
        operations = plan.operations
        for position in plan.branches.get(store, ()):
            operation = operations[position]
            keys = demanded.get(operation.entity)
            if keys is None:
                keys = demanded[operation.entity] = {}
            strength = _STRENGTHS[operation.kind]
            known = keys.get(operation.key_text)
            if known is None:
                table = mapped_table(unit.mapping, operation.entity)
                keys[operation.key_text] = (table.write_key(operation.key), strength)
            elif known[1] < strength:
                keys[operation.key_text] = (known[0], strength)
    return demanded


class _Batch:
    """One call of `Tables.apply`: the rows that it has locked, and what it has written."""

    def __init__(
        self,
        store: str,
        connection: Connection,
        units: Sequence[Unit],
        preview: Preview,
        shared: SharedRows | None,
        *,
        carefully: bool,
    ) -> None:
        self._store = store
        self._shared = shared
        self._connection = connection
        self._preview = preview
        self._carefully = carefully
        self._alone = units[0] if len(units) == 1 else None
        self.work = TableWork()
        self._texts: dict[ImageKey, Texts | None] = {}
        self._images: dict[ImageKey, Image | None] = {}
        self._busy_keys: set[ImageKey] = set()
        self._unchanged: set[ImageKey] = set()

    async def apply(self, mapping: EntityMapping, units: Sequence[Unit]) -> None:
        self._texts, self._images = {}, {}
        for name, keys in _demanded(self._store, units).items():
            await self._lock(mapped_table(mapping, name), keys)
        if self._busy_keys:
            busy = self._busy_units(units)
            self.work.busy |= busy
            self._stop(unit for unit in units if unit.seq in busy)
            units = [unit for unit in units if unit.seq not in busy]
        if self._shared is not None:
            await self._look_for_rules(self._shared, mapping, units)
        if self._carefully:
            await self._write_in_parts(units)
        else:
            await self._write_units(units)

    async def _look_for_rules(
        self, shared: SharedRows, mapping: EntityMapping, units: Sequence[Unit]
    ) -> None:
        for name, columns in shared.counters(units).items():
            table = mapped_table(mapping, name).statements.table
            if await has_rules(self._connection, table, columns):
                shared.ruled.add(name)

    async def _write_units(self, units: Sequence[Unit]) -> None:
        levels: list[list[Step]] = []
        going = self._decide(units, levels)
        for level in levels:
            await self._write_level(level)
        if self._shared is not None:
            await self._write_level(self._shared.ends(self._texts))
            self._check_even(self._shared)
        for unit, steps in going:
            self.work.done[unit.seq] = done_of(steps)
            self.work.steps[unit.seq] = steps

    async def _write_in_parts(self, units: Sequence[Unit]) -> None:
        """Write as much as the store takes; in halves, in order, so that a unit stands alone.

        A part that is taken back leaves the rows as the parts before it have: units of a batch have
        different keys, or share them in this order. The row locks are older than the savepoints,
        and stay.
        """
        execute = self._connection.execute
        parts = [units]
        while parts:
            part = parts.pop(0)
            if not part:
                continue
            self._alone = part[0] if len(part) == 1 else None
            texts, images = dict(self._texts), dict(self._images)
            await execute("SAVEPOINT part")
            try:
                await self._write_units(part)
                await execute(_PROVEN)
            except (BatchRefused, *DRIVER_ERRORS) as error:
                refusal = self.named(translated(self._store, error))
                if not isinstance(refusal, BatchRefused):
                    raise
                await execute("ROLLBACK TO SAVEPOINT part")
                self._texts, self._images = texts, images
                self._forget(part)
                if self._alone is not None:
                    self.work.failing[part[0].seq] = refusal.problem
                    self._stop(part)
                else:
                    middle = len(part) // 2
                    parts[:0] = [part[:middle], part[middle:]]

    def _forget(self, units: Sequence[Unit]) -> None:
        for unit in units:
            self.work.done.pop(unit.seq, None)
            self.work.refused.pop(unit.seq, None)
            self.work.steps.pop(unit.seq, None)
        self.work.behind -= {unit.seq for unit in units}

    # --- lock -----------------------------------------------------------------------------------

    async def _lock(self, table: MappedTable, keys: _Keys) -> None:
        strengths = {strength for _, strength in keys.values()}
        for strength in sorted(strengths, reverse=True):
            chosen = [(key, written) for key, (written, own) in keys.items() if own == strength]
            await self._lock_rows(table, _LOCKS[strength], chosen)

    async def _lock_rows(
        self, table: MappedTable, strength: RowLock, keys: Sequence[tuple[str, str]]
    ) -> None:
        name, preview = table.entity.name, self._preview
        locked, held = await lock_rows(
            self._connection, table.statements, strength, [written for _, written in keys]
        )
        for number, (key, _) in enumerate(keys):
            at = (name, key)
            if number in held:
                self._busy_keys.add(at)
                continue
            row = self._texts[at] = locked.get(number)
            if row is None:
                self._images[at] = None
                if preview.is_missing_still(at):
                    self._unchanged.add(at)
            elif (known := preview.rows.get(at)) is not None and row[1:] == known.texts:
                self._images[at] = preview.images[at]
                self._unchanged.add(at)
            else:
                self._images[at] = table.image(row)

    # --- decide ---------------------------------------------------------------------------------

    def _decide(
        self, units: Sequence[Unit], levels: list[list[Step]]
    ) -> list[tuple[Unit, list[Step]]]:
        going = []
        shared = self._shared
        if shared is not None:
            shared.begin()
        for unit in units:
            if shared is not None and shared.line.holds(unit):
                self.work.behind |= {unit.seq}
                continue
            shares = shared is not None and shared.line.shares(unit, self._store)
            if shares:
                decided = decide_branch(unit, self._store, self._images)
            else:
                decided = self._preview.decide(unit, self._store, self._images, self._unchanged)
            if isinstance(decided, Problem):
                self.work.refused[unit.seq] = decided
                if shared is not None:
                    shared.line.refused(unit)
                continue
            mapping = unit.mapping
            steps = [
                Step(unit, mapped_table(mapping, write.operation.entity), write, False)
                for write in decided
            ]
            if shared is not None and shares:
                shared.take(levels, steps, self._images)
            else:
                spread(levels, steps)
            going.append((unit, steps))
        return going

    def _stop(self, units: Iterable[Unit]) -> None:
        if self._shared is not None:
            self._shared.line.stop_all(units)

    def _check_even(self, shared: SharedRows) -> None:
        """What is told of each sharer was foretold, so the row must have become just that."""
        uneven = shared.uneven(self._texts)
        if uneven is not None:
            problem = Problem(
                ErrorCode.CONSTRAINT_VIOLATED,
                f"Table {uneven} changes its rows by itself, so each unit has to write its own.",
            )
            raise BatchRefused(self._store, problem)

    def _busy_units(self, units: Sequence[Unit]) -> frozenset[int]:
        return frozenset(
            unit.seq
            for unit in units
            if any(
                (operation.entity, operation.key_text) in self._busy_keys
                for _, operation in unit.branch(self._store)
            )
        )

    # --- write ----------------------------------------------------------------------------------

    async def _write_level(self, level: Sequence[Step]) -> None:
        groups: dict[Shape, list[Step]] = {}
        for step in level:
            if step.chained:
                self._decide_again(step)
            step.before = self._texts[step.at]
            shape = shape_of(step.write)
            group = groups.get(shape)
            if group is None:
                groups[shape] = [step]
            else:
                group.append(step)
        for (_, effect, columns), steps in groups.items():
            if effect is Effect.NOTHING or (effect is Effect.UPDATED and not columns):
                # An upsert without values on a table without version: an event, but no statement.
                for step in steps:
                    self._came_back(step, step.before)
                continue
            try:
                await self._write(effect, columns, steps)
            except DRIVER_ERRORS as error:
                raise self._refusal(error, steps) from error

    def _decide_again(self, step: Step) -> None:
        image = self._images[step.at]
        if image == step.write.before:
            return
        write = step.write
        try:
            step.write = decide_operation(step.unit.mapping, write.position, write.operation, image)
        except Refused as refusal:
            raise BatchRefused(
                self._store, refusal.problem, {step.unit.seq: refusal.problem}
            ) from refusal

    async def _write(self, effect: Effect, columns: tuple[str, ...], steps: Sequence[Step]) -> None:
        table = steps[0].table
        statements = table.statements
        write_key = table.write_key
        keys = [write_key(step.write.operation.key) for step in steps]
        if effect is Effect.DELETED:
            rows = await self._connection.fetch(statements.delete, keys)
            self._check_count(rows, steps)
            for step in steps:
                self._came_back(step, None)
            return
        parameters = columnwise(table, columns, steps)
        if effect is Effect.CREATED:
            rows = await self._connection.fetch(statements.insert(columns), keys, *parameters)
            self._check_count(rows, steps)
            for step, key, row in zip(steps, keys, rows, strict=True):
                if not table.is_key(row[table.key_index], key):
                    raise self._suppressed(steps, "changed the key of a row")
                self._came_back(step, row)
            return
        rows = await self._connection.fetch(statements.update(columns), keys, *parameters)
        self._check_count(rows, steps)
        for row in rows:
            self._came_back(steps[row[0] - 1], row)

    def _came_back(self, step: Step, row: Texts | None) -> None:
        step.after = self._texts[step.at] = row
        image = None if row is None else step.table.image(row)
        step.image = self._images[step.at] = image

    # --- refusals -------------------------------------------------------------------------------

    def _check_count(self, rows: Sequence[Any], steps: Sequence[Step]) -> None:
        """The rows are locked or new: only something in the store can have left one out."""
        if len(rows) != len(steps):
            raise self._suppressed(steps, "suppressed the write of a row")

    def _suppressed(self, steps: Sequence[Step], what: str) -> BatchRefused:
        table = steps[0].table.statements.table
        problem = Problem(
            ErrorCode.CONSTRAINT_VIOLATED,
            f"A trigger, rule or policy of table {table.schema}.{table.name} {what}.",
        )
        named = self.named(BatchRefused(self._store, problem), steps)
        assert isinstance(named, BatchRefused)
        return named

    def _refusal(self, error: BaseException, steps: Sequence[Step]) -> Exception:
        table = steps[0].table.statements.table
        if is_key_taken(error, table):
            # Inserted by a stranger since we looked: to be decided again, on what is there now.
            seqs = frozenset({self._alone.seq}) if self._alone else frozenset[int]()
            return StoreBusy(self._store, "a row with the same key has just been inserted", seqs)
        return self.named(translate(self._store, error), steps)

    def named(self, failure: Exception, steps: Sequence[Step] = ()) -> Exception:
        """Name the unit in a refusal if it was alone, and its operation if that is known."""
        if self._alone is None or not isinstance(failure, BatchRefused) or failure.refusals:
            return failure
        problem = failure.problem
        if len(steps) == 1:
            operation = steps[0].write.operation
            problem = replace(
                problem,
                path=f"operations.{operation.index}",
                operation=operation.index,
                entity=operation.entity,
                key=key_as_json(operation),
            )
        return BatchRefused(self._store, problem, {self._alone.seq: problem})
