"""The mapping's form in the journal, under its fingerprint (rule 8).

Owns the lossless round trip of `Mapping`: a plan that was journaled is finished or undone with
the mapping that it was made with, whatever the configuration says by then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import orjson

from coordinator.domain.entity import (
    Column,
    Entity,
    Field,
    FieldType,
    ForeignWritePolicy,
    Limits,
    Mapping,
    Reference,
    StoreKind,
)
from coordinator.domain.journal_form import restore, restore_all, to_bytes
from coordinator.domain.operation import OperationKind


def mapping_as_json(mapping: Mapping) -> bytes:
    """Write a mapping for the journal: the same bytes for the same mapping, fingerprint left out.

    Entities are sorted by name; fields keep their declared order, which is that of the images.
    """
    entities = [_entity_form(mapping.entities[name]) for name in sorted(mapping.entities)]
    return to_bytes({"entities": entities, "stores": list(mapping.stores)})


def mapping_from_json(raw: bytes | str) -> Mapping:
    """Read back what `mapping_as_json` wrote; the fingerprint is that of ``raw``."""
    form = orjson.loads(raw)
    entities = {each["name"]: _entity(each) for each in form["entities"]}
    return Mapping(
        entities=entities,
        fingerprint=fingerprint(raw.encode() if isinstance(raw, str) else raw),
        stores=tuple(form["stores"]),
        referenced_by=referenced_by(entities.values()),
    )


def fingerprint(raw: bytes) -> str:
    """Give the hex SHA-256 of a mapping's journal form."""
    return sha256(raw).hexdigest()


def make_mapping(entities: Iterable[Entity]) -> Mapping:
    """Make the mapping of these entities, with its fingerprint and all that follows from them."""
    by_name = {entity.name: entity for entity in entities}
    stores = tuple(sorted({entity.store for entity in by_name.values()}))
    unnamed = Mapping(by_name, "", stores, referenced_by(by_name.values()))
    return Mapping(by_name, fingerprint(mapping_as_json(unnamed)), stores, unnamed.referenced_by)


def referenced_by(entities: Iterable[Entity]) -> dict[str, tuple[Reference, ...]]:
    """Give for each entity that is referred to the references that point at it, by referrer."""
    referrers: dict[str, tuple[Reference, ...]] = {}
    for entity in sorted(entities, key=lambda each: each.name):
        for reference in entity.references:
            pointing = Reference(reference.field, entity.name)
            referrers[reference.entity] = (*referrers.get(reference.entity, ()), pointing)
    return referrers


def _entity_form(entity: Entity) -> dict[str, Any]:
    return {
        "name": entity.name,
        "store": entity.store,
        "kind": entity.kind,
        "schema": entity.schema,
        "table": entity.table,
        "key": entity.key,
        "fields": [asdict(field) for field in entity.fields.values()],
        "key_default": entity.key_default,
        "version": entity.version,
        "operations": sorted(entity.operations),
        "on_foreign_write": entity.on_foreign_write,
        "references": [asdict(reference) for reference in entity.references],
        "columns": [asdict(column) for column in entity.columns],
    }


def _entity(form: dict[str, Any]) -> Entity:
    fields = [_field(each) for each in form["fields"]]
    return Entity(
        **{
            **form,
            "kind": StoreKind(form["kind"]),
            "fields": {field.name: field for field in fields},
            "operations": frozenset(map(OperationKind, form["operations"])),
            "on_foreign_write": ForeignWritePolicy(form["on_foreign_write"]),
            "references": tuple(Reference(**each) for each in form["references"]),
            "columns": tuple(Column(**each) for each in form["columns"]),
        }
    )


def _field(form: dict[str, Any]) -> Field:
    field_type = FieldType(form["type"])
    enum = form["enum"]
    return Field(
        **{
            **form,
            "type": field_type,
            "min": restore(field_type, form["min"]),
            "max": restore(field_type, form["max"]),
            "default": restore(field_type, form["default"]),
            "enum": None if enum is None else restore_all(field_type, enum),
            "limits": Limits(**form["limits"]),
        }
    )
