"""Records that are no units: what broken producers put on the topic, each broken in its own way.

Pure. Each becomes a dead letter, byte for byte (F1), and stops nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Broken:
    """One record. ``why`` is for the reader of the demonstration."""

    why: str
    value: bytes | None


def broken_records(chance: random.Random, count: int) -> list[Broken]:
    """Make ``count`` records, of every sort in turn."""
    return [_SORTS[number % len(_SORTS)](chance) for number in range(count)]


def _torn(chance: random.Random) -> Broken:
    whole = b'{"id": "torn-%d", "operations": [{"op": "insert", "entity": "order"}]}'
    whole %= chance.randrange(10**6)
    return Broken("cut off in the middle", whole[: chance.randrange(12, len(whole) - 1)])


def _latin(chance: random.Random) -> Broken:
    text = f'{{"id": "latin-{chance.randrange(10**6)}", "note": "Gr\xfc\xdfe"}}'
    return Broken("not UTF-8", text.encode("latin-1"))


def _no_id(chance: random.Random) -> Broken:
    return Broken("no id", b'{"operations": [], "nonce": %d}' % chance.randrange(10**6))


def _form(chance: random.Random) -> Broken:
    return Broken("no JSON at all", b"order=o-%d&total=9.90" % chance.randrange(10**6))


def _deep(chance: random.Random) -> Broken:
    depth = chance.randrange(100, 200)
    return Broken("nested too deep", b"[" * depth + b"]" * depth)


def _empty(chance: random.Random) -> Broken:
    return Broken("empty", None if chance.random() < 0.5 else b"")


_SORTS = (_torn, _latin, _no_id, _form, _deep, _empty)
