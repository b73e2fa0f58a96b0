"""A declared entity compared with its live PostgreSQL table.

Owns every mismatch of one table: columns, types, key, version, nullability, generated columns,
defaults, rights, and what also acts on it. Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from coordinator.domain.entity import Column, Entity, Field, FieldType, StoreKind
from coordinator.domain.operation import OperationKind
from coordinator.domain.values import Misfit, read_value, wire
from coordinator.mapping.catalog import LiveColumn, LiveTable, PostgresqlCatalog, TableName
from coordinator.mapping.columns import PADDED, expected, limits_of
from coordinator.mapping.comparison import Comparison
from coordinator.mapping.declaration import Declaration
from coordinator.mapping.names import DEFAULT_SCHEMA
from coordinator.toml_reading import hint


def table_of(entity: Entity) -> TableName:
    """Give the table of an entity in PostgreSQL."""
    return entity.schema or DEFAULT_SCHEMA, entity.table


def compare_table(
    found: Comparison, declaration: Declaration, catalog: PostgresqlCatalog
) -> Entity:
    """Give the entity with limits and columns, as far as they are there."""
    entity = declaration.entity
    live = catalog.tables.get(table_of(entity))
    if live is None:
        schema, name = table_of(entity)
        found.mistakes.append(
            f"{declaration.place}.table: store {entity.store} has no table {schema}.{name}"
        )
        return entity
    return _TableComparison(found, declaration, live).resolved()


class _TableComparison:
    """One entity, its table, and what is found."""

    def __init__(self, found: Comparison, declaration: Declaration, live: LiveTable) -> None:
        self._found = found
        self._declaration = declaration
        self._entity = declaration.entity
        self._place = declaration.place
        self._live = live
        self._shown = f"{live.schema}.{live.name}"

    def resolved(self) -> Entity:
        """Compare, and give the entity with limits and columns."""
        self._judge_table()
        self._judge_rights()
        self._judge_key()
        self._judge_version()
        self._judge_unmapped()
        fields = {name: self._field(each) for name, each in self._entity.fields.items()}
        columns = tuple(
            Column(each.name, each.type, each.generated, each.identity)
            for each in self._live.columns
        )
        return replace(self._entity, fields=fields, columns=columns)

    def _wrong(self, below: str, sentence: str) -> None:
        self._found.mistakes.append(f"{self._place}.{below}: {sentence}")

    def _warn(self, below: str, sentence: str) -> None:
        self._found.warnings.append(f"{self._place}.{below}: {sentence}")

    def _judge_table(self) -> None:
        live, shown = self._live, self._shown
        if live.kind not in _TABLE_KINDS:
            what = _OTHER_KINDS.get(live.kind, "something else")
            self._wrong("table", f"{shown} is {what}, not a table")
        if live.has_children:
            self._wrong(
                "table", f"{shown} has tables that inherit from it, where its key is not unique"
            )
        for trigger in live.triggers:
            self._warn("table", f"trigger {trigger} of {shown} also acts when a write is undone")
        for rule in live.rules:
            self._warn("table", f"rule {rule} of {shown} may replace what we write")
        if live.row_security:
            self._warn("table", f"row security of {shown} may hide rows from us")

    def _judge_rights(self) -> None:
        lacking = sorted(rights_needed(self._entity) - self._live.rights)
        if lacking:
            self._found.missing_rights.append(
                f"{self._place}.table: store {self._entity.store} does not grant us "
                f"{', '.join(lacking)} on {self._shown}"
            )

    def _judge_key(self) -> None:
        column = self._live.column(self._entity.key)
        if column is None:
            return  # told with the field
        if column.name not in self._live.keys or not column.not_null:
            self._wrong(
                "key",
                f"column {column.name} must be PRIMARY KEY or UNIQUE NOT NULL by itself, and not "
                "DEFERRABLE",
            )
        if column.generated:
            self._wrong("key", f"column {column.name} is generated, so it cannot be given")
        self._judge_names(column, "key")
        for reference in self._entity.references:
            referring = self._live.column(reference.field)
            if referring is not None:
                self._judge_names(referring, f"references.{reference.field}")

    def _judge_names(self, column: LiveColumn, below: str) -> None:
        """A lock is on the key's text (I5): two texts must not name one row."""
        if not column.same_text_same_value:
            self._wrong(
                below,
                f"the collation of column {column.name} is not deterministic, so different keys "
                "could be one row",
            )
        elif column.base_type == PADDED:
            self._wrong(
                below,
                f"column {column.name} is {column.type}, which is padded with blanks, so different "
                "keys could be one row; make it text or varchar",
            )

    def _judge_version(self) -> None:
        version = self._entity.version
        if version is None:
            return
        column, is_declared = self._live.column(version), version in self._entity.fields
        if column is None:
            if not is_declared:
                self._wrong("version", self._no_column(version))
        elif column.generated or column.identity:
            self._wrong("version", f"column {version} is made by the store; we must write it")
        elif not is_declared and limits_of(column, FieldType.INTEGER) is None:
            self._wrong("version", _wrong_type(column, FieldType.INTEGER))

    def _field(self, declared: Field) -> Field:
        at = f"fields.{declared.name}"
        column = self._live.column(declared.name)
        if column is None:
            self._wrong(at, self._no_column(declared.name))
            return declared
        limits = limits_of(column, declared.type)
        if limits is None:
            self._wrong(f"{at}.type", _wrong_type(column, declared.type))
            return declared
        is_special = declared.name in {self._entity.key, self._entity.version}
        if declared.nullable and column.not_null and not column.has_default and not is_special:
            self._wrong(f"{at}.nullable", f"column {column.name} is NOT NULL and has no default")
        resolved = replace(declared, limits=limits)
        if column.generated:
            return self._generated(at, resolved)
        return self._with_default(at, resolved)

    def _generated(self, at: str, declared: Field) -> Field:
        """F30: a generated column is left out of what is written."""
        if declared.has_default or declared.default_generator:
            self._wrong(f"{at}.default", f"column {declared.name} is generated by the store")
        elif not declared.read_only:
            self._warn(at, f"column {declared.name} is generated, so the field is read_only")
        return replace(declared, read_only=True)

    def _with_default(self, at: str, declared: Field) -> Field:
        """Read the default again as the column will hold it: limits, trailing zeros."""
        if not declared.has_default or declared.type is FieldType.JSON:
            return declared
        given = wire(declared.type, declared.default)
        try:
            return replace(declared, default=read_value(declared, StoreKind.POSTGRESQL, given))
        except Misfit as misfit:
            self._wrong(f"{at}.default", f"the value {misfit.sentence}")
            return declared

    def _judge_unmapped(self) -> None:
        """An insert leaves such a column out, and the store refuses it."""
        entity = self._entity
        creating = sorted(entity.operations & CREATING)
        if not creating:
            return
        for column in self._live.columns:
            if column.name in entity.fields or column.name == entity.version:
                continue
            if not column.not_null or column.has_default or column.generated:
                continue
            sentence = (
                f"column {column.name} of {self._shown} is NOT NULL without default and not "
                f"mapped, so every {' and '.join(creating)} will be refused"
            )
            if self._declaration.says_operations:
                self._wrong("operations", sentence)
            else:
                self._found.warnings.append(f"{self._place}: {sentence}")

    def _no_column(self, name: str) -> str:
        near = hint(name, [column.name for column in self._live.columns])
        return f"table {self._shown} has no column {name}{near}"


_TABLE_KINDS: Final = frozenset({"r", "p"})
_OTHER_KINDS: Final = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
CREATING: Final = frozenset({OperationKind.INSERT, OperationKind.UPSERT})


def rights_needed(entity: Entity) -> frozenset[str]:
    """Give the privileges on its table that its operations need, their undo included.

    Locking a row needs UPDATE.
    """
    needed = {"SELECT", "UPDATE"}
    if entity.operations & {*CREATING, OperationKind.DELETE}:
        needed |= {"INSERT", "DELETE"}
    return frozenset(needed)


def _wrong_type(column: LiveColumn, field_type: FieldType) -> str:
    return f"column {column.name} is {column.type}, but {field_type} needs {expected(field_type)}"
