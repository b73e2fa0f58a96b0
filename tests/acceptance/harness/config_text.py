"""The configuration as text, and changes to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def merge(into: Json, changes: Mapping[str, Any]) -> None:
    """Merge `changes` into a tree of dicts; None takes a member away."""
    for name, value in changes.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(into.get(name), dict):
            merge(into[name], value)
        else:
            into[name] = value


def config_text(tree: Mapping[str, Any]) -> str:
    """Give a tree as TOML, every section an inline table."""
    return "".join(f"{json.dumps(name)} = {_toml_value(value)}\n" for name, value in tree.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        members = (f"{json.dumps(k)} = {_toml_value(v)}" for k, v in value.items())
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return json.dumps(value)
