"""What must become of a record, judged a second time from the letter of the fine print.

Shares no code with the product: the parser is the standard library's, the rules are F1, F8, F10,
F12, F16–F25, F40 and F42 as they are written. It tells dead letters, early refusals with the codes
of all their mistakes, cancels, and units; what a unit comes to is the stores' to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from tests.acceptance.fuzz.fields import NUMERIC_TYPES, ORDERED, FieldOf, fits, of_type
from tests.acceptance.harness.canonical import NumberText

Header = tuple[str, bytes | None]
Mistakes = set[tuple[int | None, str]]
"""(operation or ``None``, code)."""


@dataclass(frozen=True)
class DeadLetter:
    """``answered``: the id that gets an outcome as well."""

    code: str
    answered: str | None = None


@dataclass(frozen=True)
class Refused:
    """``rejected`` early, with these mistakes and no others."""

    id: str
    mistakes: frozenset[tuple[int | None, str]]


@dataclass(frozen=True)
class Cancel:
    """Never answered by itself; a unit that is final may be told again."""

    id: str


@dataclass(frozen=True)
class Unit:
    """Goes to the stores."""

    id: str


Verdict = DeadLetter | Refused | Cancel | Unit


class Oracle:
    """Judges records by a mapping as it is declared (`tests.acceptance.harness.mapping`)."""

    def __init__(
        self, entities: dict[str, dict[str, Any]], *, max_bytes: int, reply_topics: Sequence[str]
    ) -> None:
        self._entities = entities
        self._max_bytes = max_bytes
        self._reply_topics = reply_topics

    def judge(self, value: bytes | None, headers: Sequence[Header]) -> Verdict:
        """Say what must become of one record."""
        if not value:
            return DeadLetter("malformed")
        if len(value) > self._max_bytes:
            return DeadLetter("too_large")
        last = dict(headers)
        content_type = (last.get("content-type") or b"").split(b";")[0].strip().lower()
        structured = content_type == b"application/cloudevents+json"
        parsed = _Parsed.of(value)
        if parsed is None or parsed.surrogate:
            return DeadLetter("malformed")
        if parsed.broken or parsed.depth > 64 + structured:
            found = _only(parsed.pairs, "data") if structured else parsed.pairs
            unit_id = _only(found, "id")
            return DeadLetter("malformed", unit_id if _is_id(unit_id) else None)
        body = _plain(parsed.pairs)
        if structured:
            version = body.get("specversion") if isinstance(body, dict) else None
            if not isinstance(version, str) or isinstance(version, NumberText):
                return DeadLetter("malformed")
            if not version.startswith("1.") or not isinstance(body.get("data"), dict):
                return DeadLetter("malformed")
            body = body["data"]
        return self._judge_body(body, last.get("reply-to"))

    def _judge_body(self, body: Any, reply_to: bytes | None) -> Verdict:
        if not isinstance(body, dict):
            return DeadLetter("malformed")
        mistakes: Mistakes = set()
        if reply_to and reply_to.decode(errors="replace") not in self._reply_topics:
            mistakes.add((None, "forbidden"))
        unit_id = body.get("id")
        if "cancel" in body and not set(body) - {"cancel", "reason"}:
            if not _is_id(body["cancel"]) or not _is_text(body.get("reason", "")):
                return DeadLetter("malformed")
            return Cancel(body["cancel"])
        if not _is_id(unit_id):
            return DeadLetter("malformed")
        if "cancel" in body:
            mistakes.add((None, "invalid"))
        else:
            mistakes |= self._unit_mistakes(body)
        return Refused(unit_id, frozenset(mistakes)) if mistakes else Unit(unit_id)

    def _unit_mistakes(self, body: dict[str, Any]) -> Mistakes:
        mistakes: Mistakes = set()
        if set(body) - {"id", "timeout_ms", "operations", "metadata"}:
            mistakes.add((None, "invalid"))
        timeout = body.get("timeout_ms", NumberText("1"))
        if not _is_whole(timeout) or not 1 <= int(timeout) <= 86_400_000:
            mistakes.add((None, "invalid"))
        if "metadata" in body and body["metadata"] is None:
            mistakes.add((None, "invalid"))
        operations = body.get("operations")
        if not isinstance(operations, list) or not 1 <= len(operations) <= 100:
            mistakes.add((None, "invalid"))
        else:
            unit = _UnitJudge(self._entities, operations)
            for index in range(len(operations)):
                mistakes |= {(index, code) for code in unit.judge(index)}
        return mistakes


# --- JSON -----------------------------------------------------------------------------------------


class _Pairs(list[tuple[str, Any]]):
    """An object's members as they are written, repeated ones too."""


@dataclass
class _Parsed:
    pairs: Any
    broken: bool
    surrogate: bool
    depth: int

    @classmethod
    def of(cls, raw: bytes) -> _Parsed | None:
        nans: list[str] = []
        try:
            pairs = json.loads(
                raw.decode("utf-8"),
                object_pairs_hook=_Pairs,
                parse_int=NumberText,
                parse_float=NumberText,
                parse_constant=nans.append,
            )
        except ValueError:  # UnicodeDecodeError and JSONDecodeError are
            return None
        seen = cls(pairs, bool(nans), False, 0)
        seen._look(pairs, 0)
        return seen

    def _look(self, value: Any, depth: int) -> None:
        if isinstance(value, str):
            self.surrogate |= any("\ud800" <= each <= "\udfff" for each in value)
        if not isinstance(value, list):
            return
        self.depth = max(self.depth, depth + 1)
        if isinstance(value, _Pairs):
            names = [name for name, _ in value]
            self.broken |= len(set(names)) < len(names)
            for name, each in value:
                self._look(name, depth)
                self._look(each, depth + 1)
        else:
            for each in value:
                self._look(each, depth + 1)


def _only(pairs: Any, name: str) -> Any:
    """Give the member of an object that has exactly one of that name."""
    found = [each for key, each in pairs if key == name] if isinstance(pairs, _Pairs) else []
    return found[0] if len(found) == 1 else None


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {name: _plain(each) for name, each in value}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, NumberText)


def _is_id(value: Any) -> TypeGuard[str]:
    return _is_text(value) and re.fullmatch("[!-~]{1,128}", value) is not None


def _is_whole(value: Any) -> bool:
    return isinstance(value, NumberText) and re.fullmatch("-?[0-9]{1,18}", value) is not None


# --- operations -----------------------------------------------------------------------------------

HEAD = {"op", "entity", "key"}
MEMBERS = {
    "insert": HEAD | {"values", "compensate"},
    "upsert": HEAD | {"values", "compensate"},
    "update": HEAD | {"set", "unset", "increment", "expect", "if_missing", "compensate"},
    "delete": HEAD | {"expect", "if_missing", "compensate"},
    "check": HEAD | {"expect", "absent"},
}
_GENERATED = "0198c0de-0000-7000-8000-000000000001"
_SILENT = object()
"""A key that is wrong; what a ``$ref`` to it gives, since the mistake is told over there."""
_ASKED = object()
"""A key that is being asked for: who asks for it now closes a ring."""


class _UnitJudge:
    def __init__(self, entities: dict[str, dict[str, Any]], operations: list[Any]) -> None:
        self._entities = entities
        self._operations = operations
        self._keys: dict[int, Any] = {}
        self._wrong_keys: set[int] = set()

    def judge(self, index: int) -> set[str]:
        given = self._operations[index]
        if not isinstance(given, dict):
            return {"invalid"}
        codes: set[str] = set()
        kind, name = given.get("op"), given.get("entity")
        if not (_is_text(kind) and kind in MEMBERS):
            codes.add("invalid")
        if not _is_text(name):
            codes.add("invalid")
        elif name not in self._entities:
            codes.add("unknown_entity")
        if codes:
            return codes
        assert isinstance(kind, str)
        assert isinstance(name, str)
        entity = _Entity(name, self._entities[name])
        if kind not in entity.operations:
            codes.add("forbidden")
        if set(given) - MEMBERS[kind]:
            codes.add("invalid")
        key = self._key(index, entity)
        if index in self._wrong_keys:
            codes.add("invalid")
        return codes | self._body(kind, entity, given, key, index)

    def _body(
        self, kind: str, entity: _Entity, given: dict[str, Any], key: Any, index: int | None
    ) -> set[str]:
        """Judge what follows the head; ``index`` is ``None`` in a ``compensate``."""
        codes: set[str] = set()
        ok = True
        if kind in ("insert", "upsert"):
            ok &= self._values(entity, given.get("values"), key, index)
            if kind == "insert" and isinstance(given.get("values"), dict):
                ok &= entity.required <= set(given["values"])
        elif kind == "update":
            ok &= self._update(entity, given, index)
        elif kind == "check":
            absent = given.get("absent", False)
            ok &= isinstance(absent, bool) and not (absent and "expect" in given)
        if index is not None:
            if "expect" in given and kind in ("update", "delete", "check"):
                ok &= _expect(entity, given["expect"])
            if "if_missing" in given and kind in ("update", "delete"):
                ok &= given["if_missing"] in ("ignore", "fail")
            if "compensate" in given and kind != "check":
                codes |= self._compensate(entity, given["compensate"], key)
        return codes if ok else codes | {"invalid"}

    def _values(self, entity: _Entity, given: Any, key: Any, index: int | None) -> bool:
        if not isinstance(given, dict):
            return False
        ok = True
        for name, value in given.items():
            if name == entity.key.name:
                ok &= self._same_key(entity, value, key, index)
            else:
                ok &= self._assigned(entity, name, value, index)
        return ok

    def _same_key(self, entity: _Entity, value: Any, key: Any, index: int | None) -> bool:
        if isinstance(value, dict) and index is None:
            return False
        value = self._resolved(value, entity.key, index)
        if value is _SILENT:
            return True
        if not fits(entity.key, value, judged=False):
            return False
        return key is _SILENT or _same(entity.key, key, value)

    def _assigned(self, entity: _Entity, name: str, value: Any, index: int | None) -> bool:
        one = entity.fields.get(name)
        if one is None or name in entity.protected:
            return False
        if index is None:
            return fits(one, value, judged=True)
        value = self._resolved(value, one, index)
        return value is _SILENT or fits(one, value, judged=True)

    def _update(self, entity: _Entity, given: dict[str, Any], index: int | None) -> bool:
        ok, seen = any(given.get(each) for each in ("set", "unset", "increment")), set[str]()
        for section in ("set", "unset", "increment"):
            if section not in given:
                continue
            part = given[section]
            names = (
                [each for each in part if _is_text(each)] if isinstance(part, dict | list) else []
            )
            ok &= not seen & set(names)
            seen |= set(names)
            if section == "set":
                ok &= isinstance(part, dict) and all(
                    self._assigned(entity, name, value, index) for name, value in part.items()
                )
            elif section == "increment":
                ok &= isinstance(part, dict) and all(
                    _is_delta(entity, name, value) for name, value in part.items()
                )
            else:
                ok &= isinstance(part, list) and len(names) == len(part) == len(set(names))
                ok &= all(
                    name in entity.fields
                    and name not in entity.protected
                    and bool(entity.fields[name].declared.get("nullable"))
                    for name in names
                )
        return bool(ok)

    def _compensate(self, entity: _Entity, given: Any, key: Any) -> set[str]:
        if not isinstance(given, dict):
            return {"invalid"}
        kind = given.get("op")
        if not (_is_text(kind) and kind in ("insert", "update", "upsert", "delete")):
            return {"invalid"}
        codes = set() if kind in entity.operations else {"forbidden"}
        if set(given) - (MEMBERS[kind] - {"expect", "if_missing", "compensate"}):
            codes.add("invalid")
        if given.get("entity", entity.name) != entity.name:
            codes.add("invalid")
        if "key" in given and key is not _SILENT:
            value = given["key"]
            if not fits(entity.key, value, judged=False) or not _same(entity.key, key, value):
                codes.add("invalid")
        return codes | self._body(kind, entity, given, key, None)

    # --- keys and references --------------------------------------------------------------------

    def _key(self, index: int, entity: _Entity) -> Any:
        """Give an operation's key, `_SILENT` if it is wrong."""
        if index not in self._keys:
            self._keys[index] = _ASKED
            self._keys[index] = self._read_key(index, entity)
        return self._keys[index]

    def _read_key(self, index: int, entity: _Entity) -> Any:
        given = self._operations[index]
        if "key" not in given and given["op"] == "insert" and entity.generates_keys:
            return _GENERATED
        value = self._resolved(given.get("key"), entity.key, index)
        creates = given["op"] in ("insert", "upsert")
        if value is None or (value is not _SILENT and not fits(entity.key, value, judged=creates)):
            self._wrong_keys.add(index)
            return _SILENT
        return value

    def _resolved(self, value: Any, one: FieldOf, index: int | None) -> Any:
        """Give what a ``$ref`` stands for; other values, and wrong references, as they are."""
        if not isinstance(value, dict) or "$ref" not in value or index is None:
            return value
        if one.type == "json":
            return value
        named = value["$ref"]
        parts = re.fullmatch(r"(0|[1-9][0-9]{0,2})\.key", named) if _is_text(named) else None
        target = int(parts[1]) if parts is not None and len(value) == 1 else len(self._operations)
        if target >= len(self._operations):
            return value
        head = self._operations[target]
        if not isinstance(head, dict) or not (_is_text(head.get("op")) and head["op"] in MEMBERS):
            return _SILENT
        if not _is_text(head.get("entity")) or head["entity"] not in self._entities:
            return _SILENT
        entity = _Entity(head["entity"], self._entities[head["entity"]])
        key = self._key(target, entity)
        if key is _ASKED:
            return value
        if key is _SILENT:
            return _SILENT
        if head["op"] != "insert":
            return value
        return NumberText(str(int(key))) if entity.key.type == "integer" else str(key)


class _Entity:
    def __init__(self, name: str, declared: dict[str, Any]) -> None:
        self.name = name
        kind = "mongodb" if "collection" in declared else "postgresql"
        self.fields = {
            field: FieldOf(name, field, kind, each) for field, each in declared["fields"].items()
        }
        self.key = self.fields[declared["key"]]
        self.version = declared.get("version")
        self.operations = declared.get("operations", list(MEMBERS))
        self.generates_keys = declared.get("key_default") == "uuid7"
        self.protected = {
            self.key.name,
            self.version,
            *(field for field, each in self.fields.items() if each.declared.get("read_only")),
        }
        self.required = {
            field
            for field, each in self.fields.items()
            if field not in (self.key.name, self.version)
            and not each.declared.get("nullable")
            and "default" not in each.declared
        }

    def operand(self, name: str) -> str | None:
        if name in self.fields:
            return self.fields[name].type
        return "integer" if name == self.version else None


def _same(one: FieldOf, key: Any, value: Any) -> bool:
    if one.type == "integer":
        return int(key) == int(value)
    return str(key).lower() == str(value).lower() if one.type == "uuid" else bool(key == value)


def _is_delta(entity: _Entity, name: str, value: Any) -> bool:
    one = entity.fields.get(name)
    if one is None or name in entity.protected or one.type not in NUMERIC_TYPES:
        return False
    return value is not None and fits(one, value, judged=False)


def _expect(entity: _Entity, given: Any) -> bool:
    if not isinstance(given, dict) or not given:
        return False
    ok = True
    for name, wanted in given.items():
        kind = entity.operand(name)
        if kind is None:
            ok = False
        elif isinstance(wanted, dict):
            ok &= bool(wanted)
            ok &= all(_operator(kind, operator, each) for operator, each in wanted.items())
        else:
            ok &= kind != "json" and (wanted is None or of_type(kind, wanted))
    return ok


def _operator(kind: str, operator: str, operand: Any) -> bool:
    if operator not in ("eq", "ne", "in", "lt", "lte", "gt", "gte"):
        return False
    if kind == "json":
        return operator in ("eq", "ne")
    if operator == "in":
        return (
            isinstance(operand, list)
            and bool(operand)
            and all(each is None or of_type(kind, each) for each in operand)
        )
    if operator not in ("eq", "ne"):
        return kind in ORDERED and operand is not None and of_type(kind, operand)
    return operand is None or of_type(kind, operand)
