"""Small builders of operations and units: they write the contract's JSON and judge nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

Json = dict[str, Any]


def unit(
    *operations: Mapping[str, Any],
    id: str | None = None,
    timeout_ms: int | None = None,
    metadata: Any = None,
) -> Json:
    """Make a unit of 1 to 100 operations; without an ``id`` it gets a time-ordered uuid.

    Keep the unit for a retry: the same id and content again happens once.
    """
    made: Json = {"id": id if id is not None else new_unit_id(), "operations": list(operations)}
    if timeout_ms is not None:
        made["timeout_ms"] = timeout_ms
    if metadata is not None:
        made["metadata"] = metadata
    return made


def new_unit_id() -> str:
    """Make a uuid of version 7 (RFC 9562): ids that were made later sort later."""
    milliseconds = time.time_ns() // 1_000_000
    bits = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    bits = bits & ~(0xF << 76) | (7 << 76)
    return str(UUID(int=bits & ~(0x3 << 62) | (2 << 62)))


def insert(entity: str, key: Any = None, values: Mapping[str, Any] | None = None) -> Json:
    """Insert a row or document; without ``key`` the entity's ``key_default`` draws one."""
    return _operation("insert", entity, key, values=dict(values or {}))


def update(
    entity: str,
    key: Any,
    *,
    set: Mapping[str, Any] | None = None,
    unset: Sequence[str] | None = None,
    increment: Mapping[str, Any] | None = None,
    expect: Mapping[str, Any] | None = None,
    if_missing: str | None = None,
    compensate: Mapping[str, Any] | None = None,
) -> Json:
    """Change fields of one row or document, if it is as ``expect`` says."""
    return _operation(
        "update",
        entity,
        key,
        set=set,
        unset=unset,
        increment=increment,
        expect=expect,
        if_missing=if_missing,
        compensate=compensate,
    )


def upsert(entity: str, key: Any, values: Mapping[str, Any]) -> Json:
    """Create the row or document, or set these fields of it."""
    return _operation("upsert", entity, key, values=dict(values))


def delete(
    entity: str,
    key: Any,
    *,
    expect: Mapping[str, Any] | None = None,
    if_missing: str | None = None,
) -> Json:
    """Delete one row or document, if it is as ``expect`` says."""
    return _operation("delete", entity, key, expect=expect, if_missing=if_missing)


def check(
    entity: str, key: Any, *, expect: Mapping[str, Any] | None = None, absent: bool | None = None
) -> Json:
    """Let the unit commit only if this row or document is as said; change nothing."""
    return _operation("check", entity, key, expect=expect, absent=absent)


def _operation(op: str, entity: str, key: Any, **members: Any) -> Json:
    made: Json = {"op": op, "entity": entity}
    if key is not None:
        made["key"] = key
    made.update((name, member) for name, member in members.items() if member is not None)
    return made
