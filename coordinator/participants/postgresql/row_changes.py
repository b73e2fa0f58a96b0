"""Writing row changes of many units in few statements: how undo reaches the tables.

Like `tables` does it for operations: per unit the changes keep their order (the reverse of the
plan's, so that rows that refer go before the rows they refer to), over all units those of one
shape share a statement. Refuses to decide anything: see `undo`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from coordinator.domain.decide import Effect
from coordinator.domain.errors import BatchRefused, ErrorCode, Problem, StoreBusy
from coordinator.participants.postgresql.key_taken import is_key_taken
from coordinator.participants.postgresql.statements import Statements
from coordinator.participants.postgresql.undo import RowChange
from coordinator.postgres_pool import DRIVER_ERRORS, Connection, translate

_Shape: TypeAlias = tuple[Statements, Effect, tuple[str, ...]]


async def write_changes(
    connection: Connection, store: str, changes: Iterable[Sequence[RowChange]]
) -> None:
    """Write each unit's changes in their order. Raises `BatchRefused` or `StoreBusy`, unnamed."""
    for level in _levels(changes):
        for shape, rows in level.items():
            await _write(connection, store, shape, rows)


def _levels(changes: Iterable[Sequence[RowChange]]) -> list[dict[_Shape, list[RowChange]]]:
    levels: list[dict[_Shape, list[RowChange]]] = []
    for of_unit in changes:
        level = -1
        last: _Shape | None = None
        for change in of_unit:
            shape = (change.statements, change.effect, change.columns)
            if shape != last:
                level += 1
                last = shape
            if level == len(levels):
                levels.append({})
            levels[level].setdefault(shape, []).append(change)
    return levels


async def _write(
    connection: Connection, store: str, shape: _Shape, rows: Sequence[RowChange]
) -> None:
    statements, effect, columns = shape
    table = statements.table
    if effect is Effect.DELETED:
        sql = statements.delete
    elif effect is Effect.CREATED:
        sql = statements.insert(columns)
    else:
        sql = statements.update(columns)
    keys = [row.key for row in rows]
    parameters = zip(*(row.values for row in rows), strict=True)
    try:
        written = await connection.fetch(sql, keys, *map(list, parameters))
    except DRIVER_ERRORS as error:
        if is_key_taken(error, table):
            raise StoreBusy(store, "a row with the same key has just been inserted") from error
        raise translate(store, error) from error
    if len(written) != len(rows):
        raise BatchRefused(
            store,
            Problem(
                ErrorCode.CONSTRAINT_VIOLATED,
                f"A trigger, rule or policy of table {table.schema}.{table.name} "
                "suppressed the write of a row.",
            ),
        )
