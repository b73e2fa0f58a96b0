"""From declarations and live catalogs to the mapping that the engine runs with.

Owns the comparison at start (DESIGN 2.5): every mismatch is listed at once, none is worked around.
Pure: the catalogs have been read. Types of MongoDB fields are not compared (F35), since a
collection has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from coordinator.domain.entity import Column, Entity, Field, FieldType, StoreKind
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import ConfigurationInvalid, InvariantViolated
from coordinator.domain.mapping_json import make_mapping
from coordinator.domain.operation import OperationKind
from coordinator.domain.values import MONGODB_LIMITS, Misfit, read_value, wire
from coordinator.mapping.catalog import (
    Catalog,
    LiveColumn,
    LiveTable,
    MongodbCatalog,
    PostgresqlCatalog,
    TableName,
)
from coordinator.mapping.columns import expected, limits_of
from coordinator.mapping.declaration import Declaration
from coordinator.mapping.foreign_keys import foreign_key_mistakes
from coordinator.mapping.names import DEFAULT_SCHEMA
from coordinator.toml_reading import hint


@dataclass(frozen=True, slots=True)
class Resolution:
    """The mapping, and what an operator should know of it.

    ``warnings`` are sentences with their places. ``missing_collections`` are to be made by ``run``
    (F35), by store. ``missing_rights`` are sentences: units that need such a right will be refused
    with ``store_refused`` (F33).
    """

    mapping: EntityMapping
    warnings: tuple[str, ...] = ()
    missing_collections: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing_rights: tuple[str, ...] = ()


def tables_of(declarations: Iterable[Declaration], store: str) -> list[TableName]:
    """Give the tables of a PostgreSQL store that its catalog is to be read for."""
    return [
        table_of(declaration.entity)
        for declaration in declarations
        if declaration.entity.store == store
    ]


def table_of(entity: Entity) -> TableName:
    """Give the table of an entity in PostgreSQL."""
    return entity.schema or DEFAULT_SCHEMA, entity.table


def resolve(
    declarations: Iterable[Declaration],
    catalogs: Mapping[str, Catalog],
    *,
    journal_store: str | None,
) -> Resolution:
    """Compare all declarations with the catalogs of their stores, which must all be given.

    ``journal_store`` is ``None`` when the journal has a database of its own. Raises
    `ConfigurationInvalid` with every mismatch.
    """
    comparison = _Comparison()
    declared = tuple(declarations)
    entities = [comparison.resolved(each, catalogs.get(each.entity.store)) for each in declared]
    _judge_transactions(comparison, declared, catalogs)
    for store, catalog in catalogs.items():
        if isinstance(catalog, PostgresqlCatalog):
            comparison.mistakes += foreign_key_mistakes(
                [each for each in declared if each.entity.store == store],
                catalog,
                is_journals=store == journal_store,
            )
    if comparison.mistakes:
        raise ConfigurationInvalid(comparison.mistakes)
    return Resolution(
        mapping=make_mapping(entities),
        warnings=tuple(comparison.warnings),
        missing_collections={
            store: tuple(names) for store, names in comparison.missing_collections.items()
        },
        missing_rights=tuple(comparison.missing_rights),
    )


def _judge_transactions(
    comparison: _Comparison, declared: Iterable[Declaration], catalogs: Mapping[str, Catalog]
) -> None:
    """Also of a store without entities: it is configured, so somebody means to use it."""
    for store, catalog in catalogs.items():
        if isinstance(catalog, MongodbCatalog) and not catalog.has_transactions:
            comparison.mistakes.append(
                f"stores.{store}: the server is no member of a replica set, so it has no "
                "transactions; start mongod with --replSet (one member is enough)"
            )


class _Comparison:
    """Gathers what the comparison finds."""

    def __init__(self) -> None:
        self.mistakes: list[str] = []
        self.warnings: list[str] = []
        self.missing_rights: list[str] = []
        self.missing_collections: dict[str, list[str]] = {}

    def resolved(self, declaration: Declaration, catalog: Catalog | None) -> Entity:
        """Give the entity with limits and columns, as far as they are there."""
        entity = declaration.entity
        if entity.kind is StoreKind.MONGODB and isinstance(catalog, MongodbCatalog):
            return self._collection(declaration, catalog)
        if entity.kind is StoreKind.POSTGRESQL and isinstance(catalog, PostgresqlCatalog):
            return self._table(declaration, catalog)
        raise InvariantViolated(f"the catalog of store {entity.store} was not read")

    # --- MongoDB --------------------------------------------------------------------------------

    def _collection(self, declaration: Declaration, catalog: MongodbCatalog) -> Entity:
        entity = declaration.entity
        live = catalog.collections.get(entity.table)
        at = f"{declaration.place}.collection"
        if live is None:
            self.missing_collections.setdefault(entity.store, []).append(entity.table)
        elif live.kind != "collection":
            self.mistakes.append(f"{at}: {entity.table} is a {live.kind}, not a collection")
        elif live.capped:
            self.mistakes.append(
                f"{at}: {entity.table} is capped, and MongoDB takes no writes to it in transactions"
            )
        fields = {
            name: replace(each, limits=MONGODB_LIMITS[each.type])
            for name, each in entity.fields.items()
        }
        return replace(entity, fields=fields)

    # --- PostgreSQL -----------------------------------------------------------------------------

    def _table(self, declaration: Declaration, catalog: PostgresqlCatalog) -> Entity:
        entity = declaration.entity
        live = catalog.tables.get(table_of(entity))
        if live is None:
            schema, name = table_of(entity)
            self.mistakes.append(
                f"{declaration.place}.table: store {entity.store} has no table {schema}.{name}"
            )
            return entity
        self._judge_table(declaration, live)
        self._judge_key(declaration, live)
        self._judge_version(declaration, live)
        self._warn_of_unmapped(declaration, live)
        fields = {
            name: self._field(declaration, each, live) for name, each in entity.fields.items()
        }
        columns = tuple(
            Column(each.name, each.type, each.generated, each.identity) for each in live.columns
        )
        return replace(entity, fields=fields, columns=columns)

    def _judge_table(self, declaration: Declaration, live: LiveTable) -> None:
        at = f"{declaration.place}.table"
        shown = f"{live.schema}.{live.name}"
        if live.kind not in _TABLE_KINDS:
            what = _OTHER_KINDS.get(live.kind, "something else")
            self.mistakes.append(f"{at}: {shown} is {what}, not a table")
        if live.has_children:
            self.mistakes.append(
                f"{at}: {shown} has tables that inherit from it, where its key is not unique"
            )
        for trigger in live.triggers:
            self.warnings.append(
                f"{at}: trigger {trigger} of {shown} also acts when a write is undone"
            )
        for rule in live.rules:
            self.warnings.append(f"{at}: rule {rule} of {shown} may replace what we write")
        if live.row_security:
            self.warnings.append(f"{at}: row security of {shown} may hide rows from us")
        lacking = sorted(_rights_needed(declaration.entity) - live.rights)
        if lacking:
            self.missing_rights.append(
                f"{at}: store {declaration.entity.store} does not grant us "
                f"{', '.join(lacking)} on {shown}"
            )

    def _judge_key(self, declaration: Declaration, live: LiveTable) -> None:
        column = live.column(declaration.entity.key)
        if column is None:
            return  # told with the field
        at = f"{declaration.place}.key"
        if column.name not in live.keys or not column.not_null:
            self.mistakes.append(
                f"{at}: column {column.name} must be PRIMARY KEY or UNIQUE NOT NULL by itself, "
                "and not DEFERRABLE"
            )
        if column.generated:
            self.mistakes.append(f"{at}: column {column.name} is generated, so it cannot be given")
        if not column.same_text_same_value:
            self.mistakes.append(
                f"{at}: the collation of column {column.name} is not deterministic, so different "
                "keys could be one row"
            )

    def _judge_version(self, declaration: Declaration, live: LiveTable) -> None:
        version = declaration.entity.version
        if version is None:
            return
        column = live.column(version)
        at = f"{declaration.place}.version"
        if column is None:
            if version not in declaration.entity.fields:
                self.mistakes.append(f"{at}: {_no_column(live, version)}")
        elif column.generated or column.identity:
            self.mistakes.append(f"{at}: column {version} is made by the store; we must write it")
        elif version not in declaration.entity.fields and (
            limits_of(column, FieldType.INTEGER) is None
        ):
            self.mistakes.append(f"{at}: {_wrong_type(column, FieldType.INTEGER)}")

    def _field(self, declaration: Declaration, declared: Field, live: LiveTable) -> Field:
        at = f"{declaration.place}.fields.{declared.name}"
        column = live.column(declared.name)
        if column is None:
            self.mistakes.append(f"{at}: {_no_column(live, declared.name)}")
            return declared
        limits = limits_of(column, declared.type)
        if limits is None:
            self.mistakes.append(f"{at}.type: {_wrong_type(column, declared.type)}")
            return declared
        is_special = declared.name in {declaration.entity.key, declaration.entity.version}
        if declared.nullable and column.not_null and not column.has_default and not is_special:
            self.mistakes.append(
                f"{at}.nullable: column {column.name} is NOT NULL and has no default"
            )
        resolved = replace(declared, limits=limits)
        if column.generated:
            return self._generated(at, resolved)
        return self._with_default(at, resolved)

    def _generated(self, at: str, declared: Field) -> Field:
        """F30: a generated column is left out of what is written."""
        if declared.has_default or declared.default_generator:
            self.mistakes.append(f"{at}.default: column {declared.name} is generated by the store")
        elif not declared.read_only:
            self.warnings.append(
                f"{at}: column {declared.name} is generated, so the field is read_only"
            )
        return replace(declared, read_only=True)

    def _with_default(self, at: str, declared: Field) -> Field:
        """Read the default again as the column will hold it: limits, trailing zeros."""
        if not declared.has_default or declared.type is FieldType.JSON:
            return declared
        try:
            value = read_value(
                declared, StoreKind.POSTGRESQL, wire(declared.type, declared.default)
            )
        except Misfit as misfit:
            self.mistakes.append(f"{at}.default: the value {misfit.sentence}")
            return declared
        return replace(declared, default=value)

    def _warn_of_unmapped(self, declaration: Declaration, live: LiveTable) -> None:
        """An insert leaves such a column out, and the store refuses it."""
        entity = declaration.entity
        creating = sorted(entity.operations & _CREATING)
        if not creating:
            return
        for column in live.columns:
            if column.name in entity.fields or column.name == entity.version:
                continue
            if not column.not_null or column.has_default or column.generated:
                continue
            sentence = (
                f"column {column.name} of {live.schema}.{live.name} is NOT NULL without default "
                f"and not mapped, so every {' and '.join(creating)} will be refused"
            )
            if declaration.says_operations:
                self.mistakes.append(f"{declaration.place}.operations: {sentence}")
            else:
                self.warnings.append(f"{declaration.place}: {sentence}")


_TABLE_KINDS: Final = frozenset({"r", "p"})
_OTHER_KINDS: Final = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
_CREATING: Final = frozenset({OperationKind.INSERT, OperationKind.UPSERT})


def _rights_needed(entity: Entity) -> frozenset[str]:
    """What the operations need, their undo included. Locking a row needs UPDATE."""
    needed = {"SELECT", "UPDATE"}
    if entity.operations & {*_CREATING, OperationKind.DELETE}:
        needed |= {"INSERT", "DELETE"}
    return frozenset(needed)


def _no_column(live: LiveTable, name: str) -> str:
    near = hint(name, [column.name for column in live.columns])
    return f"table {live.schema}.{live.name} has no column {name}{near}"


def _wrong_type(column: LiveColumn, field_type: FieldType) -> str:
    return f"column {column.name} is {column.type}, but {field_type} needs {expected(field_type)}"
