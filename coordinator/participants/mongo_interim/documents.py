"""Documents of one entity: images of them, and the writes that a decision asks for."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pymongo import DeleteOne, InsertOne, UpdateOne

from coordinator.domain.decide import Effect, Image, Write
from coordinator.domain.entity import Entity, FieldType
from coordinator.participants.mongo_interim.bson_values import from_bson, to_bson

Document = dict[str, Any]


class Documents:
    """How one entity's documents are read and written; made once per entity."""

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        self.types: dict[str, FieldType] = {
            name: field.type for name, field in entity.fields.items()
        }
        if entity.version is not None:
            self.types.setdefault(entity.version, FieldType.INTEGER)
        self._key_type = entity.key_field.type

    def key(self, key: Any) -> Any:
        """The ``_id`` of a domain key."""
        return to_bson(self._key_type, key)

    def image(self, document: Document | None) -> Image | None:
        """The declared fields and the version, as domain values."""
        if document is None:
            return None
        get = document.get
        return {name: from_bson(of, get(name)) for name, of in self.types.items()}

    def assigned(self, write: Write) -> Document:
        """The fields that a write sets, as BSON; a creation's without ``_id``."""
        types = self.types
        return {name: to_bson(types[name], value) for name, value in write.assigned.items()}

    def operation(self, write: Write, assigned: Document) -> Any:
        """The driver's write of a decision."""
        key = self.key(write.operation.key)
        if write.effect is Effect.CREATED:
            return InsertOne({"_id": key, **assigned})
        if write.effect is Effect.DELETED:
            return DeleteOne({"_id": key})
        update: dict[str, Any] = {}
        if assigned:
            update["$set"] = assigned
        if write.unset:
            update["$unset"] = dict.fromkeys(write.unset, "")
        return UpdateOne({"_id": key}, update)


def written(
    document: Document | None, write: Write, key: Any, assigned: Document
) -> Document | None:
    """The document as a write leaves it."""
    if write.effect is Effect.NOTHING:
        return document
    if write.effect is Effect.DELETED:
        return None
    if document is None or write.effect is Effect.CREATED:
        return {"_id": key, **assigned}
    after = {**document, **assigned}
    for name in write.unset:
        after.pop(name, None)
    return after


@lru_cache(maxsize=1024)
def _cached(_identity: int, _fingerprint: str, _name: str) -> list[Documents]:
    return []


def documents_of(mapping: Any, name: str) -> Documents:
    """Give the `Documents` of an entity of a mapping; remembered per mapping."""
    held = _cached(id(mapping), mapping.fingerprint, name)
    if not held:
        held.append(Documents(mapping.entities[name]))
    return held[0]
