"""Entities: how a name in a submission maps to a table or a collection.

Owns the mapping as a frozen value, already resolved against the live catalog: what each column
can hold is part of it, so that a value is judged before the intent is journaled (F32). The
mapping's JSON form is journaled under its fingerprint, because a plan is finished or undone by
the mapping that it was made with (rule 8).
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from coordinator.domain.operation import OperationKind


class StoreKind(StrEnum):
    """What kind of database a store is."""

    __hash__ = str.__hash__  # Enum hashes in Python, and these are looked up for every value

    POSTGRESQL = "postgresql"
    MONGODB = "mongodb"


class FieldType(StrEnum):
    """How a field's values travel and are stored; the table "Values" of the fine print."""

    __hash__ = str.__hash__  # Enum hashes in Python, and these are looked up for every value

    STRING = "string"
    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT = "float"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    DATE = "date"
    UUID = "uuid"
    BINARY = "binary"
    JSON = "json"
    OBJECTID = "objectid"


NUMERIC_TYPES = frozenset({FieldType.INTEGER, FieldType.DECIMAL, FieldType.FLOAT})
ORDERED_TYPES = NUMERIC_TYPES | {FieldType.TIMESTAMP, FieldType.DATE, FieldType.STRING}


class ForeignWritePolicy(StrEnum):
    """What undo does when somebody else changed what we wrote (F29)."""

    PARK = "park"
    FORCE = "force"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the store can hold in this place; ``None`` means no limit of that sort.

    ``length`` is in code points, ``precision`` and ``scale`` in decimal digits,
    ``fraction_digits`` those of a second (PostgreSQL 6, MongoDB 3). ``padded``: blanks at the end
    are lost, because the column fills up with them (char).
    """

    integer_min: int | None = None
    integer_max: int | None = None
    precision: int | None = None
    scale: int | None = None
    length: int | None = None
    fraction_digits: int = 6
    single_float: bool = False
    padded: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """One declared field. ``default``, ``min``, ``max`` and ``enum`` are domain values.

    ``default_generator`` is ``"uuid7"`` or ``"now"`` when the default is drawn at admission.
    """

    name: str
    type: FieldType
    nullable: bool = False
    min: Any = None
    max: Any = None
    max_length: int | None = None
    pattern: str | None = None
    enum: tuple[Any, ...] | None = None
    read_only: bool = False
    default: Any = None
    has_default: bool = False
    default_generator: str | None = None
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Column:
    """One live column of a PostgreSQL table, mapped or not, as undo must know it.

    ``type`` is the SQL name for a cast, as ``format_type`` gives it (``numeric(12,2)``).
    """

    name: str
    type: str
    generated: bool = False
    identity: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """``field`` of this entity holds the key of ``entity``."""

    field: str
    entity: str


@dataclass(frozen=True, slots=True)
class Entity:
    """One mapped table or collection.

    For PostgreSQL ``schema`` and ``table`` name it and ``columns`` lists every live column; for
    MongoDB ``table`` is the collection and ``columns`` is empty.
    """

    name: str
    store: str
    kind: StoreKind
    schema: str | None
    table: str
    key: str
    fields: MappingOf[str, Field]
    key_default: str | None = None
    version: str | None = None
    operations: frozenset[OperationKind] = frozenset(OperationKind)
    on_foreign_write: ForeignWritePolicy = ForeignWritePolicy.PARK
    references: tuple[Reference, ...] = ()
    columns: tuple[Column, ...] = ()

    @property
    def key_field(self) -> Field:
        """The declared field that holds the key (F20)."""
        return self.fields[self.key]


@dataclass(frozen=True, slots=True)
class Mapping:
    """All entities, and a fingerprint of their canonical JSON (hex SHA-256)."""

    entities: MappingOf[str, Entity]
    fingerprint: str
    stores: tuple[str, ...] = ()
    referenced_by: MappingOf[str, tuple[Reference, ...]] = field(default_factory=dict)
    """Entity name → the references that point at it; ``Reference.entity`` is the referrer there."""
