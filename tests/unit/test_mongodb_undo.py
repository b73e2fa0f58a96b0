"""What undo decides: F27 (what comes back), F28 (strangers), F29 (policies), F25 (own undo)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import bson
import pytest
from bson.decimal128 import Decimal128
from bson.int64 import Int64

from coordinator.domain.entity import Entity, FieldType, ForeignWritePolicy, StoreKind
from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.operation import Operation, Unit
from coordinator.participants.mongodb.branches import Documents, decide, wanted
from coordinator.participants.mongodb.elements import EXACT
from coordinator.participants.mongodb.undo import decide_undo
from coordinator.participants.mongodb.undo_record import Identity, read_record
from coordinator.participants.mongodb.writes import DocumentWrite, WriteKind
from tests.units import delete, entity, insert, mapping, undone_by, unit, update, upsert

IDENTITY = Identity("j", 1, datetime(2026, 1, 2, tzinfo=UTC))
Document = dict[str, Any]

STORED: Document = {
    "_id": "k",
    "unmapped": {"z": 1, "a": [Int64(1), 1.0]},
    "i32": 5,
    "double": 7.0,
    "amount": Decimal128("10.00"),
    "status": "open",
    "nothing": None,
    "version": 3,
}


def things(policy: ForeignWritePolicy = ForeignWritePolicy.PARK) -> Entity:
    return entity(
        "thing",
        {
            "_id": FieldType.STRING,
            "i32": FieldType.INTEGER,
            "double": FieldType.INTEGER,
            "amount": FieldType.DECIMAL,
            "ratio": FieldType.FLOAT,
            "status": FieldType.STRING,
            "note": FieldType.STRING,
            "nothing": FieldType.STRING,
        },
        store="catalog",
        kind=StoreKind.MONGODB,
        key="_id",
        table="things",
        on_foreign_write=policy,
    )


def applied(
    of: Entity, stored: Document | None, *operations: Operation
) -> tuple[Unit, bytes, Document | None]:
    """Apply operations to the key ``k``: the unit, its undo record, the document afterwards."""
    one = unit(mapping(of), *operations)
    documents = Documents()
    (needed,) = wanted("catalog", [one])
    documents.take(needed, [] if stored is None else [bson.encode(stored)])
    (branch,), refused = decide("catalog", IDENTITY, [one], documents)
    assert not refused
    return one, branch.record, written(stored, list(branch.net_writes()))


def written(stored: Document | None, writes: Sequence[DocumentWrite]) -> Document | None:
    """What MongoDB makes of the writes."""
    for write in writes:
        body = bson.decode(bson.encode(write.body), EXACT)
        if write.kind is WriteKind.DELETE:
            stored = None
        elif write.kind is WriteKind.INSERT:
            assert stored is None
            stored = body
        elif "$set" in body["u"] or "$unset" in body["u"]:
            assert stored is not None
            stored = {**stored, **body["u"].get("$set", {})}
            for name in body["u"].get("$unset", {}):
                stored.pop(name, None)
        else:
            stored = body["u"]
    return stored


def undone(one: Unit, record: bytes, current: Document | None) -> Document | ErrorCode | None:
    """Undo on the current document: what is left, or why not."""
    _, found = read_record(record)
    raw = None if current is None else bson.encode(current)
    decided = decide_undo(one, found.keys(), {("things", "k"): raw})
    if isinstance(decided, Problem):
        assert decided.path == f"operations.{decided.operation}"
        assert decided.key == "k"
        return decided.code
    return written(current, decided)


def identical(one: object, other: Document | None) -> None:
    assert isinstance(one, dict)
    assert other is not None
    assert bson.encode(one) == bson.encode(other)


UNTOUCHED: dict[str, tuple[Document | None, list[Operation]]] = {
    "set": (STORED, [update("thing", "k", status="paid", note="x", i32=1)]),
    "unset": (STORED, [update("thing", "k", unset=["status", "note"])]),
    "null against absent": (STORED, [update("thing", "k", note=None, nothing="x")]),
    "increment": (
        STORED,
        [update("thing", "k", increment={"i32": 1, "double": 1, "amount": Decimal("0.5")})],
    ),
    "upsert that sets": (STORED, [upsert("thing", "k", status="x")]),
    "delete": (STORED, [delete("thing", "k")]),
    "insert": (None, [insert("thing", "k", status="x")]),
    "insert and delete": (None, [insert("thing", "k"), delete("thing", "k")]),
    "delete and insert": (STORED, [delete("thing", "k"), insert("thing", "k", i32=1)]),
    "many": (
        STORED,
        [
            update("thing", "k", status="1", increment={"i32": 4}),
            update("thing", "k", unset=["status"], i32=9),
            delete("thing", "k"),
            upsert("thing", "k", amount=Decimal("1")),
        ],
    ),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_the_very_document_comes_back(name: str) -> None:  # F27
    stored, operations = UNTOUCHED[name]
    one, record, current = applied(things(), stored, *operations)
    left = undone(one, record, current)
    if stored is None:
        assert left is None
    else:
        identical(left, stored)


def test_the_order_of_top_level_fields_is_no_write_of_a_stranger() -> None:
    one, record, current = applied(things(), STORED, update("thing", "k", note="x"))
    assert current is not None
    shuffled = dict(sorted(current.items(), reverse=True))
    identical(undone(one, record, shuffled), STORED)


# --- strangers ----------------------------------------------------------------------------------

Edit = Callable[[Document], Document | None]

PAID = update("thing", "k", status="paid")

FOREIGN: dict[str, tuple[Document | None, Operation, Edit]] = {
    "a field that we set": (STORED, PAID, lambda now: {**now, "status": "stolen"}),
    "its type": (STORED, update("thing", "k", i32=1), lambda now: {**now, "i32": 1}),
    "a field that we unset": (
        STORED,
        update("thing", "k", unset=["status"]),
        lambda now: {**now, "status": None},
    ),
    "the version": (STORED, PAID, lambda now: {**now, "version": Int64(now["version"] + 1)}),
    "the document is gone": (STORED, PAID, lambda _: None),
    "an insert differs anywhere": (
        None,
        insert("thing", "k", status="x"),
        lambda now: {**now, "other": 1},
    ),
    "an incremented field holds no number": (
        STORED,
        update("thing", "k", increment={"i32": 1}),
        lambda now: {**now, "i32": "many"},
    ),
    "an incremented field is gone": (
        STORED,
        update("thing", "k", increment={"i32": 1}),
        lambda now: {name: each for name, each in now.items() if name != "i32"},
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_strangers_write_parks(name: str) -> None:  # F28, F29
    stored, operation, edit = FOREIGN[name]
    one, record, current = applied(things(), stored, operation)
    assert current is not None
    assert undone(one, record, edit(current)) is ErrorCode.FOREIGN_WRITE


@pytest.mark.parametrize("name", FOREIGN)
def test_skip_leaves_what_the_stranger_left(name: str) -> None:  # F29
    stored, operation, edit = FOREIGN[name]
    one, record, current = applied(things(ForeignWritePolicy.SKIP), stored, operation)
    assert current is not None
    changed = edit(current)
    assert undone(one, record, changed) == changed


def test_a_deleted_document_that_is_there_again_is_foreign() -> None:  # F28
    one, record, _ = applied(things(), STORED, delete("thing", "k"))
    assert undone(one, record, STORED) is ErrorCode.FOREIGN_WRITE


def test_an_inserted_document_that_is_gone_already_is_not_foreign() -> None:
    one, record, _ = applied(things(), None, insert("thing", "k"))
    assert undone(one, record, None) is None


def test_other_fields_stay_as_the_stranger_left_them() -> None:  # F28
    one, record, current = applied(things(), STORED, update("thing", "k", status="paid", note="x"))
    assert current is not None
    del current["unmapped"]
    left = undone(one, record, {**current, "i32": 99, "new": [1]})
    assert left == {
        **{name: each for name, each in STORED.items() if name != "unmapped"},
        "i32": 99,
        "new": [1],
    }


@pytest.mark.parametrize(
    ("name", "delta", "now", "expected"),
    [
        ("i32", 10, Int64(16), 6),
        ("i32", 10, Int64(2**40), Int64(2**40 - 10)),
        ("double", 2, Int64(10), 8.0),
        ("amount", Decimal("0.50"), Decimal128("20.5"), Decimal128("20.00")),
    ],
)
def test_increments_are_undone_by_the_inverse_delta_in_the_type_of_before(  # F27, F28
    name: str, delta: Any, now: Any, expected: Any
) -> None:
    one, record, current = applied(things(), STORED, update("thing", "k", increment={name: delta}))
    assert current is not None
    left = undone(one, record, {**current, name: now})
    identical(left, {**STORED, name: expected})


def test_an_inverse_delta_that_does_not_fit_fails_the_undo() -> None:
    one, record, current = applied(things(), STORED, update("thing", "k", increment={"i32": -10}))
    assert current is not None
    full = {**current, "i32": Int64(2**63 - 1)}
    assert undone(one, record, full) is ErrorCode.UNDO_FAILED


def test_force_before_values_win_and_the_version_goes_on() -> None:  # F29
    one, record, current = applied(
        things(ForeignWritePolicy.FORCE),
        STORED,
        update("thing", "k", status="paid", increment={"i32": 10}),
    )
    assert current is not None
    changed = {**current, "status": "stolen", "i32": Int64(20), "note": "kept", "version": Int64(9)}
    assert undone(one, record, changed) == {**STORED, "i32": 10, "note": "kept", "version": 10}


def test_force_brings_a_deleted_document_back_and_lets_an_inserted_one_go() -> None:  # F29
    forced = things(ForeignWritePolicy.FORCE)
    one, record, current = applied(forced, STORED, PAID)
    assert current is not None
    assert undone(one, record, None) == {**STORED, "version": current["version"] + 1}
    one, record, _ = applied(forced, STORED, delete("thing", "k"))
    again = {"_id": "k", "status": "another", "version": Int64(1)}
    assert undone(one, record, again) == {**STORED, "version": 2}
    one, record, current = applied(forced, None, insert("thing", "k"))
    assert current is not None
    assert undone(one, record, {**current, "status": "x"}) is None


def test_parking_leaves_the_whole_branch() -> None:  # F29
    of = things()
    one = unit(mapping(of), PAID, update("thing", "l", status="paid"))
    documents = Documents()
    (needed,) = wanted("catalog", [one])
    documents.take(needed, [bson.encode(STORED), bson.encode({**STORED, "_id": "l"})])
    (branch,), _ = decide("catalog", IDENTITY, [one], documents)
    _, found = read_record(branch.record)
    left = bson.encode({**STORED, "status": "paid", "version": Int64(4)})
    decided = decide_undo(one, found.keys(), {("things", "k"): None, ("things", "l"): left})
    assert isinstance(decided, Problem)


# --- the sender's own undo (F25) ----------------------------------------------------------------


def test_own_undo_acts_on_the_current_document_and_bumps_the_version() -> None:
    own = undone_by(PAID, update("thing", "k", status="void"))
    one, record, current = applied(things(), STORED, own)
    assert current is not None
    left = undone(one, record, {**current, "note": "a stranger's"})
    assert left == {**STORED, "status": "void", "note": "a stranger's", "version": 5}


def test_own_undo_does_not_overwrite_a_stranger() -> None:  # I6
    own = undone_by(PAID, update("thing", "k", status="void"))
    one, record, current = applied(things(), STORED, own)
    assert current is not None
    assert undone(one, record, {**current, "status": "stolen"}) is ErrorCode.FOREIGN_WRITE


def test_own_undo_that_is_refused_fails_the_undo() -> None:
    own = undone_by(PAID, update("thing", "k", increment={"note": 1}))
    one, record, current = applied(things(), {**STORED, "note": None}, own)
    assert undone(one, record, current) is ErrorCode.UNDO_FAILED


def test_own_undo_may_delete_or_insert() -> None:
    own = undone_by(insert("thing", "k", status="x"), delete("thing", "k"))
    one, record, current = applied(things(), None, own)
    assert undone(one, record, current) is None
    own = undone_by(delete("thing", "k"), insert("thing", "k", status="void"))
    one, record, current = applied(things(), STORED, own)
    assert undone(one, record, current) == {"_id": "k", "status": "void", "version": 1}


def test_both_kinds_on_one_key_are_undone_one_after_the_other_backwards() -> None:
    one, record, current = applied(
        things(),
        STORED,
        update("thing", "k", note="first"),
        undone_by(update("thing", "k", status="paid"), update("thing", "k", status="void")),
        update("thing", "k", increment={"i32": 1}),
    )
    assert undone(one, record, current) == {**STORED, "status": "void", "version": 7}
