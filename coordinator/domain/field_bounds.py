"""The bounds that a mapping puts on a field: min, max, max_length, pattern, enum.

Owns what the operator asks of values beyond what the store can hold. They are judged on fields
that an operation writes (F23), never on operands of ``expect`` (F22).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from coordinator.domain.entity import Field, FieldType
from coordinator.domain.json_value import same_json
from coordinator.domain.storable import Misfit

_MATCHED_LENGTH_MAX: Final = 10_000
"""A pattern is the operator's, but the text is a stranger's, and matching may be slow (I12)."""


def bounds_check(field: Field) -> Callable[[Any], None] | None:
    """Make the check of min, max, max_length, pattern and enum; ``None`` if there is none."""
    checks: list[Callable[[Any], None]] = []
    if field.min is not None or field.max is not None:
        checks.append(_range_check(field.min, field.max))
    if field.max_length is not None:
        checks.append(_length_check(field.max_length))
    if field.pattern is not None:
        checks.append(_pattern_check(field.pattern))
    if field.enum is not None:
        checks.append(_enum_check(field.enum, field.type))
    if len(checks) <= 1:
        return checks[0] if checks else None

    def check_all(value: Any) -> None:
        for check in checks:
            check(value)

    return check_all


def _range_check(least: Any, most: Any) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if least is not None and value < least:
            raise Misfit("is below the field's min")
        if most is not None and value > most:
            raise Misfit("is above the field's max")

    return check


def _length_check(max_length: int) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if len(value) > max_length:
            raise Misfit(f"is longer than the field's max_length of {max_length}")

    return check


def _pattern_check(pattern: str) -> Callable[[Any], None]:
    compiled = re.compile(pattern)

    def check(value: Any) -> None:
        if len(value) > _MATCHED_LENGTH_MAX:
            raise Misfit(f"is too long to be matched, over {_MATCHED_LENGTH_MAX} characters")
        if compiled.fullmatch(value) is None:
            raise Misfit("does not match the field's pattern")

    return check


def _enum_check(choices: tuple[Any, ...], field_type: FieldType) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if value in choices:
            return
        if field_type is FieldType.JSON and any(same_json(value, choice) for choice in choices):
            return
        raise Misfit("is none of the values that the field's enum allows")

    return check
