"""What reading needs to know of an entity, worked out once per mapping.

Owns the compiled form of a mapping: one reader per field and purpose, and which fields a client
may write (F20). Refuses nothing itself; `coordinator.domain.operation_reading` words the refusals.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import Final, NamedTuple

from coordinator.domain.entity import (
    NUMERIC_TYPES,
    ORDERED_TYPES,
    Entity,
    Field,
    FieldType,
    Mapping,
)
from coordinator.domain.operation import OperationKind
from coordinator.domain.value_reading import Reader, delta_reader, operand_reader, value_reader


class Operands(NamedTuple):
    """How operands of one field are read: its reader, and which operators it knows (F22)."""

    read: Reader
    is_ordered: bool
    is_json: bool


@dataclass(frozen=True, slots=True)
class EntityReader:
    """One entity, ready to read operations on it.

    ``key`` judges a key that is written, ``found_key`` one that is only looked up. ``writable``
    and ``deltas`` hold what a client may set and increment; ``protected`` says of every other
    declared field why not. ``required`` names what an insert must give (F16), ``defaults`` the
    fields that are filled in where it does not.

    ``granted`` holds a reader per operation where a sender may not do everything (see
    `coordinator.domain.authority`), ``fields`` what may be named where not every field may.
    """

    entity: Entity
    key: Reader
    found_key: Reader
    writable: dict[str, Reader]
    deltas: dict[str, Reader]
    operands: dict[str, Operands]
    protected: dict[str, str]
    required: tuple[str, ...]
    defaults: tuple[Field, ...]
    granted: MappingOf[OperationKind, EntityReader] | None = dataclass_field(
        default=None, repr=False, compare=False
    )
    fields: frozenset[str] | None = None

    def acting(self, kind: OperationKind) -> EntityReader | None:
        """Give the reader for one kind of operation; None where it is not granted."""
        return self if self.granted is None else self.granted.get(kind)

    def withholds(self, name: str) -> bool:
        """Whether there is no grant for a field, be it declared or not."""
        return self.fields is not None and name not in self.fields


def readers_of(mapping: Mapping) -> dict[str, EntityReader]:
    """Give the readers of all entities, by name; made at the first call for a mapping."""
    kept = _KEPT.get(id(mapping))
    if kept is not None and kept[0] is mapping:
        return kept[1]
    readers = {name: _entity_reader(entity) for name, entity in mapping.entities.items()}
    while len(_KEPT) >= _KEPT_MAX:
        del _KEPT[next(iter(_KEPT))]
    _KEPT[id(mapping)] = (mapping, readers)
    return readers


_KEPT: Final[dict[int, tuple[Mapping, dict[str, EntityReader]]]] = {}
"""By identity: a mapping cannot be hashed, and a daemon has one that lives as long as it does."""
_KEPT_MAX: Final = 8


def _entity_reader(entity: Entity) -> EntityReader:
    fields = entity.fields
    protected = {name: why for name, field in fields.items() if (why := _protection(entity, field))}
    if entity.version is not None:
        protected[entity.version] = _VERSION
    key_field = replace(entity.key_field, nullable=False)
    made_by_store = {each.name for each in entity.columns if each.generated or each.identity}
    plain = [field for name, field in fields.items() if name not in (entity.key, entity.version)]
    defaults = tuple(each for each in plain if _has_default(each))
    return EntityReader(
        entity=entity,
        key=value_reader(key_field, entity.kind),
        found_key=delta_reader(key_field, entity.kind),
        writable={
            name: value_reader(field, entity.kind)
            for name, field in fields.items()
            if name not in protected
        },
        deltas={
            name: delta_reader(field, entity.kind)
            for name, field in fields.items()
            if name not in protected and field.type in NUMERIC_TYPES
        },
        operands=_operands(entity),
        protected=protected,
        required=tuple(
            each.name
            for each in plain
            if not (each.nullable or _has_default(each) or each.name in made_by_store)
        ),
        defaults=defaults,
    )


_VERSION: Final = "is the version, which only the coordinator writes"


def _protection(entity: Entity, field: Field) -> str | None:
    if field.name == entity.key:
        return "is the key, which an operation cannot change"
    if field.read_only:
        return "is read_only"
    return None


def _has_default(field: Field) -> bool:
    return field.has_default or field.default_generator is not None


def _operands(entity: Entity) -> dict[str, Operands]:
    types = {name: field.type for name, field in entity.fields.items()}
    if entity.version is not None:
        types.setdefault(entity.version, FieldType.INTEGER)
    return {
        name: Operands(
            operand_reader(field_type), field_type in ORDERED_TYPES, field_type is FieldType.JSON
        )
        for name, field_type in types.items()
    }
