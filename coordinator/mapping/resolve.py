"""From declarations and live catalogs to the mapping that the engine runs with.

Owns the comparison at start (DESIGN 2.5): every mismatch is listed at once, none is worked around.
Pure: the catalogs have been read. Types of MongoDB fields are not compared (F35), since a
collection has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from coordinator.domain.entity import Entity, StoreKind
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import ConfigurationInvalid, InvariantViolated
from coordinator.domain.mapping_json import make_mapping
from coordinator.domain.operation import OperationKind
from coordinator.domain.values import MONGODB_LIMITS
from coordinator.mapping.catalog import Catalog, MongodbCatalog, PostgresqlCatalog, TableName
from coordinator.mapping.comparison import Comparison
from coordinator.mapping.declaration import Declaration
from coordinator.mapping.foreign_keys import foreign_key_mistakes
from coordinator.mapping.live_tables import compare_table, table_of


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
    found = Comparison()
    declared = tuple(declarations)
    entities = [_resolved(found, each, catalogs.get(each.entity.store)) for each in declared]
    for declaration, entity in zip(declared, entities, strict=True):
        _warn_of_impossible_inserts(found, declaration.place, entity)
    _judge_transactions(found, catalogs)
    for store, catalog in catalogs.items():
        if isinstance(catalog, PostgresqlCatalog):
            found.mistakes += foreign_key_mistakes(
                [each for each in declared if each.entity.store == store],
                catalog,
                is_journals=store == journal_store,
            )
    if found.mistakes:
        raise ConfigurationInvalid(found.mistakes)
    return Resolution(
        mapping=make_mapping(entities),
        warnings=tuple(found.warnings),
        missing_collections={
            store: tuple(names) for store, names in found.missing_collections.items()
        },
        missing_rights=tuple(found.missing_rights),
    )


def _resolved(found: Comparison, declaration: Declaration, catalog: Catalog | None) -> Entity:
    entity = declaration.entity
    if entity.kind is StoreKind.MONGODB and isinstance(catalog, MongodbCatalog):
        return _compare_collection(found, declaration, catalog)
    if entity.kind is StoreKind.POSTGRESQL and isinstance(catalog, PostgresqlCatalog):
        return compare_table(found, declaration, catalog)
    raise InvariantViolated(f"the catalog of store {entity.store} was not read")


def _compare_collection(
    found: Comparison, declaration: Declaration, catalog: MongodbCatalog
) -> Entity:
    entity = declaration.entity
    live = catalog.collections.get(entity.table)
    at = f"{declaration.place}.collection"
    if live is None:
        found.missing_collections.setdefault(entity.store, []).append(entity.table)
    elif live.kind != "collection":
        found.mistakes.append(f"{at}: {entity.table} is a {live.kind}, not a collection")
    elif live.capped:
        found.mistakes.append(
            f"{at}: {entity.table} is capped, and MongoDB takes no writes to it in transactions"
        )
    elif live.has_collation:
        found.mistakes.append(
            f"{at}: {entity.table} has a default collation, under which different keys could be "
            "one document; make it again without one"
        )
    fields = {
        name: replace(each, limits=MONGODB_LIMITS[each.type])
        for name, each in entity.fields.items()
    }
    return replace(entity, fields=fields)


def _judge_transactions(found: Comparison, catalogs: Mapping[str, Catalog]) -> None:
    """Also of a store without entities: it is configured, so somebody means to use it."""
    for store, catalog in catalogs.items():
        if isinstance(catalog, MongodbCatalog) and not catalog.has_transactions:
            found.mistakes.append(
                f"stores.{store}: the server is no member of a replica set, so it has no "
                "transactions; start mongod with --replSet (one member is enough)"
            )


def _warn_of_impossible_inserts(found: Comparison, place: str, entity: Entity) -> None:
    """A field that nobody may write and nothing fills is missing in every insert (F16, F20)."""
    if OperationKind.INSERT not in entity.operations:
        return
    made_by_store = {each.name for each in entity.columns if each.generated or each.identity}
    for name, each in entity.fields.items():
        is_filled = each.nullable or each.has_default or each.default_generator is not None
        if name in {entity.key, entity.version} or name in made_by_store:
            continue
        if each.read_only and not is_filled:
            found.warnings.append(
                f"{place}.fields.{name}: it is read_only, not nullable and has no "
                "default, so every insert will be refused"
            )
