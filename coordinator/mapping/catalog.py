"""What a live store says of its tables and collections, as frozen values.

Owns the shapes between the catalogs' readers, which know a driver, and `resolve`, which knows
none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

TableName = tuple[str, str]
"""(schema, table)."""


@dataclass(frozen=True, slots=True)
class LiveColumn:
    """One column. ``type`` is its SQL name as ``format_type`` gives it, for casts.

    ``base_type`` is the name of the type in ``pg_catalog`` that holds the values (``int4``,
    ``varchar``), domains looked through; ``None`` for a type that is not PostgreSQL's own.
    ``modifier`` is its type modifier, -1 if it has none. ``same_text_same_value`` is false
    for a collation that holds different texts for equal.
    """

    name: str
    type: str
    base_type: str | None
    modifier: int = -1
    not_null: bool = False
    generated: bool = False
    identity: bool = False
    has_default: bool = False
    same_text_same_value: bool = True


@dataclass(frozen=True, slots=True)
class LiveTable:
    """One table. ``kind`` is ``pg_class.relkind``; ``rights`` are those that we have.

    ``keys`` are the columns that are unique by themselves, immediately and without a condition.
    ``triggers`` and ``rules`` are the users'.
    """

    schema: str
    name: str
    kind: str
    columns: tuple[LiveColumn, ...]
    keys: frozenset[str]
    rights: frozenset[str]
    triggers: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    has_children: bool = False
    row_security: bool = False

    def column(self, name: str) -> LiveColumn | None:
        """Find a column."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True, slots=True)
class LiveForeignKey:
    """A foreign key: ``columns`` of ``table`` refer to ``referred_columns`` of ``referred``.

    ``on_delete`` is ``pg_constraint.confdeltype``.
    """

    name: str
    table: TableName
    columns: tuple[str, ...]
    referred: TableName
    referred_columns: tuple[str, ...]
    on_delete: str


@dataclass(frozen=True, slots=True)
class PostgresqlCatalog:
    """The mapped tables of a store that are there, and the foreign keys from and to them."""

    tables: Mapping[TableName, LiveTable]
    foreign_keys: tuple[LiveForeignKey, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveCollection:
    """One collection. ``kind`` is ``collection``, ``view`` or ``timeseries``.

    ``has_collation``: its default collation is not the simple one, which compares bytes.
    """

    name: str
    kind: str
    capped: bool = False
    has_collation: bool = False


@dataclass(frozen=True, slots=True)
class MongodbCatalog:
    """A MongoDB database. Transactions need a replica set or a sharded cluster of them."""

    has_transactions: bool
    collections: Mapping[str, LiveCollection]


Catalog: TypeAlias = PostgresqlCatalog | MongodbCatalog
