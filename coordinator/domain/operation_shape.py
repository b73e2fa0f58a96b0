"""The shape of operations: which members each kind has, and what an operation is about (F16–F25).

Owns the member lists that every reader of operations shares. Refuses nothing itself.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from coordinator.domain.entity_reading import EntityReader
from coordinator.domain.operation import OperationKind

_HEAD_MEMBERS: Final = frozenset({"op", "entity", "key"})
MEMBERS: Final = {
    OperationKind.INSERT: _HEAD_MEMBERS | {"values", "compensate"},
    OperationKind.UPSERT: _HEAD_MEMBERS | {"values", "compensate"},
    OperationKind.UPDATE: _HEAD_MEMBERS
    | {"set", "unset", "increment", "expect", "if_missing", "compensate"},
    OperationKind.DELETE: _HEAD_MEMBERS | {"expect", "if_missing", "compensate"},
    OperationKind.CHECK: _HEAD_MEMBERS | {"expect", "absent"},
}
COMPENSATE_MEMBERS: Final = {
    kind: members - {"expect", "if_missing", "compensate"}
    for kind, members in MEMBERS.items()
    if kind is not OperationKind.CHECK
}
CREATING: Final = frozenset({OperationKind.INSERT, OperationKind.UPSERT})
KINDS: Final = {kind.value: kind for kind in OperationKind}
ABSENT: Final[Any] = object()
"""Stands where there is no value: a member that is left out, or was wrong and is reported."""


class Head(NamedTuple):
    """What an operation is about. ``key`` is `ABSENT` when it was wrong (and reported)."""

    kind: OperationKind
    reader: EntityReader
    key: Any
    key_text: str


def read_kind(given: Any) -> OperationKind | None:
    """Give the kind that ``op`` names."""
    return KINDS.get(given) if isinstance(given, str) else None
