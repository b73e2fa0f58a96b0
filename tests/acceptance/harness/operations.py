"""Operations as JSON, written shortly."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def insert(entity: str, key: Any = ..., /, **values: Any) -> Json:
    """Make an insert; without a key it is left out."""
    return _operation("insert", entity, key, values=values)


def update(entity: str, key: Any, /, expect: Any = ..., **parts: Any) -> Json:
    """Make an update; parts are `set`, `unset`, `increment`, `if_missing`, `compensate`."""
    return _operation("update", entity, key, expect=expect, **parts)


def setting(entity: str, key: Any, /, **values: Any) -> Json:
    """Make an update that sets values."""
    return _operation("update", entity, key, set=values)


def adding(entity: str, key: Any, /, **deltas: Any) -> Json:
    """Make an update that increments."""
    return _operation("update", entity, key, increment=deltas)


def upsert(entity: str, key: Any, /, **values: Any) -> Json:
    """Make an upsert."""
    return _operation("upsert", entity, key, values=values)


def delete(entity: str, key: Any, /, **parts: Any) -> Json:
    """Make a delete; parts are `expect`, `if_missing`, `compensate`."""
    return _operation("delete", entity, key, **parts)


def check(entity: str, key: Any, /, **parts: Any) -> Json:
    """Make a check; parts are `expect` and `absent`."""
    return _operation("check", entity, key, **parts)


def _operation(op: str, entity: str, key: Any, **parts: Any) -> Json:
    given = {"key": key, **parts}
    return {"op": op, "entity": entity, **{k: v for k, v in given.items() if v is not ...}}
