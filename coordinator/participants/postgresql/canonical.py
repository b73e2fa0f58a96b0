"""The text that a column shows for a value that is written to it, where that can be known.

Pure. For most types a session of ours shows one text per value (see `coordinator.postgres_pool`),
so what a write will have left can be told before it is sent. Refuses types whose text depends on
more than the value: json, padded characters, floats of four bytes, and all that are not listed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Context, Decimal, Inexact
from functools import partial
from typing import Any, Final

from coordinator.domain.entity import Entity, FieldType
from coordinator.participants.postgresql.text_values import field_types, writer

Canonical = Callable[[Any], tuple[str, Any]]
"""Give the text that a column will show for a value, and the value that this text means."""

_SCALED: Final = re.compile(r"numeric\(\d+,(\d+)\)")
_EXACT: Final = Context(prec=2_000, Emin=-20_000, Emax=20_000, traps=[Inexact])
_PLAIN: Final = {
    FieldType.STRING: ("text", "character varying"),
    FieldType.INTEGER: ("smallint", "integer", "bigint"),
    FieldType.BOOLEAN: ("boolean",),
    FieldType.DATE: ("date",),
    FieldType.UUID: ("uuid",),
    FieldType.BINARY: ("bytea",),
}


def canonical_of(entity: Entity) -> Mapping[str, Canonical]:
    """Give, for the fields of a mapped table where it is known, how their columns show values.

    None is given when an image holds a generated column: any write may change that.
    """
    declared = field_types(entity)
    if any(column.generated and column.name in declared for column in entity.columns):
        return {}
    columns = {column.name: column.type for column in entity.columns}
    known: dict[str, Canonical] = {}
    for name, of_type in declared.items():
        form = _form(of_type, columns.get(name, ""))
        if form is not None:
            known[name] = form
    return known


def _form(of_type: FieldType, column: str) -> Canonical | None:
    if column.partition("(")[0] in _PLAIN.get(of_type, ()):
        return partial(_as_written, writer(of_type))
    if of_type is FieldType.DECIMAL:
        if column == "numeric":
            return _unscaled
        if scaled := _SCALED.fullmatch(column):
            return partial(_scaled, int(scaled[1]))
    if of_type is FieldType.FLOAT and column == "double precision":
        return _float
    if of_type is FieldType.TIMESTAMP and column == "timestamp with time zone":
        return _timestamp
    return None


def _as_written(write: Callable[[Any], str], value: Any) -> tuple[str, Any]:
    return write(value), value


def _unscaled(value: Decimal) -> tuple[str, Decimal]:
    text = str(value)
    if "E" in text:
        text = format(value, "f")
        value = Decimal(text)
    return text, value


def _scaled(digits: int, value: Decimal) -> tuple[str, Decimal]:
    text = str(value)
    point = text.find(".")
    if "E" in text or (0 if point < 0 else len(text) - point - 1) != digits:
        # That it fits was judged before (F32).
        value = value.quantize(Decimal(1).scaleb(-digits), context=_EXACT)
        text = format(value, "f")
    return text, value


def _float(value: float) -> tuple[str, float]:
    return repr(value).removesuffix(".0"), value


def _timestamp(value: Any) -> tuple[str, Any]:
    text = value.replace(tzinfo=None).isoformat(" ")
    return f"{text.rstrip('0') if '.' in text else text}+00", value
