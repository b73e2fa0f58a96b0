"""The largest record costs a bounded time to read, however it is made, and a bounded answer (I12).

The texts are as long as `units.max_bytes` allows, and each was once the slowest of its kind. The
bound is far above what they take, and far below what anything quadratic would.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from coordinator.domain.decide import Refused, decide_operation
from coordinator.domain.errors import (
    ECHOED_MAX,
    PROBLEMS_BYTES_MAX,
    PROBLEMS_MAX,
    ErrorCode,
    Problem,
    error_as_json,
    together,
)
from coordinator.domain.json_text import JsonFault, is_shallow
from coordinator.domain.operation import Comparison, Condition, Operation, OperationKind
from coordinator.domain.submission import DeadLetter, RefusedEarly, Submission, read
from tests.mapping_samples import MAPPING, FixedDraw

MAX_BYTES = 262_144
CPU_SECONDS_MAX = 10.0
CONTROLS = "\\u0001" * ECHOED_MAX


def full(head: str, item: Callable[[int], str], tail: str, between: str = ",") -> str:
    """Repeat an item until no more fit into the largest record."""
    items: list[str] = []
    left = MAX_BYTES - len(head) - len(tail)
    while left >= len(each := item(len(items))) + len(between):
        items.append(each)
        left -= len(each) + len(between)
    return head + between.join(items) + tail


def unit(operation: str) -> tuple[str, str]:
    """Give what comes before and after the content of the first operation's last member."""
    return '{"id":"u","operations":[{' + operation, "}]}"


def checked(field: str, items: str) -> str:
    head, tail = unit('"op":"check","entity":"pg_thing","key":"x","expect":{"')
    return full(f'{head}{field}":{{"in":[', lambda _: items, f"]}}}}{tail}")


def in_json(entity: str, number: str) -> str:
    head, tail = unit(f'"op":"insert","entity":"{entity}","key":"k","values":{{"json":[')
    return full(head, lambda _: number, f"]}}{tail}")


def inserted(value: str) -> str:
    head, tail = unit('"op":"insert","entity":"pg_thing","key":"k","values":{')
    return f"{head}{value}}}{tail}"


def metadata(item: str) -> str:
    return full('{"id":"u","metadata":[', lambda _: item, '],"operations":[]}')


LARGEST: dict[str, str] = {
    "a string that is not closed, all escaped quotes": "[" * 65 + '"' + '\\"' * 131_000,
    "brackets": "[" * 131_072 + "]" * 131_072,
    "brackets that are not closed": "[" * MAX_BYTES,
    "objects in objects": '{"a":' * 52_000,
    "strings": full('{"id":"u","metadata":[', lambda _: '"{"', '],"operations":[]}'),
    "many deep values": metadata("[" * 60 + "]" * 60),
    "many values that are too deep": metadata("[" * 63 + "]" * 63),
    "a member many times": full("{", lambda _: '"id":"u"', "}"),
    "NaNs": metadata("NaN"),
    "halves of surrogates": metadata('"\\ud83d"'),
    "numbers with a zero too many": metadata("1.0"),
    "numbers with a huge exponent": metadata("1e-999999999"),
    "numbers of a thousand digits": metadata("0." + "7" * 1000 + "e-300"),
    "unknown members of the unit": full('{"id":"u",', lambda n: f'"z{n}":0', "}"),
    "unknown members of an operation": full(
        unit('"op":"delete","entity":"account","key":1,')[0], lambda n: f'"z{n}":0', "}]}"
    ),
    "unknown fields": full(
        unit('"op":"insert","entity":"account","key":1,"values":{')[0],
        lambda n: f'"z{n}":0',
        "}}]}",
    ),
    "unknown fields beside a key of many digits": full(
        unit(f'"op":"insert","entity":"account","key":"{"7" * 3900}","values":{{')[0],
        lambda n: f'"z{n}":0',
        "}}]}",
    ),
    "operands of a wrong type": checked("integer", '"x"'),
    "operands with a large exponent": checked("decimal", '"1e999999"'),
    "operands that are times": checked("timestamp", '"2024-05-17T09:30:00Z"'),
    "a field that is unset again and again": full(
        unit('"op":"update","entity":"account","key":1,"unset":[')[0], lambda _: '"x"', "]}]}"
    ),
    "numbers in json, PostgreSQL": in_json("pg_thing", "1e5"),
    "numbers in json that take much room, PostgreSQL": in_json("pg_thing", "1e131071"),
    "numbers in json, MongoDB": in_json("mongo_thing", "0.10"),
    "a decimal of as many digits as fit": inserted(f'"decimal":"0.{"7" * 262_000}"'),
    "a float of as many digits as fit": inserted(f'"float":0.{"7" * 262_000}'),
    "control characters in all that is repeated": full(
        unit(f'"op":"delete","entity":"account","key":"{CONTROLS}",')[0],
        lambda n: f'"{CONTROLS}{n}":0',
        "}]}",
    ),
    "a hundred operations, each wrong in many ways": full(
        '{"id":"u","operations":[',
        lambda n: (
            f'{{"op":"delete","entity":"account","key":"k{n}",'
            + ",".join(f'"z{at}":0' for at in range(270))
            + "}"
        ),
        "]}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGEST)
def test_i12_the_largest_record_is_read_in_bounded_time(name: str) -> None:
    raw = LARGEST[name].encode()
    assert len(raw) <= MAX_BYTES
    began = time.process_time()
    seen = read(raw, (), MAPPING, MAX_BYTES, 1000, frozenset(), FixedDraw())
    assert time.process_time() - began < CPU_SECONDS_MAX
    if isinstance(seen, RefusedEarly):
        assert len(seen.problems) <= PROBLEMS_MAX
        shown = orjson.dumps(error_as_json(seen.problems))
        assert len(shown) < PROBLEMS_BYTES_MAX + 8 * 1024
    else:
        assert isinstance(seen, DeadLetter | Submission)


def test_a_string_that_is_not_closed_hides_its_brackets() -> None:
    """It is no JSON, whatever is said of its depth; what counts is that it is found out soon."""
    assert is_shallow(b'["' + b"[" * 100, 64) is False
    raw = b"[" * 65 + b'"' + b'\\"' * 10 + b"\\"
    seen = read(raw, (), MAPPING, MAX_BYTES, 1000, frozenset(), FixedDraw())
    assert isinstance(seen, DeadLetter)
    assert seen.message == f"The record's value {JsonFault.NOT_JSON}."


def test_f10_the_first_mistake_is_that_of_the_first_operation_also_past_the_bound() -> None:
    """An operation that is read early, because another refers to its key, must not hide it."""
    last = {"op": "insert", "entity": "order", **{f"z{n}": 0 for n in range(PROBLEMS_MAX + 5)}}
    first = {"op": "check", "entity": "order", "key": {"$ref": "1.key"}, "x": 0, "absent": 1}
    raw = json.dumps({"id": "u", "operations": [first, last]}).encode()
    seen = read(raw, (), MAPPING, MAX_BYTES, 1000, frozenset(), FixedDraw())
    assert isinstance(seen, RefusedEarly)
    assert [each.path for each in seen.problems[:3]] == [
        "operations.0.x",
        "operations.0.absent",
        "operations.1.z0",
    ]
    assert len(seen.problems) == PROBLEMS_MAX


def _problem(index: int, filler: int) -> Problem:
    return Problem(ErrorCode.EXPECTATION_FAILED, "x" * filler + ".", operation=index)


def test_what_several_stores_refuse_is_bounded_as_well() -> None:
    told = together([_problem(at, 1000) for at in range(300)])
    assert told.operation == 0
    assert 10 < len(told.also) < PROBLEMS_BYTES_MAX // 1000
    assert len(together([_problem(at, 10) for at in range(300)]).also) == PROBLEMS_MAX - 1
    assert together([_problem(1, 2 * PROBLEMS_BYTES_MAX), _problem(2, 1)]).operation == 1


def test_i12_a_long_key_is_not_repeated_with_every_condition_that_fails() -> None:
    """The key may be as long as the submission, and each of its conditions fails by itself."""
    key: Any = "k" * 200_000
    expect = tuple(Condition("string", each, "x") for each in Comparison for _ in range(10))
    operation = Operation(0, OperationKind.CHECK, "pg_thing", key, f'"{key}"', {}, (), None, expect)
    with pytest.raises(Refused) as refused:
        decide_operation(MAPPING, 0, operation, {"id": key, "rev": 1, "string": None})
    problem = refused.value.problem
    assert len(problem.also) > 10
    assert len(orjson.dumps(problem.as_record())) < PROBLEMS_BYTES_MAX
    assert problem.key == "k" * (ECHOED_MAX - 1) + "…"
    assert "k…: string does not satisfy" in problem.message
