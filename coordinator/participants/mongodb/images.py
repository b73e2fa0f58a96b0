"""What an entity's documents look like: from document to image, and from decided values to BSON.

Pure, and compiled once per entity, because it runs for each document of each batch. Refuses
field names that MongoDB would take for a path or an operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from coordinator.domain.decide import Image
from coordinator.domain.entity import Entity, FieldType
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.domain.values import SHOWN_AS_IT_IS, Alien, wire_of
from coordinator.participants.mongodb.bson_values import READERS, WRITERS, Read, Write

KEY_FIELD: Final = "_id"

_SHAPES_MAX: Final = 512
_shapes: dict[int, tuple[Entity, Shape]] = {}


class Shape:
    """One entity's documents. ``read`` and ``write`` are per field, the version included."""

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        self.collection = entity.table
        self.version = entity.version
        types = {name: field.type for name, field in entity.fields.items()}
        if entity.version is not None:
            types.setdefault(entity.version, FieldType.INTEGER)
        _check_names(entity, types)
        self.type_names: Mapping[str, str] = {name: of.value for name, of in types.items()}
        self.read: Mapping[str, Read] = {name: READERS[of] for name, of in types.items()}
        self.write: Mapping[str, Write] = {name: WRITERS[of] for name, of in types.items()}
        self.names: Mapping[str, Any] = {
            "entity": entity.name,
            "collection": entity.table,
            "key_field": entity.key,
            "version_field": entity.version,
            "on_foreign_write": entity.on_foreign_write.value,
        }
        """What undo records say of the entity, because undo asks no live mapping (rule 8)."""
        self._wires = tuple((name, wire_of(of)) for name, of in types.items())
        self._readers = tuple(self.read.items())
        self.write_key = self.write[KEY_FIELD]

    def image(self, document: Mapping[str, Any]) -> Image:
        """Give the image of a document that `elements.EXACT` has decoded."""
        get = document.get
        return {
            name: None if (stored := get(name)) is None else read(stored)
            for name, read in self._readers
        }

    def show(self, image: Image | None) -> bytes | None:
        """Give an image as change events show it: JSON in UTF-8 (F34)."""
        if image is None:
            return None
        shown = {}
        for name, wire in self._wires:
            value = image.get(name)
            if type(value) in SHOWN_AS_IT_IS:
                shown[name] = value
            else:
                shown[name] = value.shown if isinstance(value, Alien) else wire(value)
        return orjson.dumps(shown)

    def assigned(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Give decided values as they are stored; null stays null."""
        write = self.write
        return {
            name: None if value is None else write[name](value) for name, value in values.items()
        }

    def document(self, key: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        """Give a new document: the key, then what is given in the order of declaration (F16)."""
        document = {KEY_FIELD: self.write_key(key)}
        for name, write in self.write.items():
            if name in values and name != KEY_FIELD:
                value = values[name]
                document[name] = None if value is None else write(value)
        return document


def shape_of(entity: Entity) -> Shape:
    """Give the entity's shape, compiled at its first use. Raises `ConfigurationInvalid`."""
    known = _shapes.get(id(entity))
    if known is None:
        if len(_shapes) >= _SHAPES_MAX:
            _shapes.clear()
        # The entity is kept with it, or its id might come again for another.
        known = _shapes[id(entity)] = (entity, Shape(entity))
    return known[1]


def _check_names(entity: Entity, names: Mapping[str, FieldType]) -> None:
    mistakes = [
        f"{entity.name}.fields.{name}: MongoDB gives a meaning to names that are empty, start with "
        "$, or hold a point or a NUL"
        for name in names
        if not name or name.startswith("$") or "." in name or "\0" in name
    ]
    if entity.key != KEY_FIELD:
        mistakes.append(f"{entity.name}.key: the key of a collection is {KEY_FIELD}")
    if mistakes:
        raise ConfigurationInvalid(mistakes)


def version_of(image: Image | None, version: str | None) -> int | None:
    """Give the version in an image, where there is one."""
    if image is None or version is None:
        return None
    value = image.get(version)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
