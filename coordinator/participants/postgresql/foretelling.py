"""What a batch will have done to the rows of its table, if they are as they were when read.

Pure. A pivot that knows this beforehand can be a single statement: lock the rows that nobody else
holds and whose version is the one that was read, write them, and compare what came of it with what
was foretold. So a foretelling is never believed: where it does not come true, nothing has happened,
and the batch goes the usual way, which reads what the store has made of each row.

Foretold are updates of rows by one set of columns, the usual case. Refuses everything else, rows
that are written twice, and columns whose text the store forms in a way of its own (json, padded
characters, short floats).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Inexact
from typing import Any, Final

from coordinator.domain.decide import Effect, Image, ImageKey, Write
from coordinator.domain.operation import Unit
from coordinator.domain.preview import Preview
from coordinator.domain.publishing import Done
from coordinator.participants.postgresql.mapped_table import MappedTable, mapped_table

Shape = tuple[str, tuple[str, ...]]
"""(entity, columns that are set)."""

_FAILURES_MAX: Final = 3
_SHAPES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Foretold:
    """What will have been done, by ``seq``, and how to do it if it comes true.

    ``sql`` are common table expressions with parameters from ``$1``; the last one is ``foretold``,
    with a row per written row and whether it ``came_true``. ``rows``: so many are to be written.
    """

    done: Mapping[int, tuple[Done, ...]]
    rows: int
    sql: str
    parameters: Sequence[Any]
    shape: Shape | None = None


NO_ROWS: Final = "foretold AS (SELECT true AS came_true WHERE false)"


@dataclass(slots=True)
class Foretelling:
    """Foretells for one store, and learns which shapes of writes never come true."""

    store: str
    _failures: dict[Shape, int] = field(default_factory=dict)

    def foretell(self, units: Sequence[Unit], preview: Preview) -> Foretold | None:
        """Foretell what these units' branches do; ``None`` where that cannot be known."""
        rows = _Rows()
        try:
            done = {
                unit.seq: self._branch(unit, preview, rows)
                for unit in units
                if self.store in unit.plan.branches
            }
        except (_Unknown, Inexact):
            return None
        table = rows.table
        if table is None:
            return Foretold({}, 0, NO_ROWS, ())
        sql = table.statements.foretold(rows.columns)
        parameters = [rows.keys, rows.versions, *rows.values]
        return Foretold(done, len(rows.keys), sql, parameters, (table.entity.name, rows.columns))

    def _branch(self, unit: Unit, preview: Preview, rows: _Rows) -> tuple[Done, ...]:
        own = preview.writes.get(unit.seq)
        writes = preview.chained.get(unit.seq) if own is None else own
        if writes is None:
            raise _Unknown
        acts = []
        for write in writes:
            at = (write.operation.entity, write.operation.key_text)
            row = preview.rows.get(at)
            if write.effect is not Effect.UPDATED or row is None:
                raise _Unknown
            if not rows.continues(at, write, preview, alone=own is not None):
                raise _Unknown
            table = mapped_table(unit.mapping, at[0])
            if rows.table is None:
                rows.begin(table, self._columns(table, write))
            elif table is not rows.table or _columns(write) != rows.columns:
                raise _Unknown
            if at in rows.known:
                raise _Unknown  # a rule of the table may judge what stands in between
            before = rows.add(at, table, write, row.version)
            after = rows.write(at, table, write)
            acts.append(_done(table, write, before, after))
        return tuple(acts)

    def _columns(self, table: MappedTable, write: Write) -> tuple[str, ...]:
        columns = _columns(write)
        failures = self._failures.get((table.entity.name, columns), 0)
        known = all(name in table.canonical for name in columns)
        if not columns or not known or failures >= _FAILURES_MAX:
            raise _Unknown
        return columns

    def failed(self, foretold: Foretold) -> None:
        """Note that the store has made something else of what was written."""
        if foretold.shape is not None:
            if len(self._failures) >= _SHAPES_MAX:
                self._failures.clear()
            self._failures[foretold.shape] = self._failures.get(foretold.shape, 0) + 1


class _Unknown(Exception):
    """What a batch does cannot be foretold."""


class _Rows:
    """The rows of a batch in the making, column by column.

    ``known`` are their images as the store will show them, ``left`` those that were decided on.
    """

    def __init__(self) -> None:
        self.table: MappedTable | None = None
        self.columns: tuple[str, ...] = ()
        self.known: dict[ImageKey, Image] = {}
        self.left: dict[ImageKey, Image | None] = {}
        self.keys: list[str] = []
        self.versions: list[str] = []
        self.values: list[list[str | None]] = []
        self._places: dict[ImageKey, int] = {}

    def begin(self, table: MappedTable, columns: tuple[str, ...]) -> None:
        self.table, self.columns = table, columns
        self.values = [[] for _ in columns]

    def continues(self, at: ImageKey, write: Write, preview: Preview, *, alone: bool) -> bool:
        """Whether a write was decided on what stands there when its turn comes.

        One of a unit that shares nothing is the only one; one of a sharer follows on that of the
        sharer before it, unless that one is not here after all.
        """
        if alone:
            return at not in self.left
        return write.before is self.left.get(at, preview.images[at])

    def add(self, at: ImageKey, table: MappedTable, write: Write, version: str) -> Image:
        """Add a row; give its image as it is."""
        self._places[at] = len(self.keys)
        self.keys.append(table.write_key(write.operation.key))
        self.versions.append(version)
        for column in self.values:
            column.append(None)
        return write.before or {}

    def write(self, at: ImageKey, table: MappedTable, write: Write) -> Image:
        """Write a row; give its image as it will be."""
        place = self._places[at]
        after = dict(self.known.get(at) or write.before or {})
        for name, column in zip(self.columns, self.values, strict=True):
            value = write.assigned.get(name)
            column[place], after[name] = (
                (None, None) if value is None else table.canonical[name](value)
            )
        self.known[at] = after
        self.left[at] = write.after
        return after


def _columns(write: Write) -> tuple[str, ...]:
    return tuple(sorted((*write.assigned, *write.unset)))


def _done(table: MappedTable, write: Write, before: Image, after: Image) -> Done:
    return Done(
        write.position,
        write.effect,
        table.show(before),
        table.show(after),
        table.version(after),
    )
