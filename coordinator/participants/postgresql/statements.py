"""The SQL about mapped tables: built once per table and shape, values only as parameters.

Every value travels as text: columns are read as ``column::text``, and written from parallel
``text[]`` parameters that the server casts to the column's own type. So nothing is lost for any
type (infinite timestamps, NaN, domains, json as it was formatted), and one statement serves any
number of rows. Owns the one function that quotes a name. Refuses to know what a row means.

``$1`` is always the array of keys; the further parameters are the arrays of the shape's columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from coordinator.domain.entity import Column, Entity

SHAPES_MAX = 1024
"""Distinct sets of columns that a table remembers statements for; then it starts anew."""


class RowLock(StrEnum):
    """How strongly rows are locked.

    A row that is only updated is locked so that strangers' foreign keys may still refer to it; a
    row that is only checked may be shared by other readers.
    """

    SHARE = "SHARE"
    NO_KEY_UPDATE = "NO KEY UPDATE"
    UPDATE = "UPDATE"


@dataclass(frozen=True, slots=True)
class Table:
    """A table as statements need it. ``key`` is the column that holds the key."""

    schema: str
    name: str
    key: str
    columns: tuple[Column, ...]

    @classmethod
    def of(cls, entity: Entity) -> Table:
        """Take what statements need from a mapped entity of PostgreSQL."""
        return cls(entity.schema or "public", entity.table, entity.key, entity.columns)


def quote_identifier(name: str) -> str:
    """Quote a name for SQL, whatever is in it; the only place that does."""
    if not name or "\0" in name:
        raise ValueError("a name in SQL has at least one character and no NUL")
    return '"' + name.replace('"', '""') + '"'


def quote_table(schema: str, table: str) -> str:
    """Quote a table's name with its schema."""
    return f"{quote_identifier(schema)}.{quote_identifier(table)}"


class Statements:
    """One table's statements, and where its columns stand in the rows that they return.

    ``names`` are all columns, in the order of the texts in every returned row; ``index`` tells
    the place of each. ``restorable`` are those that may be written at all: not generated ones.
    ``read`` returns (number of the key from 1, texts…) of the rows that are there, ``preview`` the
    row's version behind them, ``exist`` and ``delete`` the number only.

    A row's version is the transaction that has written it (``xmin``): nothing about the row has
    changed since it was read as long as that is the same.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.names = tuple(column.name for column in table.columns)
        self.index = {name: at for at, name in enumerate(self.names)}
        self.restorable = tuple(column.name for column in table.columns if not column.generated)
        self.identity = frozenset(column.name for column in table.columns if column.identity)
        self._types = {column.name: column.type for column in table.columns}
        self._quoted = quote_table(table.schema, table.name)
        self._texts = ", ".join(f"t.{quote_identifier(name)}::text" for name in self.names)
        self._by_key = f"t.{quote_identifier(table.key)} = v.p1::{self._types[table.key]}"
        self._shapes: dict[tuple[str, tuple[str, ...]], str] = {}
        source = f"FROM {_parameters(1)} JOIN {self._quoted} AS t ON {self._by_key}"
        self.read = f"SELECT v.n, {self._texts} {source}"
        self.preview = f"SELECT v.n, {self._texts}, t.xmin::text {source}"
        self.exist = f"SELECT v.n {source}"
        self.delete = (
            f"DELETE FROM {self._quoted} AS t USING {_parameters(1)}"
            f" WHERE {self._by_key} RETURNING v.n"
        )
        self._locks = {
            strength: f"{self.read} FOR {strength} OF t SKIP LOCKED" for strength in RowLock
        }

    def lock(self, strength: RowLock) -> str:
        """Lock the rows that nobody else holds: returns (number of the key, texts…) of those.

        SKIP LOCKED follows a row to its newest version, so the texts are those of the version
        that is locked. It never waits, so the order of the keys is free. A row that is not
        returned is missing or held by somebody: ``exist`` tells which (rule 9).
        """
        return self._locks[strength]

    def insert(self, columns: tuple[str, ...]) -> str:
        """Insert rows with the key and ``columns``: returns (0, new texts…) in the keys' order."""
        return self._shape("insert", columns)

    def update(self, columns: tuple[str, ...]) -> str:
        """Set ``columns`` (at least one) by key: returns (number of the key, new texts…)."""
        return self._shape("update", columns)

    def foretold(self, columns: tuple[str, ...]) -> str:
        """Set ``columns`` of rows that nobody holds and whose version is ``$2``: two expressions.

        The last one, ``foretold``, gives per written row whether it ``came_true``: every column
        shows the text that was sent, or what it has shown before; generated ones are not asked.
        """
        return self._shape("foretold", columns)

    def _shape(self, kind: str, columns: tuple[str, ...]) -> str:
        sql = self._shapes.get((kind, columns))
        if sql is None:
            if len(self._shapes) >= SHAPES_MAX:
                self._shapes.clear()
            make = {"insert": self._insert, "update": self._update, "foretold": self._foretold}
            sql = self._shapes[kind, columns] = make[kind](columns)
        return sql

    def _insert(self, columns: tuple[str, ...]) -> str:
        written = (self.table.key, *columns)
        names = ", ".join(map(quote_identifier, written))
        values = ", ".join(f"v.p{at}::{self._types[name]}" for at, name in enumerate(written, 1))
        overriding = "OVERRIDING SYSTEM VALUE " if self.identity else ""
        # The order makes the returned rows those of the parameters, one by one.
        return (
            f"INSERT INTO {self._quoted} AS t ({names}) {overriding}"
            f"SELECT {values} FROM {_parameters(len(written))}"
            f" ORDER BY v.n RETURNING 0, {self._texts}"
        )

    def _update(self, columns: tuple[str, ...]) -> str:
        assigned = ", ".join(
            f"{quote_identifier(name)} = v.p{at}::{self._types[name]}"
            for at, name in enumerate(columns, 2)
        )
        return (
            f"UPDATE {self._quoted} AS t SET {assigned} FROM {_parameters(1 + len(columns))}"
            f" WHERE {self._by_key} RETURNING v.n, {self._texts}"
        )

    def _foretold(self, columns: tuple[str, ...]) -> str:
        sent = {name: f"p{at}" for at, name in enumerate(columns, 3)}
        # A generated column changes with the others, and is in no image of such a table.
        kept = {name: f"k{at}" for at, name in enumerate(self.restorable) if name not in sent}
        seen = ", ".join(
            [f"t.{quote_identifier(self.table.key)} AS key"]
            + [f"t.{quote_identifier(name)}::text AS {as_}" for name, as_ in kept.items()]
            + [f"v.{as_}" for as_ in sent.values()]
        )
        assigned = ", ".join(
            f"{quote_identifier(name)} = s.{as_}::{self._types[name]}" for name, as_ in sent.items()
        )
        came_true = " AND ".join(
            f"t.{quote_identifier(name)}::text IS NOT DISTINCT FROM s.{as_}"
            for name, as_ in {**sent, **kept}.items()
        )
        return (
            f"seen AS MATERIALIZED (SELECT {seen} FROM {_parameters(2 + len(columns))}"
            f" JOIN {self._quoted} AS t ON {self._by_key} WHERE t.xmin::text = v.p2"
            f" FOR {RowLock.NO_KEY_UPDATE} OF t SKIP LOCKED),"
            f" foretold AS (UPDATE {self._quoted} AS t SET {assigned} FROM seen AS s"
            f" WHERE t.{quote_identifier(self.table.key)} = s.key"
            f" RETURNING {came_true} AS came_true)"
        )


@lru_cache(maxsize=1024)
def statements_of(table: Table) -> Statements:
    """Give the table's statements; the same object for the same table."""
    return Statements(table)


def _parameters(count: int) -> str:
    arrays = ", ".join(f"${at}::text[]" for at in range(1, count + 1))
    names = ", ".join(f"p{at}" for at in range(1, count + 1))
    # Unqualified: the grammar knows only so that it takes several arrays; the search path is fixed.
    return f"unnest({arrays}) WITH ORDINALITY AS v({names}, n)"
