"""What the simulated shop sells: three stores, their entities, their first rows and their rules.

``ledger`` shares its database with the journal (it is the pivot), ``catalog`` is a store of
documents, ``archive`` one of tables. All entities have the same fields: ``n`` is only ever counted
up and down, ``slot`` is unique, and a ``tag`` may be forbidden (see `judge`).
"""

from __future__ import annotations

import random

from coordinator.domain.decide import Image, ImageKey
from coordinator.domain.entity import (
    Column,
    Entity,
    Field,
    FieldType,
    ForeignWritePolicy,
    Reference,
    StoreKind,
)
from coordinator.domain.mapping_json import make_mapping
from coordinator.memory.store_tables import Rows, StoreTables

LEDGER, CATALOG, ARCHIVE = "ledger", "catalog", "archive"

STANDING_KEYS = range(1, 4)
"""Rows that are there from the start and are never deleted by a unit."""

PASSING_KEYS = range(4, 7)
"""Rows that units insert and delete."""

HOT_ENTITIES = ("till", "wallet", "wallet", "wallet", "jar", "pot")
HOT_KEYS = (1, 1, 1, 2)
HOT_BOUNDS = (0, 40)
"""What many units only count up and down, so that they share it."""

CURSED = "cursed"
"""A tag that no store ever takes."""

OLD = "old"
"""A tag that some first rows have and no store takes any more: its undo is refused."""


_COLUMN_TYPES = {FieldType.INTEGER: "bigint", FieldType.STRING: "text"}


def _entity(
    name: str,
    store: str,
    kind: StoreKind,
    policy: ForeignWritePolicy,
    *,
    version: str | None = "version",
    refers_to: str | None = None,
    bounds: tuple[int, int | None] = (-30, None),
) -> Entity:
    key = "id" if kind is StoreKind.POSTGRESQL else "_id"
    fields = {
        key: Field(key, FieldType.INTEGER),
        "n": Field("n", FieldType.INTEGER, nullable=True, min=bounds[0], max=bounds[1]),
        "note": Field("note", FieldType.STRING, nullable=True),
        "tag": Field("tag", FieldType.STRING, nullable=True),
        "slot": Field("slot", FieldType.INTEGER, nullable=True),
    }
    references: tuple[Reference, ...] = ()
    if refers_to is not None:
        fields["of"] = Field("of", FieldType.INTEGER, nullable=True)
        references = (Reference("of", refers_to),)
    columns: tuple[Column, ...] = ()
    if kind is StoreKind.POSTGRESQL:
        types = {name: _COLUMN_TYPES[field.type] for name, field in fields.items()}
        if version is not None:
            types[version] = "bigint"
        columns = tuple(Column(name, of) for name, of in types.items())
    return Entity(
        name=name,
        store=store,
        kind=kind,
        schema="public" if kind is StoreKind.POSTGRESQL else None,
        table=name,
        key=key,
        fields=fields,
        version=version,
        on_foreign_write=policy,
        references=references,
        columns=columns,
    )


_SQL, _DOCUMENTS = StoreKind.POSTGRESQL, StoreKind.MONGODB

SHOP = make_mapping(
    (
        _entity("account", LEDGER, _SQL, ForeignWritePolicy.PARK),
        _entity("customer", LEDGER, _SQL, ForeignWritePolicy.PARK, version=None),
        _entity("order", CATALOG, _DOCUMENTS, ForeignWritePolicy.PARK, refers_to="customer"),
        _entity("stock", CATALOG, _DOCUMENTS, ForeignWritePolicy.FORCE),
        _entity("hold", ARCHIVE, _SQL, ForeignWritePolicy.SKIP, version=None),
        _entity("entry", ARCHIVE, _SQL, ForeignWritePolicy.PARK),
        _entity("till", LEDGER, _SQL, ForeignWritePolicy.PARK, bounds=HOT_BOUNDS),
        _entity("wallet", CATALOG, _DOCUMENTS, ForeignWritePolicy.PARK, bounds=HOT_BOUNDS),
        _entity("jar", CATALOG, _DOCUMENTS, ForeignWritePolicy.FORCE, bounds=HOT_BOUNDS),
        _entity("pot", ARCHIVE, _SQL, ForeignWritePolicy.SKIP, version=None, bounds=HOT_BOUNDS),
    )
)

KINDS = {LEDGER: _SQL, CATALOG: _DOCUMENTS, ARCHIVE: _SQL}


def judge(at: ImageKey, before: Image | None, after: Image) -> str | None:
    """The CHECK constraint: a tag that is set may be neither cursed nor old."""
    tag = after.get("tag")
    if tag in {CURSED, OLD} and (before is None or before.get("tag") != tag):
        return f"the tag {tag} is not allowed."
    return None


def first_image(entity: Entity, key: int, tag: str | None) -> Image:
    image = {entity.key: key, "n": 10, "note": "first", "tag": tag, "slot": None}
    if entity.references:
        image["of"] = None
    if entity.version is not None:
        image[entity.version] = 1
    return image


def open_stores(source: random.Random, *, with_old_tags: bool) -> list[StoreTables]:
    stores = []
    for name, kind in KINDS.items():
        rows = Rows()
        for entity in SHOP.entities.values():
            if entity.store != name:
                continue
            for key in STANDING_KEYS:
                is_old = with_old_tags and name != LEDGER and source.random() < 0.3
                rows[entity.name, str(key)] = first_image(entity, key, OLD if is_old else None)
        stores.append(StoreTables(name, kind, rows, unique=("slot",), judge=judge))
    return stores
