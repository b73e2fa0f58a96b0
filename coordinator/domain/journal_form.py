"""The journal's form of domain values: plain JSON that gives the very values back.

Owns the losslessness of what a restart reads (rule 8): digits of decimals, their trailing zeros,
integers of any size, the written order of json. It is not the form of outcomes and events, which
is `coordinator.domain.values.wire`. Refuses to judge: what is read back was judged before.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import orjson

from coordinator.domain.entity import FieldType
from coordinator.domain.json_value import JsonText


def to_bytes(form: Any) -> bytes:
    """Write containers of domain values as JSON."""
    try:
        return orjson.dumps(form, default=_text)
    except orjson.JSONEncodeError:
        # An integer beyond 64 bit is an error of orjson's that its hook does not see.
        return orjson.dumps(_without_long_integers(form), default=_text)


def _text(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no form in the journal")


def _without_long_integers(form: Any) -> Any:
    if isinstance(form, dict):
        return {name: _without_long_integers(each) for name, each in form.items()}
    if isinstance(form, list | tuple):
        return [_without_long_integers(each) for each in form]
    return str(form) if type(form) is int and form.bit_length() > 63 else form


def restore(field_type: FieldType, form: Any) -> Any:
    """Give the domain value whose form was read; null is ``None``."""
    return None if form is None else _RESTORERS[field_type](form)


def restore_all(field_type: FieldType, forms: list[Any]) -> tuple[Any, ...]:
    """Give the domain values of a list of forms."""
    return tuple(restore(field_type, each) for each in forms)


def _same(form: Any) -> Any:
    return form


_RESTORERS: Final[dict[FieldType, Callable[[Any], Any]]] = {
    FieldType.STRING: _same,
    FieldType.INTEGER: int,
    FieldType.DECIMAL: Decimal,
    FieldType.FLOAT: float,
    FieldType.BOOLEAN: _same,
    FieldType.TIMESTAMP: datetime.fromisoformat,
    FieldType.DATE: date.fromisoformat,
    FieldType.UUID: UUID,
    FieldType.BINARY: b64decode,
    FieldType.JSON: JsonText,
    FieldType.OBJECTID: _same,
}
