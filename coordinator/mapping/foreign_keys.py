"""Foreign keys that would make undo or order impossible (F30).

Owns the two refusals: a delete that the store itself spreads to other rows, whose images nobody
has, and a foreign key that decides the order of operations without our knowing. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from coordinator.domain.entity import Entity, Reference
from coordinator.domain.operation import OperationKind
from coordinator.mapping.catalog import LiveForeignKey, PostgresqlCatalog, TableName
from coordinator.mapping.declaration import Declaration
from coordinator.mapping.live_tables import table_of

_SPREADING: Final = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


def foreign_key_mistakes(
    declarations: Iterable[Declaration], catalog: PostgresqlCatalog, *, is_journals: bool
) -> list[str]:
    """Give every mistake about foreign keys of one store. ``is_journals``: the pivot is there."""
    by_table = {table_of(each.entity): each for each in declarations}
    found: dict[str, None] = {}  # once each: partitions repeat the keys of their table
    for foreign_key in catalog.foreign_keys:
        for mistake in _mistakes(foreign_key, by_table, is_journals=is_journals):
            found[mistake] = None
    return list(found)


def _mistakes(
    foreign_key: LiveForeignKey, by_table: dict[TableName, Declaration], *, is_journals: bool
) -> Iterator[str]:
    referred = by_table.get(foreign_key.referred)
    action = _SPREADING.get(foreign_key.on_delete)
    if (
        referred is not None
        and action is not None
        and not is_journals
        and OperationKind.DELETE in referred.entity.operations
    ):
        yield (
            f"{referred.place}.operations: delete cannot be undone here, because foreign key "
            f"{foreign_key.name} of {_shown(foreign_key.table)} is ON DELETE {action}; leave "
            "delete out of operations, or make the foreign key NO ACTION"
        )
    referring = by_table.get(foreign_key.table)
    if referred is None or referring is None:
        return
    if not _is_named(foreign_key, referring.entity, referred.entity):
        yield f"{referring.place}.references: {_advice(foreign_key, referred.entity)}"


def _is_named(foreign_key: LiveForeignKey, referring: Entity, referred: Entity) -> bool:
    return (
        len(foreign_key.columns) == 1
        and foreign_key.referred_columns == (referred.key,)
        and Reference(foreign_key.columns[0], referred.name) in referring.references
    )


def _advice(foreign_key: LiveForeignKey, referred: Entity) -> str:
    columns = ", ".join(foreign_key.columns)
    known = f"foreign key {foreign_key.name} on {columns} refers to entity {referred.name}"
    if len(foreign_key.columns) > 1:
        return f"{known} by several columns, which references cannot name"
    if foreign_key.referred_columns != (referred.key,):
        return (
            f"{known} by {foreign_key.referred_columns[0]}, which is not its key, so "
            "references cannot name it"
        )
    return f'{known}; add {columns} = "{referred.name}.{referred.key}"'


def _shown(table: TableName) -> str:
    return ".".join(table)
