"""A mapped table ready for use: its statements, and how its rows become images and JSON.

Made once per mapping and entity, so that a unit costs no look-ups by type. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from coordinator.domain.decide import Image
from coordinator.domain.entity import Entity
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.values import SHOWN_AS_IT_IS, Alien, wire_of
from coordinator.participants.postgresql.canonical import canonical_of
from coordinator.participants.postgresql.statements import Statements, Table, statements_of
from coordinator.participants.postgresql.text_values import Read, field_types, reader, writers_of

Texts = Sequence[str | None]
"""A row as statements return it: a number, then one text or null per column."""

_REMEMBERED_MAX = 512


class SeenRow(NamedTuple):
    """A row as an unlocked read showed it: its texts, and which version of the row it was."""

    texts: tuple[str | None, ...]
    version: str


class MappedTable:
    """One entity of PostgreSQL.

    ``write`` maps a field to the writer of its values, ``canonical`` to what its column will show
    for one, where that is known.
    """

    __slots__ = (
        "_readers",
        "_wires",
        "canonical",
        "entity",
        "key_index",
        "read_key",
        "statements",
        "write",
        "write_key",
    )

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        self.statements: Statements = statements_of(Table.of(entity))
        index = self.statements.index
        self._wires = tuple((name, wire_of(of)) for name, of in field_types(entity).items())
        self._readers: list[tuple[str, int, Read]] = [
            (name, index[name] + 1, reader(of_type))
            for name, of_type in field_types(entity).items()
        ]
        self.write = writers_of(entity)
        self.canonical = canonical_of(entity)
        self.write_key = self.write[entity.key]
        self.read_key = reader(entity.key_field.type)
        self.key_index = index[entity.key] + 1

    def image(self, texts: Texts) -> Image:
        """Give the declared fields and the version of a row as domain values."""
        return {
            name: None if (text := texts[at]) is None else read(text)
            for name, at, read in self._readers
        }

    def show(self, image: Image | None) -> bytes | None:
        """Give an image as change events show it, JSON in UTF-8 (F34)."""
        if image is None:
            return None
        shown = {}
        for name, wire in self._wires:
            value = image[name]
            if type(value) in SHOWN_AS_IT_IS:
                shown[name] = value
            else:
                shown[name] = value.shown if isinstance(value, Alien) else wire(value)
        return orjson.dumps(shown)

    def version(self, image: Image | None) -> int | None:
        """Give the row's version, where the entity has one and the row holds a number."""
        if image is None or self.entity.version is None:
            return None
        version: Any = image[self.entity.version]
        return version if isinstance(version, int) else None

    def is_key(self, text: str | None, written: str) -> bool:
        """Whether the key that came back is the one that was written, in any spelling."""
        if text == written:
            return True
        if text is None:
            return False
        return bool(self.read_key(text.rstrip(" ")) == self.read_key(written.rstrip(" ")))


_remembered: dict[tuple[str, str], MappedTable] = {}


def mapped_table(mapping: EntityMapping, entity: str) -> MappedTable:
    """Give the table of an entity; the same object for the same mapping."""
    at = (mapping.fingerprint, entity)
    table = _remembered.get(at)
    if table is None:
        if len(_remembered) >= _REMEMBERED_MAX:
            _remembered.clear()
        table = _remembered[at] = MappedTable(mapping.entities[entity])
    return table
