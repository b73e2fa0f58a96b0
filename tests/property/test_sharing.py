"""Sharers of a key: whoever is undone, and when, bounds hold and images follow each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import combinations
from typing import Any

import bson
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.domain.decide import Image, ImageKey, decide_branch
from coordinator.domain.entity import Field, FieldType, ForeignWritePolicy, StoreKind
from coordinator.domain.errors import Problem
from coordinator.domain.operation import Unit
from coordinator.domain.sharing import (
    Escrow,
    Line,
    Member,
    Share,
    Verdict,
    images_of,
    member_of,
)
from coordinator.domain.storable import MONGODB_LIMITS
from coordinator.participants.mongodb.branches import Documents, decide, wanted
from coordinator.participants.mongodb.elements import EXACT
from coordinator.participants.mongodb.shared_undo import SharedUndo
from coordinator.participants.mongodb.shares import KeyShare, Sharing, done_again, read_share
from coordinator.participants.mongodb.undo import decide_undo
from coordinator.participants.mongodb.undo_record import Identity, KeyUndo, read_record
from coordinator.participants.mongodb.writes import DocumentWrite, WriteKind
from tests.units import entity, mapping, unit, update

AT: ImageKey = ("wallet", '"k"')
LEAST, MOST = -4, 12
WALLET = entity(
    "wallet",
    {
        "_id": FieldType.STRING,
        "n": Field("n", FieldType.INTEGER, min=LEAST, max=MOST),
        "money": Field(
            "money",
            FieldType.DECIMAL,
            min=Decimal(LEAST),
            limits=MONGODB_LIMITS[FieldType.DECIMAL],
        ),
        "free": Field("free", FieldType.DECIMAL, limits=MONGODB_LIMITS[FieldType.DECIMAL]),
    },
    store="catalog",
    kind=StoreKind.MONGODB,
    key="_id",
    table="wallets",
)
SHOP = mapping(WALLET)

COUNTS = st.integers(-9, 9)
AMOUNTS = st.decimals(-9, 9, places=2) | st.sampled_from([Decimal("0.5"), Decimal("-1E+1")])
WIDE = st.sampled_from(
    [Decimal(text) for text in ("1E+33", "-1E+33", "0.01", "-0.01", "0.5", "0.50", "7E+10")]
)
DELTAS = st.fixed_dictionaries({}, optional={"n": COUNTS, "money": AMOUNTS, "free": WIDE}).filter(
    bool
)
SHARERS = st.lists(st.lists(DELTAS, min_size=1, max_size=2), min_size=2, max_size=6)


def sharer(deltas: Sequence[dict[str, Any]]) -> Unit:
    return unit(SHOP, *(update("wallet", "k", increment=each) for each in deltas))


def line_of(units: Sequence[Unit]) -> Line:
    line = Line.of(units)
    assert line is not None
    return line


def outcomes(units: Sequence[Unit], image: Image) -> Iterator[Image]:
    """What the row may be once some of these have committed and the others are undone."""
    for count in range(len(units) + 1):
        for chosen in combinations(units, count):
            row: dict[str, Any] = dict(image)
            for each in chosen:
                decided = decide_branch(each, "catalog", {AT: row})
                assert not isinstance(decided, Problem), (
                    "one that passed does not pass in all cases"
                )
                after = decided[-1].after
                assert after is not None
                row = dict(after)
            yield row


@settings(deadline=None)
@given(SHARERS, COUNTS, AMOUNTS)
def test_who_passes_passes_whoever_is_undone(
    given_sharers: list[list[dict[str, Any]]], n: int, money: Decimal
) -> None:
    """F23: at every moment, in every order of commits and undos, the counters are in bounds."""
    base: Image = {"_id": "k", "n": n, "money": money, "free": Decimal(0), "version": 1}
    units = [sharer(each) for each in given_sharers]
    escrow = Escrow(line_of(units))
    images: dict[ImageKey, Image | None] = {AT: base}
    passed: list[Unit] = []
    for each in units:
        cases = [decide_branch(each, "catalog", {AT: row}) for row in outcomes(passed, base)]
        verdict = escrow.judge(each, "catalog", images)
        decided = escrow.decide(each, "catalog", images)
        if decided is None:
            assert verdict is Verdict.WAITS
            continue
        if isinstance(decided, Problem):
            assert all(isinstance(case, Problem) for case in cases)
            continue
        assert not any(isinstance(case, Problem) for case in cases)
        images[AT] = decided[-1].after
        passed.append(each)


@settings(deadline=None)
@given(st.lists(COUNTS, min_size=2, max_size=6), COUNTS)
def test_nobody_waits_for_nothing(deltas: list[int], n: int) -> None:
    """Who waits would pass if some of those before it were not there, and would not if others."""
    base: Image = {"_id": "k", "n": n, "money": Decimal(0), "free": Decimal(0), "version": 1}
    units = [sharer([{"n": delta}]) for delta in deltas]
    escrow = Escrow(line_of(units))
    images: dict[ImageKey, Image | None] = {AT: base}
    passed: list[Unit] = []
    for each in units:
        cases = {
            isinstance(decide_branch(each, "catalog", {AT: row}), Problem)
            for row in outcomes(passed, base)
        }
        decided = escrow.decide(each, "catalog", images)
        if decided is None:
            assert cases == {False, True}
        elif not isinstance(decided, Problem):
            assert cases == {False}
            images[AT] = decided[-1].after
            passed.append(each)


@settings(deadline=None)
@given(st.lists(st.tuples(COUNTS, st.integers(1, 3)), min_size=1, max_size=6), st.data())
def test_images_follow_each_other_over_those_that_are_left(
    made: list[tuple[int, int]], data: st.DataObject
) -> None:
    """I8: what is told of the sharers that commit is as if the undone had never been."""
    units = [sharer([{"n": delta}] * writes) for delta, writes in made]
    base: Image = {"_id": "k", "n": 5, "money": Decimal(1), "free": None, "version": 7}
    members = [member_of(each, each.plan.operations) for each in units]
    share = Share.begin(base, "version", members)
    for seq in data.draw(st.sets(st.sampled_from([each.seq for each in units]))):
        share = share.without(seq)
    before: dict[str, Any] = dict(base)
    for each in units:
        if share.member(each.seq) is None:
            continue
        operations = list(enumerate(each.plan.operations))
        for _, told_before, told_after in images_of(share, each.seq, "version", base, operations):
            assert told_before == before
            before = dict(told_after)
    assert before["n"] == share.value("n")
    assert before["version"] == share.version_left()


# --- in documents -------------------------------------------------------------------------------

IDENTITY = Identity("j", 1, datetime(2026, 1, 2, tzinfo=UTC))
DOCUMENTS = st.fixed_dictionaries(
    {
        "_id": st.just("k"),
        "n": st.sampled_from([5, 5.0, Int64(5)]),
        "other": st.just({"$odd": [1, None]}),
        "money": st.sampled_from([Decimal128("10.0"), Decimal128("10.000"), Decimal128("1E+1")]),
    },
    optional={"version": st.sampled_from([3, 3.0, Int64(3), None]), "note": st.just("x")},
)


def written(stored: dict[str, Any] | None, writes: Sequence[DocumentWrite]) -> Any:
    """What MongoDB makes of the writes."""
    for write in writes:
        body: Any = bson.decode(bson.encode(write.body), EXACT)
        assert write.kind is WriteKind.UPDATE
        assert stored is not None
        stored = {**stored, **body["u"]["$set"]} if "$set" in body["u"] else body["u"]
    return stored


class Collection:
    """One document, and what the participant keeps beside it."""

    def __init__(self, document: dict[str, Any], units: Sequence[Unit]) -> None:
        self.document = document
        documents = Documents()
        (needed,) = wanted("catalog", units)
        documents.take(needed, [bson.encode(document)])
        sharing = Sharing(line_of(units), "catalog", "j")
        self.branches, refused = decide("catalog", IDENTITY, units, documents, sharing)
        assert not refused
        assert not sharing.behind
        writes = [*(w for each in self.branches for w in each.net_writes()), *sharing.net_writes()]
        assert len(writes) == 1, "one write for all of them"
        in_order = [w for each in self.branches for w in each.writes_in_order()]
        assert written(document, writes) == written(document, in_order)
        self.document = written(document, writes)
        self.records = {each.unit.seq: read_record(each.record)[1].keys() for each in self.branches}
        self.shares = self._kept(sharing.shares())

    def _kept(self, shares: Any) -> dict[str, KeyShare]:
        return {
            each.id: read_share(bson.encode(each.document()))
            for each in shares
            if each.share.members
        }

    def undo(self, units: Sequence[Unit]) -> Problem | None:
        raws = {("wallets", "k"): bson.encode(self.document)}
        shared = SharedUndo(dict(self.shares))
        for each in units:
            decided = decide_undo(each, self.records[each.seq], raws, shared)
            if isinstance(decided, Problem):
                return decided
            assert not decided
        assert written(self.document, shared.in_order) == written(
            self.document, shared.net_writes()
        )
        self.document = written(self.document, shared.net_writes())
        self.shares = self._kept(shared.shares.values())
        return None


SMALL = st.lists(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={"n": st.integers(0, 1), "money": st.decimals(0, 2, places=3)},
        ).filter(bool),
        min_size=1,
        max_size=2,
    ),
    min_size=2,
    max_size=4,
)


@settings(deadline=None)
@given(DOCUMENTS, SMALL, st.data())
def test_a_shared_document_comes_back_byte_for_byte(
    document: dict[str, Any], made: list[list[dict[str, Any]]], data: st.DataObject
) -> None:
    """F21, F27: all undone, in any order and any batches, leave what was there before them."""
    units = [sharer(each) for each in made]
    place = Collection(document, units)
    rest = data.draw(st.permutations(units))
    while rest:
        count = data.draw(st.integers(1, len(rest)))
        part = sorted(rest[:count], key=lambda each: -each.seq)
        rest = rest[count:]
        assert place.undo(part) is None
    assert not place.shares
    assert bson.encode(place.document) == bson.encode(document)


@settings(deadline=None)
@given(DOCUMENTS, SMALL, st.data())
def test_without_the_undone_a_document_is_as_if_they_had_never_been(
    document: dict[str, Any], made: list[list[dict[str, Any]]], data: st.DataObject
) -> None:
    """I8, F21: the row, its version and the images of those that are left."""
    units = [sharer(each) for each in made]
    seqs = [each.seq for each in units]
    gone = data.draw(st.sets(st.sampled_from(seqs), max_size=len(units) - 2))
    place = Collection(document, units)
    assert place.undo([each for each in reversed(units) if each.seq in gone]) is None
    left = [each for each in units if each.seq not in gone]
    never = Collection(document, left)
    assert bson.encode(place.document) == bson.encode(never.document)
    (share,) = place.shares.values()
    for each, expected in zip(left, never.branches, strict=True):
        (key,) = place.records[each.seq]
        applied = next(one for one in place.branches if one.unit is each)
        assert done_again(each, key, share, applied.done) == expected.done


def test_a_strangers_version_parks_every_sharer() -> None:
    """F28: the version that we left on a shared key is that after our last write or undo."""
    units = [sharer([{"n": 1}]) for _ in range(3)]
    place = Collection({"_id": "k", "n": 5, "money": Decimal128("1"), "version": 3}, units)
    assert place.undo([units[1]]) is None
    place.document["version"] += 1
    for each in (units[0], units[2]):
        problem = place.undo([each])
        assert problem is not None
        assert problem.code == "foreign_write"


def test_forced_undo_goes_on_from_the_strangers_version() -> None:
    """F29: increments by delta, version plus one, for each of them."""
    units = [sharer([{"n": 1}]) for _ in range(2)]
    place = Collection({"_id": "k", "n": 5, "money": Decimal128("1"), "version": 3}, units)
    place.records = {
        seq: tuple(_forced(key) for key in keys) for seq, keys in place.records.items()
    }
    place.document.update({"version": 20, "n": 107})
    assert place.undo([units[1]]) is None
    assert (place.document["n"], place.document["version"]) == (106, 21)
    assert place.undo([units[0]]) is None
    assert place.document["n"] == 105


def _forced(key: KeyUndo) -> KeyUndo:
    return replace(key, policy=ForeignWritePolicy.FORCE)


def test_what_a_person_has_ended_counts_no_more() -> None:
    """F41: a parked sharer that was resolved by hand is left out of what comes after it."""
    first, second = sharer([{"n": 2}]), sharer([{"n": 3}])
    share = Share(
        {"n": 10},
        1,
        (Member(first.seq, "a", {"n": 2}, 1, True), Member(second.seq, "b", {"n": 3}, 1)),
    )
    still = share.settled(frozenset({first.seq, second.seq}), 9)
    assert still is share
    later = share.settled(frozenset({second.seq}), 9)
    assert (later.value("n"), later.version_left()) == (13, 9)
