"""One declared field: its bounds, pattern, enum and default, judged as values of its type.

Owns turning a `FieldTable` into the domain's `Field`. Values of TOML become what a client would
have sent, and are read by the same readers (F32), so that a default is as strict as a submission.
Limits of columns are not known here; `resolve` reads defaults again with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final

from coordinator.domain.entity import ORDERED_TYPES, Field, FieldType, StoreKind
from coordinator.domain.json_text import JsonNumber
from coordinator.domain.values import Misfit, read_value
from coordinator.mapping.declaration import FieldTable
from coordinator.mapping.patterns import pattern_fault

Complain = Callable[[str, str], None]
"""Takes a member of the field's table (``min``) and a sentence."""

GENERATORS: Final[dict[FieldType, str]] = {
    FieldType.UUID: "uuid7",
    FieldType.TIMESTAMP: "now",
    FieldType.DATE: "now",
}
_LENGTHY: Final = frozenset({FieldType.STRING, FieldType.BINARY})


def read_field(
    name: str, field_type: FieldType, table: FieldTable, kind: StoreKind, complain: Complain
) -> Field:
    """Make the field; what is wrong is complained about and left out of it."""
    if field_type is FieldType.OBJECTID and kind is StoreKind.POSTGRESQL:
        complain("type", "objectid is a type of MongoDB; a PostgreSQL table cannot hold it")
    field = Field(
        name,
        field_type,
        nullable=table.nullable,
        read_only=table.read_only,
        max_length=_max_length(field_type, table, complain),
        pattern=_pattern(field_type, table, complain),
    )
    field = _with_bounds(field, table, kind, complain)
    field = _with_enum(field, table, kind, complain)
    return _with_default(field, table, kind, complain)


def _max_length(field_type: FieldType, table: FieldTable, complain: Complain) -> int | None:
    if table.max_length is not None and field_type not in _LENGTHY:
        complain("max_length", f"is for strings and binaries, and this field is {field_type}")
        return None
    return table.max_length


def _pattern(field_type: FieldType, table: FieldTable, complain: Complain) -> str | None:
    if table.pattern is None:
        return None
    if field_type is not FieldType.STRING:
        complain("pattern", f"is for strings, and this field is {field_type}")
        return None
    fault = pattern_fault(table.pattern)
    if fault is not None:
        complain("pattern", fault)
        return None
    return table.pattern


def _with_bounds(field: Field, table: FieldTable, kind: StoreKind, complain: Complain) -> Field:
    plain = Field(field.name, field.type)
    bounds: dict[str, Any] = {}
    for member in ("min", "max"):
        if member not in table.model_fields_set:
            continue
        if field.type not in ORDERED_TYPES:
            complain(member, f"is for values with an order, and this field is {field.type}")
            continue
        try:
            bounds[member] = read_value(plain, kind, as_sent(getattr(table, member), field.type))
        except Misfit as misfit:
            complain(member, f"the value {misfit.sentence}")
    if len(bounds) == 2 and bounds["min"] > bounds["max"]:
        complain("min", "is more than max")
    return replace(field, min=bounds.get("min"), max=bounds.get("max"))


def _with_enum(field: Field, table: FieldTable, kind: StoreKind, complain: Complain) -> Field:
    if table.enum is None:
        return field
    if not table.enum:
        complain("enum", "must not be empty")
        return field
    choices: list[Any] = []
    judge = replace(field, nullable=False)
    for at, given in enumerate(table.enum):
        try:
            choice = read_value(judge, kind, as_sent(given, field.type))
        except Misfit as misfit:
            complain(f"enum.{at}", f"the value {misfit.sentence}")
            continue
        if choice in choices:
            complain(f"enum.{at}", "is there already")
        choices.append(choice)
    return replace(field, enum=tuple(choices)) if choices else field


def _with_default(field: Field, table: FieldTable, kind: StoreKind, complain: Complain) -> Field:
    if "default" not in table.model_fields_set:
        return field
    generator = GENERATORS.get(field.type)
    if generator is not None and table.default == generator:
        return replace(field, default_generator=generator)
    try:
        value = read_value(field, kind, as_sent(table.default, field.type))
    except Misfit as misfit:
        also = f', or be "{generator}"' if generator else ""
        complain("default", f"the value {misfit.sentence}{also}")
        return field
    return replace(field, default=value, has_default=True)


def as_sent(given: Any, field_type: FieldType) -> Any:
    """Turn a value of TOML into what a client would send for the field: numbers, texts, JSON."""
    if isinstance(given, Decimal):
        return _fraction(given, field_type)
    if isinstance(given, datetime | date | time):
        return given.isoformat()
    if isinstance(given, list):
        return [as_sent(each, field_type) for each in given]
    if isinstance(given, dict):
        return {name: as_sent(each, field_type) for name, each in given.items()}
    return given


def _fraction(given: Decimal, field_type: FieldType) -> Any:
    if field_type is FieldType.DECIMAL:
        return str(given)
    if field_type is FieldType.FLOAT:
        return float(given) if not given.is_finite() else _number(given)
    return _number(given) if given.is_finite() else str(given)


def _number(given: Decimal) -> JsonNumber | float:
    held = float(given)
    return held if Decimal(repr(held)) == given else JsonNumber(str(given))
