"""Going back over one document: what undo, of a key alone or of a shared one, is made of.

Pure, over elements (see `elements`). Refuses to know of policies and strangers: see `undo`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeAlias

from bson.int64 import Int64

from coordinator.domain.decide import exact_sum
from coordinator.domain.entity import FieldType
from coordinator.domain.operation import Unit
from coordinator.domain.storable import INT64_MAX, INT64_MIN, Misfit, fit_decimal128
from coordinator.domain.values import Alien
from coordinator.participants.mongodb.bson_values import READERS, WRITERS, match_key
from coordinator.participants.mongodb.elements import (
    Elements,
    document_of,
    elements_from,
    values_of,
)
from coordinator.participants.mongodb.images import KEY_FIELD
from coordinator.participants.mongodb.undo_record import KeyUndo
from coordinator.participants.mongodb.writes import (
    DocumentWrite,
    WriteKind,
    deletion_body,
    document_body,
    replacement_body,
)

DocumentKey: TypeAlias = tuple[str, Any]
"""Whose document: the collection, and `match_key` of its ``_id``."""

_INT32_MIN: Final = -(2**31)
_INT32_MAX: Final = 2**31 - 1
_SAFE_DOUBLE_MAX: Final = 2**53


@dataclass(frozen=True, slots=True)
class Standing:
    """One key's undo record beside its document as it is."""

    unit: Unit
    key: KeyUndo
    raw: bytes | None
    elements: Elements | None


class CannotTakeBack(Exception):
    """An increment cannot be undone by its inverse."""


def document_key(key: KeyUndo) -> DocumentKey:
    """Give where a key's document is found."""
    return key.collection, match_key(key.key)


def can_take_back(of_type: FieldType, element: bytes | None) -> bool:
    """Whether a field holds a number that an increment can be taken out of."""
    return element is not None and not isinstance(read_element(of_type, element), Alien | None)


def read_element(of_type: FieldType, element: bytes) -> Any:
    """Give the domain value of an element."""
    stored = values_of({"v": element})["v"]
    return None if stored is None else READERS[of_type](stored)


def without(of_type: FieldType, amount: str, element: bytes | None, before: bytes) -> bytes:
    """Take an increment out of a field; raise `CannotTakeBack` or `Misfit`."""
    if element is None or not can_take_back(of_type, element):
        raise CannotTakeBack
    value = read_element(of_type, element)
    if of_type is FieldType.DECIMAL:
        result = fit_decimal128(exact_sum(value, -Decimal(amount)))
        return _element(WRITERS[of_type](result))
    if of_type is FieldType.FLOAT:
        return _element(value - float(amount))
    return _integer_element(value - int(amount), values_of({"v": before})["v"])


def _integer_element(value: int, like: Any) -> bytes:
    """Store an integer in the type that it had before, where it fits (F27)."""
    if not INT64_MIN <= value <= INT64_MAX:
        raise Misfit("is no int64")
    if isinstance(like, float) and abs(value) <= _SAFE_DOUBLE_MAX:
        return _element(float(value))
    if type(like) is int and _INT32_MIN <= value <= _INT32_MAX:
        return _element(value)
    return _element(Int64(value))


def _element(stored: Any) -> bytes:
    return elements_from({"v": stored})["v"]


def bump(standing: Standing, target: Elements, count: int) -> None:
    """Count the version on: from the document that is there, else from the one that we left."""
    version = standing.key.version
    base = standing.elements or standing.key.steps[-1].after or standing.key.steps[0].before
    if version is None or base is None or version not in base:
        return
    value = read_element(FieldType.INTEGER, base[version])
    if isinstance(value, int):
        target[version] = _integer_element(value + count, values_of({"v": base[version]})["v"])


# --- writes -------------------------------------------------------------------------------------


def writes_back(standing: Standing, target: Elements | None) -> list[DocumentWrite]:
    """Give the writes that make a document what it shall be."""
    unit, key, raw, current = standing.unit, standing.key, standing.raw, standing.elements
    position = key.steps[-1].position

    def write(kind: WriteKind, body: Mapping[str, Any], size_bytes: int) -> DocumentWrite:
        return DocumentWrite(unit.seq, position, key.collection, kind, body, size_bytes)

    deletion = write(WriteKind.DELETE, deletion_body(key.key), 1024)
    if target is None:
        return [] if raw is None else [deletion]
    document = _document(key, target)
    if raw == document:
        return []
    insertion = write(WriteKind.INSERT, document_body(document), len(document))
    if current is None:
        return [insertion]
    if target.get(KEY_FIELD) != current[KEY_FIELD] or any(name[:1] == "$" for name in target):
        # A replacement may neither change the type of _id nor hold such a name.
        return [deletion, insertion]
    return [write(WriteKind.UPDATE, replacement_body(key.key, document), len(document))]


def _document(key: KeyUndo, target: Elements) -> bytes:
    before = key.steps[0]
    if target is before.before and before.before_raw is not None:
        return before.before_raw
    return document_of(target)
