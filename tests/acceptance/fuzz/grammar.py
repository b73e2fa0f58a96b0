"""Messages for the units' topic: good ones, and everything that somebody could make of them.

All is drawn from one `random.Random`, so that a seed gives the same messages again. A message is a
valid unit over the acceptance mapping, then changed: in its values, its members, its JSON text, its
bytes, or in what is around it.
"""

from __future__ import annotations

import copy
import json
import re
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

Json = dict[str, Any]
Header = tuple[str, bytes | None]

STRUCTURED: Header = ("content-type", b"Application/CloudEvents+JSON; charset=utf-8")
ENTITIES = (
    "account", "customer", "sample", "specimen", "limit", "entry", "order", "parcel", "wallet",
    "document", "ticket",
)  # fmt: skip

INJECTIONS = (
    "'; DROP TABLE accounts; --", '" OR ""="', "$1", "%s", "{}", "\\", "\\'; --",
    "'||(SELECT 1)||'",
    "$where", "$set", "a.b", "$$ROOT", '{"$gt":0}', "function(){while(1);}", "__proto__",
    "constructor", "__class__", "_id", "_dtx_lock", "version", "id", "ctid", "xmin", "balance",
    "coordinator.units", "public.accounts", "/*", "*/", "--", "1;SELECT pg_sleep(9)", "\u202e",
    "\x00", "\ud7ff\ue000", "\U0010ffff", "e\u0301", "\u00df", "\u0130", "\u2028", "NULL", "null",
    "true", "", " ", "\n", "\t", "\r\n", "a" * 300, "\u0661", "0x10", "${jndi:ldap://x}", "../..",
)  # fmt: skip

RAW = (
    "1e400", "-1e400", "1e-400", "1.50", "-0", "-0.0", "1E5", "0.1", "1.0", "123456789012345678901",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
    "18446744073709551615", "18446744073709551616", "2147483648", "32768", "1e1000000", "9" * 400,
    "0." + "3" * 400, "1e-999999999", "1e131071", "1e131072", "5e-324", "1e308", "16777217",
    "3.4028235e38", "3.5e38", "0.30000000000000004", "99999999.99999",
)  # fmt: skip
BROKEN_RAW = (
    "NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "1e", "0x1", "'a'", "undefined", "nul",
    '"\\ud800"', '"\\udc00x"', '"\\x41"', '"\t"', '"open', "[1,]", '{"a":1,}', "{a:1}", "[" * 70,
    "[" * 70 + "]" * 70, '{"a":' * 70 + "1" + "}" * 70, '{"a":1,"a":1}', "/**/1", "\ufeff1",
)  # fmt: skip

_RAW_MARK = "\ue000raw%d\ue001"
"""Stands in a value for what json.dumps would never write."""
_RAW_MARKED = re.compile('"(?:\\\\ue000|\ue000)raw([0-9]+)(?:\\\\ue001|\ue001)"')


_GOOD: dict[str, list[Any]] = {
    "integer": [0, 1, -1, 12, "7", 99],
    "decimal": ["0", "1.5", "12.50", 3, "100.25"],
    "float": [0, 1, 0.5, -2.25, 1e10],
    "boolean": [True, False],
    "timestamp": ["2024-05-17T09:30:00Z", "1969-12-31T23:59:59.999+02:00"],
    "date": ["2024-02-29", "0001-01-01", "9999-12-31"],
    "uuid": ["0198C0DE-0000-7000-8000-00000000000b", "00000000-0000-0000-0000-000000000000"],
    "binary": ["", "AP8=", "+/+/"],
    "objectid": ["0123456789ABCDEF01234567"],
}


@dataclass
class Message:
    """One record, as it is to be sent. ``what`` says how it was made."""

    value: bytes | None
    key: bytes | None = None
    headers: list[Header] = field(default_factory=list)
    what: str = ""


class Grammar:
    """Makes messages. ``tag`` keeps their ids apart from those of other runs."""

    def __init__(self, random: Random, mapping: dict[str, Json], tag: str) -> None:
        self._random = random
        self._mapping = mapping
        self._tag = tag
        self._made = 0
        self._sent: list[Message] = []
        self._ids: list[str] = []
        self._raws: list[str] = []

    def message(self) -> Message:
        """Make the next message."""
        makers = (
            (self._valid, 3), (self._changed, 12), (self._text_changed, 4),
            (self._bytes_changed, 3), (self._wrapped, 3), (self._cancel, 2), (self._again, 2),
            (self._rubbish, 2), (self._many_mistakes, 1),
        )  # fmt: skip
        (maker,) = self._random.choices([m for m, _ in makers], [weight for _, weight in makers])
        made = maker()
        if made.key is None and (made.value is None or self._one_in(2)):
            made.key = self._random.choice([b"", b"k", b"\xff\x00", self._word().encode()])
        if self._one_in(6):
            made.headers += [self._header() for _ in range(self._random.randint(1, 3))]
        self._sent.append(made)
        return made

    # --- what is sent -----------------------------------------------------------------------------

    def _valid(self) -> Message:
        return Message(self._text(self._unit()).encode(), what="valid")

    def _changed(self) -> Message:
        unit = self._unit()
        for _ in range(self._random.choice([1, 1, 1, 2, 3])):
            self._change(unit)
        return Message(self._text(unit).encode("utf-8", "surrogatepass"), what="changed")

    def _text_changed(self) -> Message:
        """Put what no parser may take, or a member twice, somewhere into the text."""
        unit = self._unit()
        if self._one_in(2):
            text = self._text(unit)
            member = self._random.choice(re.findall(r'"[a-z_]{1,12}" ?: ?', text))
            text = text.replace(member, f"{member}{self._random.choice(['1', 'null'])},{member}", 1)
            return Message(text.encode(), what="a member twice")
        place = self._random.choice(_places(unit)[1:])
        _put(unit, place, self._random.choice(BROKEN_RAW), raw=self)
        return Message(self._text(unit).encode("utf-8", "surrogatepass"), what="broken text")

    def _bytes_changed(self) -> Message:
        raw = bytearray(self._text(self._unit()).encode())
        for _ in range(self._random.randint(1, 4)):
            at = self._random.randrange(len(raw))
            put = self._random.randbytes(self._random.randint(0, 3))
            if self._one_in(2):
                put = self._random.choice([b'"', b"{", b"}", b",", b":", b"\\", b"0", b"\xc3"])
            raw[at : at + self._random.randint(0, 3)] = put
        if self._one_in(6):
            del raw[self._random.randrange(len(raw)) :]
        return Message(bytes(raw), what="bytes changed")

    def _wrapped(self) -> Message:
        unit = self._unit()
        if self._one_in(2):
            self._change(unit)
        event: Json = {"specversion": "1.0", "id": "e", "source": "/s", "type": "t", "data": unit}
        if self._one_in(3):
            part = self._random.choice(list(event))
            event[part] = self._junk()
        if self._one_in(8):
            del event[self._random.choice(list(event))]
        return Message(
            self._text(event).encode("utf-8", "surrogatepass"), None, [STRUCTURED], "wrapped"
        )

    def _cancel(self) -> Message:
        known = self._random.choice(self._ids) if self._ids and self._one_in(2) else self._new_id()
        cancel: Json = {"cancel": known, "reason": self._word()}
        if self._one_in(3):
            del cancel["reason"]
        for name in ("cancel", "reason"):
            if self._one_in(6):
                cancel[name] = self._junk()
        if self._one_in(5):
            cancel[self._random.choice(["id", "operations", "x"])] = self._new_id()
        return Message(self._text(cancel).encode("utf-8", "surrogatepass"), what="cancel")

    def _again(self) -> Message:
        """Repeat a message, or say something else under an id that was used."""
        if self._sent and self._one_in(2):
            old = self._random.choice(self._sent)
            return Message(old.value, old.key, list(old.headers), "again")
        unit = self._unit()
        if self._ids:
            unit["id"] = self._random.choice(self._ids)
        return Message(self._text(unit).encode(), what="id reused")

    def _rubbish(self) -> Message:
        random = self._random
        choices: list[bytes | None] = [
            None, b"", b" ", b"{}", b"[]", b"null", b'""', b"{", b"\xff\xfe{}", b"\xef\xbb\xbf{}",
            b"\x1f\x8b\x08\x00", b"\x00\x00\x00\x00\x01Avro", b"\xac\xed\x00\x05sr", b"<x/>",
            random.randbytes(random.randint(1, 200)),
            b"[" * random.randint(1, 300),
            b'{"id":"' + self._new_id().encode() + b'"}',
            b'{"id":"' + self._new_id().encode() + b'","operations":[]}',
            b"[" * 65 + b'"' + b'\\"' * random.randint(1, 9000),
            b'{"id":"' + self._new_id().encode() + b'","metadata":"' + b"x" * 300_000 + b'"}',
        ]  # fmt: skip
        return Message(random.choice(choices), what="rubbish")

    def _many_mistakes(self) -> Message:
        unit = self._unit()
        count = self._random.randint(1, 40)
        unit["operations"] = [self._operation() for _ in range(count)]
        for _ in range(2 * count):
            self._change(unit)
        return Message(self._text(unit).encode("utf-8", "surrogatepass"), what="many mistakes")

    def _header(self) -> Header:
        random = self._random
        name = random.choice(
            ["content-type", "reply-to", "traceparent", "ce_id", "ce_specversion", "ce_traceparent",
             "coordinator.errors.code", "x" * 50, "\u00e9"]
        )  # fmt: skip
        contents = [
            None, b"", b"\xff", b"application/json", b"application/cloudevents+json",
            b"application/cloudevents+avro", b"elsewhere", self._word().encode(),
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ]  # fmt: skip
        return name, random.choice(contents)

    # --- units that are right -------------------------------------------------------------------

    def _unit(self) -> Json:
        unit: Json = {
            "id": self._new_id(),
            "operations": [self._operation() for _ in range(self._random.choice([1, 1, 2, 3, 6]))],
            "timeout_ms": 15_000,
        }
        if self._one_in(3):
            unit["metadata"] = self._tree(3)
        if self._one_in(8):
            unit["operations"].insert(0, {"op": "insert", "entity": "parcel", "values": {}})
            unit["operations"].append({"op": "check", "entity": "parcel", "key": {"$ref": "0.key"}})
        self._ids.append(unit["id"])
        return unit

    def _operation(self) -> Json:
        random = self._random
        name = random.choice(ENTITIES)
        declared = self._mapping[name]
        kind = random.choice(
            declared.get("operations", ["insert", "insert", "update", "upsert", "delete", "check"])
        )
        operation: Json = {"op": kind, "entity": name, "key": self._key(name)}
        writable = [
            each
            for each, of in declared["fields"].items()
            if each not in (declared["key"], declared.get("version")) and not of.get("read_only")
        ]
        chosen = random.sample(writable, random.randint(1, min(4, len(writable))))
        if kind in ("insert", "upsert"):
            needed = [each for each in writable if not declared["fields"][each].get("nullable")]
            operation["values"] = {
                each: self._value(name, each) for each in dict.fromkeys([*chosen, *needed])
            }
        elif kind == "update":
            operation["set"] = {each: self._value(name, each) for each in chosen}
            numbers = [
                each
                for each in writable
                if each not in chosen and declared["fields"][each]["type"] in ("integer", "decimal")
            ]
            if numbers and self._one_in(2):
                operation["increment"] = {random.choice(numbers): random.choice([1, -1, "2"])}
        if kind in ("update", "delete", "check") and self._one_in(3):
            each = random.choice(writable)
            if declared["fields"][each]["type"] == "json":
                operation["expect"] = {each: {"ne": self._tree(2)}}
            else:
                wanted = self._value(name, each)
                operation["expect"] = {each: {random.choice(["eq", "ne"]): wanted}}
        if kind in ("update", "delete") and self._one_in(2):
            operation["if_missing"] = random.choice(["ignore", "fail"])
        return operation

    def _key(self, entity: str) -> Any:
        declared = self._mapping[entity]
        number = self._random.randint(1, 12)
        match declared["fields"][declared["key"]]["type"]:
            case "integer":
                return self._random.choice([number, str(number)])
            case "uuid":
                return f"0198c0de-0000-7000-8000-{number:012x}"
        if self._one_in(3):
            return self._random.choice(INJECTIONS).replace("\0", "")
        return f"{self._tag}k{number}"

    def _value(self, entity: str, name: str) -> Any:
        random = self._random
        of = self._mapping[entity]["fields"][name]
        if of.get("nullable") and self._one_in(8):
            return None
        if "enum" in of:
            return random.choice(of["enum"])
        if "pattern" in of:
            return f"AB{random.randint(0, 999)}"
        if of["type"] == "string":
            if name in ("word", "fixed", "note", "email"):
                return random.choice(["", "a", "abc", "\u00e9"])
            return random.choice([*INJECTIONS[:-20], "text"]).replace("\0", "")
        if of["type"] == "json":
            return self._tree(3)
        return random.choice(_GOOD[of["type"]])

    def _tree(self, depth: int) -> Any:
        kind = self._random.randint(0, 6 if depth else 4)
        if kind == 5:
            return [self._tree(depth - 1) for _ in range(self._random.randint(0, 3))]
        if kind == 6:
            return {self._word(): self._tree(depth - 1) for _ in range(self._random.randint(0, 3))}
        return [None, True, self._random.randint(-9, 9), 0.5, self._word()][kind]

    # --- changes --------------------------------------------------------------------------------

    def _change(self, value: Any) -> None:
        """Change a value in one place: another value, one more member, one less, another name."""
        random = self._random
        places = _places(value)[1:]
        if not 0 < len(places) < 2_000:
            return
        place = random.choice(places)
        how = random.randint(0, 9)
        if how <= 5:
            _put(value, place, self._junk(), raw=self)
        elif how == 6:
            parent = _at(value, place[:-1])
            del parent[place[-1]]
        elif how == 7:
            target = _at(value, place)
            name = random.choice([self._word(), *INJECTIONS])
            if isinstance(target, dict):
                target[name] = self._junk()
            elif isinstance(target, list):
                target.insert(0, self._junk())
            else:
                _put(value, place, {name: target}, raw=self)
        elif how == 8:
            parent, name = _at(value, place[:-1]), place[-1]
            if isinstance(parent, dict):
                parent[random.choice([*INJECTIONS, "key", "set", "op", "compensate"])] = parent.pop(
                    name
                )
        else:
            parent = _at(value, place[:-1])
            parent[place[-1]] = copy.deepcopy(_at(value, random.choice(places)))

    def _junk(self) -> Any:
        random = self._random
        choices: tuple[Callable[[], Any], ...] = (
            lambda: random.choice(INJECTIONS),
            lambda: self.raw(random.choice(RAW)),
            lambda: random.choice([None, True, False, 0, -1, 2**31, 2**63, 10**30, 0.1, ""]),
            lambda: random.choice([[], {}]),
            lambda: random.choice(["insert", "account", "0.key", "ignore", "1e5", "-1.5", "NaN"]),
            lambda: {"$ref": random.choice(["0.key", "1.key", "00.key", "99.key", "x", 0])},
            lambda: {random.choice(["eq", "in", "gte", "$gt", "x"]): self._tree(2)},
            lambda: {"op": random.choice(["update", "delete", "insert"]), "set": {"note": "c"}},
            lambda: self._tree(3),
            lambda: "x" * random.choice([100, 5000]),
            lambda: "\U0001f600" * random.choice([5, 6, 21]),
        )  # fmt: skip
        return random.choice(choices)()

    def raw(self, text: str) -> str:
        """Give a string that `_text` replaces by this very text."""
        self._raws.append(text)
        return _RAW_MARK % (len(self._raws) - 1)

    def _text(self, value: Any) -> str:
        """Write a value as JSON in one of the ways that there are."""
        random = self._random
        text = json.dumps(
            value,
            ensure_ascii=random.choice([True, False]),
            indent=random.choice([None, None, None, 1, "\t"]),
            separators=random.choice([None, (",", ":"), (" , ", " : ")]),
        )
        raws, self._raws = self._raws, []
        return _RAW_MARKED.sub(lambda found: raws[int(found[1])], text)

    def _word(self) -> str:
        length = self._random.randint(1, 6)
        return "".join(
            self._random.choices(string.ascii_letters + "\u00e9\u4e2d\U0001f600", k=length)
        )

    def _new_id(self) -> str:
        self._made += 1
        return f"{self._tag}-{self._made}" + ("!~\"'\\{}%" if self._one_in(9) else "")

    def _one_in(self, count: int) -> bool:
        return self._random.randrange(count) == 0


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    members = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else ()
    for name, each in (*members, *items):
        found += _places(each, (*path, name))
    return found


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for step in place:
        value = value[step]
    return value


def _put(value: Any, place: tuple[Any, ...], new: Any, *, raw: Grammar) -> None:
    if isinstance(new, str) and new in BROKEN_RAW:
        new = raw.raw(new)
    _at(value, place[:-1])[place[-1]] = new
