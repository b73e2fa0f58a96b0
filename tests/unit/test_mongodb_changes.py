"""Net changes per key, the statements that write them, and what becomes of field names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bson
import pytest
from bson.int64 import Int64

from coordinator.domain.decide import decide_branch
from coordinator.domain.entity import Entity, FieldType, StoreKind
from coordinator.domain.errors import ConfigurationInvalid, Problem
from coordinator.domain.operation import Operation
from coordinator.participants.mongodb.changes import (
    Change,
    change_of,
    document_after,
    net,
    steps,
    write_of,
)
from coordinator.participants.mongodb.elements import elements_of, values_of
from coordinator.participants.mongodb.images import shape_of
from coordinator.participants.mongodb.writes import (
    DocumentWrite,
    WriteKind,
    grouped,
    in_order,
    update_body,
)
from tests.units import delete, entity, insert, mapping, undone_by, unit, update, upsert


def things(**fields: FieldType) -> Entity:
    return entity(
        "thing",
        {"_id": FieldType.STRING, "a": FieldType.INTEGER, "b": FieldType.STRING, **fields},
        store="catalog",
        kind=StoreKind.MONGODB,
        key="_id",
        table="things",
    )


THING = things()
SHAPE = shape_of(THING)
STORED: dict[str, Any] = {"_id": "k", "extra": [1], "a": 5, "b": "old", "version": 3}


def changes(stored: dict[str, Any] | None, *operations: Operation) -> list[Change]:
    """The changes of a unit's operations on the key ``k``."""
    raw = None if stored is None else bson.encode(stored)
    image = None if raw is None else SHAPE.image(values_of(elements_of(raw)))
    decided = decide_branch(unit(mapping(THING), *operations), "catalog", {("thing", '"k"'): image})
    assert not isinstance(decided, Problem)
    standing = bson.encode({})
    return [
        change_of(SHAPE, write, raw if at == 0 else None if write.before is None else standing)
        for at, write in enumerate(decided)
    ]


def after(change: Change) -> dict[str, Any] | None:
    raw = document_after(change)
    return None if raw is None else values_of(elements_of(raw))


def test_an_insert_holds_the_key_then_what_is_given_in_the_order_of_declaration() -> None:  # F16
    (change,) = changes(None, insert("thing", "k", b=None, a=1))
    assert change.whole is not None
    assert list(change.whole.items()) == [("_id", "k"), ("a", 1), ("b", None), ("version", 1)]
    (change,) = changes(None, insert("thing", "k"))
    assert change.whole == {"_id": "k", "version": Int64(1)}


def test_operations_on_one_key_become_one_write() -> None:  # F14
    one = changes(
        STORED,
        update("thing", "k", b="new"),
        update("thing", "k", unset=["b"], increment={"a": 2}),
        update("thing", "k", increment={"a": 3}),
    )
    merged = net(one)
    assert merged.assigned == {"a": Int64(10), "version": Int64(6)}
    assert merged.unset == ("b",)
    assert merged.deltas == {"a": 5}
    assert set(merged.written) == {"b"}
    assert after(merged) == {"_id": "k", "extra": [1], "a": 10, "version": 6}
    assert len(steps(one)) == 1


def test_a_field_that_is_set_and_incremented_counts_as_set() -> None:  # F28
    merged = net(
        changes(STORED, update("thing", "k", a=1), update("thing", "k", increment={"a": 1}))
    )
    assert merged.deltas == {}
    assert merged.written == ("a",)


@pytest.mark.parametrize(
    ("stored", "operations", "kind", "left"),
    [
        (None, [insert("thing", "k", a=1), delete("thing", "k")], None, None),
        (STORED, [delete("thing", "k")], WriteKind.DELETE, None),
        (STORED, [update("thing", "k", a=1), delete("thing", "k")], WriteKind.DELETE, None),
        (
            STORED,
            [delete("thing", "k"), insert("thing", "k", a=1)],
            WriteKind.UPDATE,
            {"_id": "k", "a": 1, "version": 1},
        ),
        (
            None,
            [upsert("thing", "k", a=1), update("thing", "k", unset=["a"], b="x")],
            WriteKind.INSERT,
            {"_id": "k", "b": "x", "version": 2},
        ),
    ],
)
def test_net_writes(
    stored: dict[str, Any] | None,
    operations: Sequence[Operation],
    kind: WriteKind | None,
    left: dict[str, Any] | None,
) -> None:
    merged = net(changes(stored, *operations))
    write = write_of(1, SHAPE, "k", merged, 100)
    assert (None if write is None else write.kind) is kind
    assert after(merged) == left


def test_own_undo_keeps_its_operation_a_step_by_itself() -> None:  # F25
    found = steps(
        changes(
            STORED,
            update("thing", "k", b="1"),
            undone_by(update("thing", "k", b="2"), update("thing", "k", b="void")),
            update("thing", "k", b="3"),
            update("thing", "k", a=9),
        )
    )
    assert [each.compensated for each in found] == [False, True, False]
    assert [each.position for each in found] == [0, 1, 3]
    assert found[2].before is not None
    assert bson.decode(found[2].before)["b"] == "2"


def test_an_update_without_anything_to_write_writes_nothing() -> None:
    # {} would be the replacement by an empty document.
    plain = entity(
        "thing",
        {"_id": FieldType.STRING, "a": FieldType.INTEGER},
        store="catalog",
        kind=StoreKind.MONGODB,
        key="_id",
        version=None,
    )
    shape = shape_of(plain)
    decided = decide_branch(
        unit(mapping(plain), upsert("thing", "k")),
        "catalog",
        {("thing", '"k"'): {"_id": "k", "a": 1}},
    )
    assert not isinstance(decided, Problem)
    change = change_of(shape, decided[0], bson.encode({"_id": "k", "a": 1}))
    assert write_of(1, shape, "k", change, 10) is None
    with pytest.raises(ValueError, match="changes nothing"):
        update_body("k", {}, ())


def write(seq: int, kind: WriteKind, collection: str = "c", size_bytes: int = 10) -> DocumentWrite:
    return DocumentWrite(seq, 0, collection, kind, {}, size_bytes)


D, U, I = WriteKind.DELETE, WriteKind.UPDATE, WriteKind.INSERT  # noqa: E741


def test_grouped_writes_are_one_statement_per_collection_and_kind() -> None:
    found = list(grouped([write(1, I), write(2, D), write(3, U), write(4, I), write(5, U, "b")]))
    assert [(each.collection, each.kind) for each in found] == [
        ("c", D),
        ("b", U),
        ("c", U),
        ("c", I),
    ]
    assert [each.seq for each in found[3].writes] == [1, 4]


def test_writes_in_order_are_as_few_statements_as_their_order_allows() -> None:
    found = list(in_order([write(1, I), write(2, I), write(3, U), write(4, I)]))
    assert [[each.seq for each in one.writes] for one in found] == [[1, 2], [3], [4]]


def test_no_statement_passes_the_size_of_a_message() -> None:  # I12
    found = list(grouped([write(seq, I, size_bytes=5 * 1024 * 1024) for seq in range(5)]))
    assert [len(each.writes) for each in found] == [2, 2, 1]


@pytest.mark.parametrize("name", ["$inc", "a.b", "", "a\0b"])
def test_field_names_with_a_meaning_are_refused(name: str) -> None:  # I10
    with pytest.raises(ConfigurationInvalid):
        shape_of(things(**{name: FieldType.STRING}))
