"""Domain values from the texts of PostgreSQL columns, and back.

Pure. A session of ours always writes UTC, ISO dates, hex and shortest floats (see
`coordinator.postgres_pool`), so one text means one value. What is stored but has no domain value
(an infinite timestamp, NaN in a decimal, a year of six digits) becomes an `Alien`: shown in
images, never compared (F33). Refuses to judge whether a value may be written: that was done
before the intent was journaled (F32).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from coordinator.domain.entity import Entity, FieldType
from coordinator.domain.values import Alien, JsonText

Read = Callable[[str], Any]
Write = Callable[[Any], str]


def reader(field_type: FieldType) -> Read:
    """Give the function that reads a column's text as a domain value, or as an `Alien`."""
    return _READERS[field_type]


def writer(field_type: FieldType) -> Write:
    """Give the function that writes a domain value as text for a cast to the column's type."""
    return _WRITERS[field_type]


def field_types(entity: Entity) -> dict[str, FieldType]:
    """Give the fields of an image with their types: all declared ones and the version."""
    types = {field.name: field.type for field in entity.fields.values()}
    if entity.version is not None:
        types.setdefault(entity.version, FieldType.INTEGER)
    return types


def writers_of(entity: Entity) -> Mapping[str, Write]:
    """Give the writer of every field that an operation may assign."""
    return {name: writer(of_type) for name, of_type in field_types(entity).items()}


def _integer(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return Alien(text)


def _decimal(text: str) -> Any:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return Alien(text)
    return value if value.is_finite() else Alien(text)


def _float(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return Alien(text)


def _boolean(text: str) -> Any:
    if text == "true":
        return True
    return False if text == "false" else Alien(text)


def _timestamp(text: str) -> Any:
    if not text.endswith("+00"):  # infinity, -infinity, BC; or a column without a time zone
        return Alien(text)
    try:
        return datetime.fromisoformat(text[:-3]).replace(tzinfo=UTC)
    except ValueError:
        return Alien(text)


def _date(text: str) -> Any:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return Alien(text)


def _uuid(text: str) -> Any:
    try:
        return UUID(text)
    except ValueError:
        return Alien(text)


def _binary(text: str) -> Any:
    try:
        return bytes.fromhex(text[2:]) if text.startswith("\\x") else Alien(text)
    except ValueError:
        return Alien(text)


_READERS: dict[FieldType, Read] = {
    FieldType.STRING: str,
    FieldType.INTEGER: _integer,
    FieldType.DECIMAL: _decimal,
    FieldType.FLOAT: _float,
    FieldType.BOOLEAN: _boolean,
    FieldType.TIMESTAMP: _timestamp,
    FieldType.DATE: _date,
    FieldType.UUID: _uuid,
    FieldType.BINARY: _binary,
    FieldType.JSON: JsonText,
    FieldType.OBJECTID: Alien,  # a mapping error; never declared for PostgreSQL
}

_WRITERS: dict[FieldType, Write] = {
    FieldType.STRING: str,
    FieldType.INTEGER: str,
    FieldType.DECIMAL: str,
    FieldType.FLOAT: repr,
    FieldType.BOOLEAN: lambda value: "true" if value else "false",
    FieldType.TIMESTAMP: lambda value: f"{value.replace(tzinfo=None).isoformat(' ')}+00",
    FieldType.DATE: lambda value: value.isoformat(),
    FieldType.UUID: str,
    FieldType.BINARY: lambda value: "\\x" + value.hex(),
    FieldType.JSON: str,
    FieldType.OBJECTID: str,
}
