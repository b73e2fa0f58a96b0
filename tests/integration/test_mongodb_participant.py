"""The MongoDB participant on a real mongod, with both drivers: the contract of the port.

Cites the fine print (F), the invariants (I) and the protocol's rules. A "stranger" is a client
that is not the coordinator; it writes with PyMongo's own client.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import bson
import pymongo
import pymongo.monitoring
import pytest
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from coordinator.domain.decide import Effect, Image, decide_branch
from coordinator.domain.entity import Entity, FieldType, ForeignWritePolicy, StoreKind
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import (
    BatchRefused,
    ErrorCode,
    Fenced,
    Problem,
    ResultUnknown,
    StoreBusy,
    StoreUnavailable,
)
from coordinator.domain.json_value import JsonText
from coordinator.domain.operation import Operation, Unit
from coordinator.domain.preview import Preview
from coordinator.engine.halving import try_in_parts
from coordinator.engine.ports import Applied, Participant, Undone
from coordinator.participants.mongodb import participant as mongodb_participant
from coordinator.participants.mongodb.bookkeeping import FENCES, SHARES, UNDO, MongodbServerView
from coordinator.participants.mongodb.driver import Driver, open_driver
from coordinator.participants.mongodb.participant import MongodbParticipant
from tests.units import (
    check,
    delete,
    entity,
    equals,
    insert,
    mapping,
    undone_by,
    unit,
    update,
    upsert,
)

pytestmark = pytest.mark.integration

STORE = "catalog"
JOURNAL = "journal-1"
WORKER = 7


def things(
    policy: ForeignWritePolicy = ForeignWritePolicy.PARK, name: str = "thing", table: str = "things"
) -> Entity:
    return entity(
        name,
        {
            "_id": FieldType.STRING,
            "n": FieldType.INTEGER,
            "amount": FieldType.DECIMAL,
            "ratio": FieldType.FLOAT,
            "email": FieldType.STRING,
            "status": FieldType.STRING,
            "at": FieldType.TIMESTAMP,
            "body": FieldType.JSON,
        },
        store=STORE,
        kind=StoreKind.MONGODB,
        key="_id",
        table=table,
        on_foreign_write=policy,
    )


THING = things()
MAPPING = mapping(THING, things(name="other", table="others"))

STORED: dict[str, Any] = {
    "_id": "k",
    "unmapped": {"z": 1, "a": [Int64(1), 1.0, Decimal128("1.10"), None]},
    "status": "open",
    "n": 5,
    "amount": Decimal128("10.00"),
    "nothing": None,
    "ratio": 0.1,
    "version": 3,
}


def one(*operations: Operation, of: EntityMapping = MAPPING) -> Unit:
    return unit(of, *operations)


@dataclass
class Place:
    """A database, a stranger's client on it, and a participant that is enrolled."""

    uri: str
    name: str
    kind: str
    client: pymongo.MongoClient[dict[str, Any]]
    participant: MongodbParticipant
    opened: list[MongodbParticipant]

    @property
    def things(self) -> Any:
        return self.client[self.name]["things"]

    @property
    def undo(self) -> Any:
        return self.client[self.name][UNDO]

    def raw(self, key: str = "k") -> bytes | None:
        """The document as it is stored, byte for byte."""
        codec = bson.CodecOptions(document_class=RawBSONDocument)
        found = self.things.with_options(codec_options=codec).find_one({"_id": key})
        return None if found is None else bytes(found.raw)

    def put(self, document: dict[str, Any]) -> bytes:
        """Store a document; give it back as it is stored."""
        self.things.replace_one({"_id": document["_id"]}, document, upsert=True)
        raw = self.raw(document["_id"])
        assert raw is not None
        return raw

    def open(self, timeout_seconds: float = 5.0) -> MongodbParticipant:
        """Open another participant, as another daemon would."""
        driver = open_driver(self.uri, self.name, self.kind)
        opened = MongodbParticipant(
            STORE, driver, JOURNAL, transaction_timeout_seconds=timeout_seconds
        )
        self.opened.append(opened)
        return opened


@pytest.fixture(params=["motor", "pymongo"])
async def place(
    request: pytest.FixtureRequest, mongodb_database: tuple[str, str]
) -> AsyncIterator[Place]:
    uri, name = mongodb_database
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        driver = open_driver(uri, name, request.param)
        participant = MongodbParticipant(STORE, driver, JOURNAL)
        await participant.prepare(["things", "others"])
        await participant.enrol(WORKER, 2)
        found = Place(uri, name, request.param, client, participant, [participant])
        yield found
        for each in found.opened:
            await each.close()


async def applied(place: Place, one: Unit) -> Applied:
    return await place.participant.apply(0, [one])


async def done(place: Place, one: Unit) -> None:
    result = await applied(place, one)
    assert result.done.keys() == {one.seq}, result


async def undone(place: Place, one: Unit) -> Undone:
    return (await place.participant.compensate(0, [one]))[one.seq]


# --- start --------------------------------------------------------------------------------------


async def test_it_is_a_participant(place: Place) -> None:
    port: Participant = place.participant
    assert port.store == STORE
    await port.ping()


async def test_prepare_makes_what_is_missing_and_can_be_repeated(place: Place) -> None:  # F35, F37
    await place.participant.prepare(["things", "fresh"])
    view = MongodbServerView(open_driver(place.uri, place.name, place.kind), STORE)
    names = {each["name"] for each in await view.list_collections()}
    assert {"things", "others", "fresh", UNDO, FENCES} <= names
    assert (await view.hello())["setName"]
    await view._driver.close()


async def test_a_server_that_is_away_is_unavailable(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        uri = f"mongodb://user:hunter2@127.0.0.1:{port}/?replicaSet=rs0"
        driver = open_driver(uri, place.name, place.kind, selection_timeout_seconds=0.3)
        participant = MongodbParticipant(STORE, driver, JOURNAL)
        started = time.monotonic()
        with pytest.raises(StoreUnavailable) as error:
            await participant.ping()
        assert time.monotonic() - started < 5
        assert "hunter2" not in str(error.value)  # F39
        await participant.close()


# --- load ---------------------------------------------------------------------------------------


async def test_load_gives_every_key_an_image_or_none(place: Place) -> None:
    place.put({**STORED, "amount": "12"})
    images = (await place.participant.load([one(check("thing", "k"), check("other", "o"))])).images
    assert images[("other", '"o"')] is None
    image = images[("thing", '"k"')]
    assert image is not None
    assert (image["n"], image["status"], image["email"], image["version"]) == (5, "open", None, 3)
    # F33: shown, but not of the declared type
    assert image["amount"].shown == "12"


async def test_load_sees_what_was_just_applied(place: Place) -> None:
    await done(place, one(insert("thing", "k", n=1)))
    images = (await place.participant.load([one(check("thing", "k"))])).images
    image = images[("thing", '"k"')]
    assert image is not None
    assert image["n"] == 1


async def test_what_was_decided_on_a_preview_holds_only_for_documents_as_they_were(
    place: Place,
) -> None:
    """Each is decided on the document in the transaction; images show it to the last digit."""
    for name in ("same", "written", "gone"):
        place.put({**STORED, "_id": name})
    units = [
        *(one(update("thing", name, increment={"n": -4})) for name in ("same", "written", "gone")),
        one(insert("thing", "new", n=1)),
        one(insert("thing", "taken", n=1)),
    ]
    loaded = await place.participant.load(units)
    decided = {each.seq: decide_branch(each, STORE, loaded.images) for each in units}
    writes = {seq: each for seq, each in decided.items() if not isinstance(each, Problem)}
    assert len(writes) == len(units)
    place.things.update_one({"_id": "written"}, {"$set": {"amount": Decimal128("10.000")}})
    place.things.delete_one({"_id": "gone"})
    place.put({**STORED, "_id": "taken"})
    preview = Preview(loaded.images, loaded.rows, writes)
    applied = await place.participant.apply(0, units, preview)
    assert {seq: each.code for seq, each in applied.refused.items()} == {
        units[2].seq: ErrorCode.NOT_FOUND,
        units[4].seq: ErrorCode.ALREADY_EXISTS,
    }
    befores = [json.loads(applied.done[each.seq][0].before or b"null") for each in units[:2]]
    assert [each["amount"] for each in befores] == ["10.00", "10.000"]
    assert [place.things.find_one({"_id": name})["n"] for name in ("same", "written", "new")] == [
        1, 1, 1
    ]  # fmt: skip


async def test_a_first_attempt_that_finds_a_tombstone_after_all_is_tried_again(
    place: Place,
) -> None:
    """Rule 1: a first attempt does not look for records, and is stopped by them all the same."""
    late, in_time = one(insert("thing", "late", n=1)), one(insert("thing", "in time", n=1))
    loaded = await place.participant.load([late, in_time])
    writes = {
        each.seq: decided
        for each in (late, in_time)
        if not isinstance(decided := decide_branch(each, STORE, loaded.images), Problem)
    }
    preview = Preview(loaded.images, loaded.rows, writes)
    await place.participant.compensate(0, [late])
    with pytest.raises(StoreBusy) as busy:
        await place.participant.apply(0, [late, in_time], preview)
    assert busy.value.units == {late.seq}
    assert place.raw("in time") is None
    assert (await place.participant.apply(0, [late])).blocked == {late.seq}
    assert in_time.seq in (await place.participant.apply(0, [in_time], preview)).done


async def test_keys_are_found_whatever_number_type_they_have(place: Place) -> None:  # F32
    numbered = mapping(
        entity(
            "numbered",
            {"_id": FieldType.INTEGER, "n": FieldType.INTEGER},
            store=STORE,
            kind=StoreKind.MONGODB,
            key="_id",
            table="things",
        )
    )
    place.things.insert_many([{"_id": 1}, {"_id": Int64(2)}, {"_id": 3.0}])
    written = one(*(update("numbered", key, n=key) for key in (1, 2, 3)), of=numbered)
    await done(place, written)
    assert [each["n"] for each in place.things.find().sort("_id")] == [1, 2, 3]
    assert await undone(place, written) == Undone(wrote=True)
    assert list(place.things.find().sort("_id")) == [{"_id": 1}, {"_id": 2}, {"_id": 3.0}]


# --- apply --------------------------------------------------------------------------------------


async def test_insert_writes_the_key_the_given_fields_in_order_and_version_1(place: Place) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    inserted = one(
        insert(
            "thing", "k", body=JsonText('{"b":1,"a":2.0}'), at=at, email=None, n=7, ratio=float(2)
        )
    )
    result = await applied(place, inserted)
    raw = place.raw()
    assert raw is not None
    expected = {
        "_id": "k",
        "n": Int64(7),
        "ratio": 2.0,
        "email": None,
        "at": at,
        "body": {"b": Int64(1), "a": 2.0},
        "version": Int64(1),
    }
    assert raw == bson.encode(expected)  # F16: types and order, null stored, the rest absent
    (what,) = result.done[inserted.seq]
    assert (what.effect, what.before, what.version) == (Effect.CREATED, None, 1)
    assert json.loads(what.after or b"") == {  # F34: all declared fields and the version
        "_id": "k",
        "n": 7,
        "amount": None,
        "ratio": 2.0,
        "email": None,
        "status": None,
        "at": "2026-01-02T03:04:05.678Z",
        "body": {"b": 1, "a": 2.0},
        "version": 1,
    }


async def test_every_kind_of_operation(place: Place) -> None:
    place.put(STORED)
    place.put({"_id": "gone", "version": Int64(4)})
    batch = one(
        update("thing", "k", unset=["status"], increment={"amount": Decimal("2.50")}, n=6),
        upsert("thing", "new", defaults={"status": "fresh"}, n=1),
        delete("thing", "gone"),
        delete("thing", "never", ignore_missing=True),
        check("thing", "k", equals("n", 6)),
        insert("other", "o", n=1),
    )
    result = await applied(place, batch)
    assert [(each.effect.value, each.version) for each in result.done[batch.seq]] == [
        ("u", 4),
        ("c", 1),
        ("d", None),
        ("-", None),
        ("-", 4),
        ("c", 1),
    ]
    now = place.things.find_one({"_id": "k"})
    assert (now["n"], now["amount"], now["version"]) == (6, Decimal128("12.50"), 4)
    assert "status" not in now
    assert now["unmapped"] == STORED["unmapped"]
    assert place.things.find_one({"_id": "new"}) == {
        "_id": "new",
        "n": 1,
        "status": "fresh",
        "version": 1,
    }
    assert place.raw("gone") is None


async def test_operations_on_one_key_act_in_order(place: Place) -> None:  # F14
    place.put(STORED)
    batch = one(
        update("thing", "k", n=1, increment={"amount": Decimal(1)}),
        check("thing", "k", equals("n", 1)),
        delete("thing", "k"),
        insert("thing", "k", n=2),
        update("thing", "k", increment={"n": 40}),
    )
    result = await applied(place, batch)
    images = [
        (json.loads(each.before or b"{}").get("n"), json.loads(each.after or b"{}").get("n"))
        for each in result.done[batch.seq]
        if each.effect is not Effect.NOTHING
    ]
    assert images == [(5, 1), (1, None), (None, 2), (2, 42)]
    assert [each.version for each in result.done[batch.seq]] == [4, 4, None, 1, 2]
    assert place.things.find_one() == {"_id": "k", "n": 42, "version": 2}


async def test_a_refused_unit_leaves_nothing_and_the_others_go_on(place: Place) -> None:
    place.put(STORED)
    bad = one(insert("thing", "x"), check("thing", "k", equals("n", 6)))
    good = one(update("thing", "k", n=6))
    missing = one(update("thing", "nowhere", n=1))
    result = await place.participant.apply(0, [bad, good, missing])
    assert result.refused[bad.seq].code is ErrorCode.EXPECTATION_FAILED
    assert result.refused[bad.seq].path == "operations.1.expect.n"
    assert result.refused[missing.seq].code is ErrorCode.NOT_FOUND
    assert result.done.keys() == {good.seq}
    assert place.raw("x") is None
    assert place.undo.count_documents({}) == 1


async def test_applied_twice_takes_effect_once_and_tells_the_same(place: Place) -> None:  # I3
    place.put(STORED)
    # Its own write makes its expectation fail (rule 7).
    batch = one(
        update("thing", "k", expect=[equals("n", 5)], n=6),
        check("thing", "z", absent=True),
    )
    first = await applied(place, batch)
    raw = place.raw()
    second = await place.participant.apply(1, [batch])
    assert second == first
    assert place.raw() == raw
    # Also when a stranger has deleted the document meanwhile.
    place.things.delete_one({"_id": "k"})
    assert (await applied(place, batch)).done == first.done


async def test_a_branch_of_checks_only_answers_the_same_again(place: Place) -> None:  # rule 7
    place.put(STORED)
    looked = one(check("thing", "k", equals("n", 5)))
    first = await applied(place, looked)
    place.things.update_one({"_id": "k"}, {"$set": {"n": 6}})
    assert (await applied(place, looked)).done == first.done
    assert await undone(place, looked) == Undone(wrote=False)  # F6


async def test_another_content_under_the_same_id_is_not_taken_for_applied(place: Place) -> None:
    await done(place, unit(MAPPING, insert("thing", "k"), id="same"))
    other = unit(MAPPING, insert("thing", "l"), id="same")
    assert (await applied(place, other)).refused[other.seq].code is ErrorCode.ID_REUSED
    assert await undone(place, other) == Undone(wrote=False)
    assert place.raw("k") is not None


async def test_client_data_never_becomes_an_operator(place: Place) -> None:  # I10
    text = JsonText('{"$inc":{"n":1},"$set":{"n":2},"a.b":[{"$gt":""}]}')
    batch = one(insert("thing", "k", n=1, status="$n", body=text), update("thing", "k", body=text))
    await done(place, batch)
    now = place.things.find_one()
    assert (now["n"], now["status"], now["body"]) == (1, "$n", json.loads(text))
    await done(place, one(insert("thing", "$where", n=1)))
    assert place.things.count_documents({}) == 2


async def test_load_and_decide_agree_with_apply(place: Place) -> None:
    place.put(STORED)
    batch = one(update("thing", "k", increment={"n": 1}))
    images: dict[tuple[str, str], Image | None] = dict(
        (await place.participant.load([batch])).images
    )
    decided = decide_branch(batch, STORE, images)
    assert not isinstance(decided, Problem)
    result = await applied(place, batch)
    assert json.loads(result.done[batch.seq][0].after or b"")["n"] == 6


# --- compensate ---------------------------------------------------------------------------------

CHANGES: dict[str, list[Operation]] = {
    "set": [update("thing", "k", status="paid", n=1, ratio=2.0, amount=Decimal(1))],
    "set what was absent": [update("thing", "k", email="x")],
    "unset": [update("thing", "k", unset=["status", "amount"])],
    "increment": [update("thing", "k", increment={"n": 1, "amount": Decimal("0.10")})],
    "upsert": [upsert("thing", "k", status="paid")],
    "delete": [delete("thing", "k")],
    "delete and insert": [delete("thing", "k"), insert("thing", "k", n=1)],
    "several": [
        update("thing", "k", status="1"),
        update("thing", "k", increment={"n": 4}),
        delete("thing", "k"),
        upsert("thing", "k", amount=Decimal(9)),
    ],
}


@pytest.mark.parametrize("name", CHANGES)
async def test_undo_brings_the_very_document_back(place: Place, name: str) -> None:  # F27, F21
    before = place.put(STORED)
    batch = one(*CHANGES[name])
    await done(place, batch)
    assert place.raw() != before
    assert await undone(place, batch) == Undone(wrote=True)
    assert place.raw() == before
    # Again: nothing more is changed, and the same is told (F6).
    place.things.update_one({"_id": "k"}, {"$set": {"status": "later"}})
    assert await undone(place, batch) == Undone(wrote=True)
    assert place.things.find_one()["status"] == "later"
    # And a late apply is blocked (rule 1).
    assert (await applied(place, batch)).blocked == {batch.seq}


async def test_undo_restores_names_that_look_like_operators(place: Place) -> None:  # F27
    document = {"_id": "k", "$odd": {"$x": 1}, "a.b": 2, "n": 1, "version": 1}
    place.things.insert_one(document)
    before = place.raw()
    batch = one(update("thing", "k", n=2))
    await done(place, batch)
    assert await undone(place, batch) == Undone(wrote=True)
    assert place.raw() == before


async def test_undo_of_an_insert_deletes(place: Place) -> None:
    batch = one(insert("thing", "k", n=1), insert("other", "k", n=1))
    await done(place, batch)
    assert await undone(place, batch) == Undone(wrote=True)
    assert place.raw() is None
    assert place.client[place.name]["others"].count_documents({}) == 0


async def test_compensating_what_was_never_applied_blocks_a_late_apply(place: Place) -> None:
    batch = one(insert("thing", "k"))
    assert await undone(place, batch) == Undone(wrote=False)  # rule 1
    assert await undone(place, batch) == Undone(wrote=False)
    late = await applied(place, batch)
    assert late.blocked == {batch.seq}
    assert late.done == {}
    assert place.raw() is None


async def test_a_late_apply_and_a_compensation_at_once_cannot_both_win(place: Place) -> None:
    for at in range(8):  # rule 1, I2
        batch = one(insert("thing", f"race-{at}"))
        outcomes = await asyncio.gather(
            place.participant.apply(0, [batch]),
            place.participant.compensate(1, [batch]),
            return_exceptions=True,
        )
        for each in outcomes:
            assert not isinstance(each, BaseException) or isinstance(each, StoreBusy), each
        while not await place.participant.compensate(1, [batch]):
            continue
        assert place.raw(f"race-{at}") is None


def forced(policy: ForeignWritePolicy) -> EntityMapping:
    return mapping(things(policy))


async def test_park_leaves_the_branch_as_a_whole(place: Place) -> None:  # F29
    place.put(STORED)
    batch = one(update("thing", "k", status="paid"), insert("other", "o", n=1))
    await done(place, batch)
    place.things.update_one({"_id": "k"}, {"$set": {"status": "stolen"}})
    raw = place.raw()
    found = await undone(place, batch)
    assert found.wrote
    assert found.problem is not None
    assert found.problem.code is ErrorCode.FOREIGN_WRITE
    assert (found.problem.path, found.problem.key) == ("operations.0", "k")
    assert place.raw() == raw
    assert place.client[place.name]["others"].count_documents({}) == 1
    # A person puts it right, and it is compensated after all (F11).
    place.things.update_one({"_id": "k"}, {"$set": {"status": "paid"}})
    assert await undone(place, batch) == Undone(wrote=True)
    assert place.things.find_one() == STORED
    assert place.client[place.name]["others"].count_documents({}) == 0


async def test_force_wins_over_the_stranger(place: Place) -> None:  # F29
    place.put(STORED)
    batch = one(
        update("thing", "k", status="paid", increment={"n": 10}),
        of=forced(ForeignWritePolicy.FORCE),
    )
    await done(place, batch)
    stranger = {"$set": {"status": "stolen", "email": "kept"}, "$inc": {"n": 1, "version": 1}}
    place.things.update_one({"_id": "k"}, stranger)
    assert await undone(place, batch) == Undone(wrote=True)
    assert place.things.find_one() == {**STORED, "n": 6, "email": "kept", "version": 6}


async def test_skip_leaves_the_document_to_the_stranger(place: Place) -> None:  # F29
    place.put(STORED)
    before = place.put({**STORED, "_id": "l"})
    batch = one(
        update("thing", "k", status="paid"),
        update("thing", "l", status="paid"),
        of=forced(ForeignWritePolicy.SKIP),
    )
    await done(place, batch)
    place.things.update_one({"_id": "k"}, {"$set": {"status": "stolen"}})
    raw = place.raw()
    assert await undone(place, batch) == Undone(wrote=True)
    assert (place.raw(), place.raw("l")) == (raw, before)


async def test_increments_of_a_stranger_survive_ours(place: Place) -> None:  # F28
    place.put(STORED)
    batch = one(update("thing", "k", increment={"n": 10, "amount": Decimal("1.50")}))
    await done(place, batch)
    place.things.update_one({"_id": "k"}, {"$inc": {"n": 100, "amount": Decimal128("0.25")}})
    assert await undone(place, batch) == Undone(wrote=True)
    now = place.things.find_one()
    assert now == {**STORED, "n": 105, "amount": Decimal128("10.25")}
    assert type(now["n"]) is int  # F27: an int32 again


async def test_own_undo_replaces_ours(place: Place) -> None:  # F25
    place.put(STORED)
    own = undone_by(update("thing", "k", status="paid"), update("thing", "k", status="void"))
    batch = one(own, insert("thing", "l"))
    await done(place, batch)
    assert await undone(place, batch) == Undone(wrote=True)
    assert place.things.find_one({"_id": "k"}) == {**STORED, "status": "void", "version": 5}
    assert place.raw("l") is None
    assert await undone(place, batch) == Undone(wrote=True)
    assert place.things.find_one({"_id": "k"})["version"] == 5


async def test_own_undo_that_is_refused_leaves_the_branch(place: Place) -> None:  # F25
    place.put(STORED)
    own = undone_by(update("thing", "k", status="paid"), update("thing", "k", increment={"at": 1}))
    batch = one(own)
    await done(place, batch)
    raw = place.raw()
    found = await undone(place, batch)
    assert found.problem is not None
    assert found.problem.code is ErrorCode.UNDO_FAILED
    assert place.raw() == raw


async def test_an_undo_that_the_store_refuses_undoes_nothing(place: Place) -> None:
    place.put({**STORED, "email": "a@x"})
    freed = one(update("thing", "k", email="b@x"))
    other = one(insert("thing", "l"))
    await done(place, freed)
    await done(place, other)
    place.things.create_index("email", unique=True, sparse=True)
    place.put({"_id": "stranger", "email": "a@x"})
    with pytest.raises(BatchRefused) as error:
        await place.participant.compensate(0, [other, freed])
    assert error.value.refusals.keys() == {freed.seq}
    assert place.raw("l") is not None


# --- what the store refuses ---------------------------------------------------------------------


async def test_a_unique_index_names_the_unit(place: Place) -> None:  # F33
    place.things.create_index("email", unique=True, sparse=True, name="by_email")
    place.put({"_id": "taken", "email": "secret@x"})
    first = one(insert("thing", "a", email="a@x"))
    bad = one(insert("thing", "z"), insert("thing", "b", email="secret@x"))
    with pytest.raises(BatchRefused) as error:
        await place.participant.apply(0, [first, bad])
    problem = error.value.refusals[bad.seq]
    assert error.value.refusals.keys() == {bad.seq}
    assert problem.code is ErrorCode.CONSTRAINT_VIOLATED
    assert (problem.path, problem.operation, problem.entity, problem.key) == (
        "operations.1",
        1,
        "thing",
        "b",
    )
    assert "by_email" in problem.message
    assert "secret" not in problem.message
    assert place.things.count_documents({}) == 1
    await done(place, first)


async def test_the_later_of_two_units_is_to_blame(place: Place) -> None:  # rule 9
    place.things.create_index("email", unique=True, sparse=True)
    place.put({"_id": "k"})
    first = one(insert("thing", "a", email="same"))
    second = one(update("thing", "k", email="same"))
    with pytest.raises(BatchRefused) as error:
        await place.participant.apply(0, [first, second])
    assert error.value.refusals.keys() == {second.seq}


async def test_operations_of_a_unit_may_hand_a_unique_value_on(place: Place) -> None:  # F14
    place.things.create_index("email", unique=True, sparse=True)
    place.put({"_id": "a", "email": "x", "version": Int64(1)})
    place.put({"_id": "b", "email": "y", "version": Int64(1)})
    place.put({"_id": "c", "email": "z", "version": Int64(1)})
    before = [place.raw(key) for key in "abc"]
    handed = one(
        update("thing", "a", unset=["email"]),
        update("thing", "b", email="x"),
        update("thing", "c", email="y"),
        update("thing", "a", email="z"),
    )
    await done(place, handed)
    assert [each["email"] for each in place.things.find().sort("_id")] == ["z", "x", "y"]
    with pytest.raises(BatchRefused):  # there is no order in which whole documents can go back
        await undone(place, handed)
    assert [place.raw(key) for key in "abc"] != before


async def test_a_validator_names_the_unit(place: Place) -> None:  # F33
    place.client[place.name].command(
        {"collMod": "things", "validator": {"n": {"$not": {"$gt": 100}}}}
    )
    good, bad = one(insert("thing", "a", n=1)), one(insert("thing", "b", n=101))
    with pytest.raises(BatchRefused) as error:
        await place.participant.apply(0, [good, bad])
    assert error.value.refusals[bad.seq].code is ErrorCode.CONSTRAINT_VIOLATED
    assert "validator" in error.value.refusals[bad.seq].message
    assert place.things.count_documents({}) == 0


async def test_what_does_not_fit_into_a_document_is_refused_alone(place: Place) -> None:  # I12
    big = "x" * (9 * 1024 * 1024)
    place.put({"_id": "big", "unmapped": big, "version": Int64(1)})
    place.put({"_id": "too", "unmapped": big, "version": Int64(1)})
    good = one(update("thing", "big", n=1))
    bad = one(update("thing", "big2", n=1), update("thing", "too", n=1))
    place.put({"_id": "big2", "unmapped": big, "version": Int64(1)})
    result = await place.participant.apply(0, [good, bad])
    assert result.done.keys() == {good.seq}
    assert result.refused[bad.seq].code is ErrorCode.TOO_LARGE
    assert place.things.find_one({"_id": "too"})["version"] == 1
    assert await undone(place, good) == Undone(wrote=True)


async def test_a_document_of_16_mb_is_refused_and_may_be_checked(place: Place) -> None:  # I12
    place.put({"_id": "k", "unmapped": "x" * (16 * 1024 * 1024 - 60), "version": Int64(1)})
    grown = one(update("thing", "k", status="y" * 100_000))
    assert (await applied(place, grown)).refused[grown.seq].code is ErrorCode.TOO_LARGE
    await done(place, one(check("thing", "k", equals("version", 1))))


async def test_a_version_that_cannot_grow_is_refused_alone(place: Place) -> None:  # I10
    place.put({"_id": "k", "version": Int64(2**63 - 1)})
    bad, good = one(update("thing", "k", n=1)), one(insert("thing", "l"))
    result = await place.participant.apply(0, [bad, good])
    assert result.refused[bad.seq].code is ErrorCode.OUT_OF_BOUNDS
    assert result.done.keys() == {good.seq}


# --- strangers that hold something --------------------------------------------------------------


async def test_a_document_in_a_strangers_transaction_is_busy_at_once(place: Place) -> None:
    place.put(STORED)
    busy, free = one(update("thing", "k", n=6)), one(insert("thing", "free"))
    with place.client.start_session() as session, session.start_transaction():
        place.things.update_one({"_id": "k"}, {"$set": {"n": 50}}, session=session)
        started = time.monotonic()
        with pytest.raises(StoreBusy):  # rule 9
            await place.participant.apply(0, [free, busy])
        assert time.monotonic() - started < 2
        assert place.raw("free") is None
        await done(place, free)
        session.abort_transaction()
    await done(place, busy)


async def test_an_insert_in_a_strangers_transaction_is_busy(place: Place) -> None:  # rule 9
    with place.client.start_session() as session, session.start_transaction():
        place.things.insert_one({"_id": "k"}, session=session)
        with pytest.raises(StoreBusy):
            await applied(place, one(insert("thing", "k")))
        session.abort_transaction()


async def test_one_busy_document_does_not_stop_a_compensation(place: Place) -> None:  # rule 9
    units = [one(insert("thing", f"k{at}", n=at)) for at in range(9)]
    await place.participant.apply(0, units)
    with place.client.start_session() as session, session.start_transaction():
        place.things.update_one({"_id": "k4"}, {"$set": {"ours": False}}, session=session)
        found = await place.participant.compensate(0, units)
        session.abort_transaction()
    assert found.keys() == {each.seq for each in units} - {units[4].seq}
    assert [each["_id"] for each in place.things.find()] == ["k4"]
    assert await undone(place, units[4]) == Undone(wrote=True)


async def test_a_right_that_is_missing_is_told_as_such(place: Place) -> None:  # F33
    # A view takes no writes: the nearest to a missing right on a server without accounts.
    place.client[place.name].command({"create": "seen", "viewOn": "things", "pipeline": []})
    seen = mapping(things(table="seen"))
    with pytest.raises(BatchRefused) as error:
        await applied(place, one(insert("thing", "k"), of=seen))
    assert error.value.problem.code is ErrorCode.STORE_REFUSED


# --- fences -------------------------------------------------------------------------------------


async def test_a_fenced_worker_changes_nothing(place: Place) -> None:  # I9
    batch, ended = one(insert("thing", "k")), one(insert("thing", "l"))
    await done(place, ended)
    taker = place.open()
    await taker.enrol(8, 2)
    await taker.fence(WORKER)
    await taker.fence(WORKER)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: place.participant.apply(0, [batch]),
        lambda: place.participant.apply(1, [batch]),
        lambda: place.participant.compensate(0, [ended]),
        lambda: place.participant.sweep([ended.id]),
        lambda: place.participant.enrol(WORKER, 2),
    ]
    for call in calls:
        with pytest.raises(Fenced):
            await call()
    assert place.raw() is None
    assert place.raw("l") is not None
    assert place.undo.count_documents({}) == 1
    assert (await taker.apply(0, [batch])).done.keys() == {batch.seq}


async def test_a_worker_can_be_fenced_before_it_is_enrolled(place: Place) -> None:  # I9
    await place.participant.fence(99)
    late = place.open()
    with pytest.raises(Fenced):
        await late.enrol(99, 2)
    with pytest.raises(Fenced):
        await late.apply(0, [one(insert("thing", "k"))])


async def test_a_forgotten_worker_is_kept_out_by_its_absence(place: Place) -> None:  # I9
    taker = place.open()
    await taker.enrol(8, 2)
    await taker.fence(WORKER)
    await taker.forget_workers([WORKER, 3])
    await taker.forget_workers([2])
    fences = place.client[place.name][FENCES]
    assert sorted(
        (each["worker"], each["lane"]) for each in fences.find({"worker": {"$lt": 8}})
    ) == [(WORKER, -2)]
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: place.participant.apply(0, [one(insert("thing", "k"))]),
        lambda: place.participant.sweep(["u"]),
        lambda: place.participant.enrol(WORKER, 2),
        lambda: place.open().enrol(2, 2),
    ]
    for call in calls:
        with pytest.raises(Fenced):
            await call()
    assert fences.count_documents({"worker": WORKER, "lane": {"$gte": -1}}) == 0
    await place.open().enrol(9, 2)
    await taker.forget_workers([8])  # it is not fenced
    assert (await taker.apply(0, [one(insert("thing", "k"))])).done


async def test_enrolling_again_changes_nothing(place: Place) -> None:
    await place.participant.enrol(WORKER, 4)
    await done(place, one(insert("thing", "k")))
    assert place.client[place.name][FENCES].count_documents({"worker": WORKER}) == 5


async def test_a_zombies_open_transaction_is_ended_and_its_commit_refused(place: Place) -> None:
    # Rules 3 and 5: it has written its fence and its effect, and sleeps before its commit.
    written, go_on = asyncio.Event(), asyncio.Event()
    zombie = place.participant

    async def sleeping_apply() -> None:
        async with zombie._transactions.begin(0) as transaction:
            await transaction.run({"insert": "things", "documents": [{"_id": "zombie"}]})
            written.set()
            await go_on.wait()

    task = asyncio.create_task(sleeping_apply())
    await written.wait()
    taker = place.open()
    started = time.monotonic()
    await taker.fence(WORKER)
    assert time.monotonic() - started < 5
    go_on.set()
    with pytest.raises(StoreBusy):
        await task
    assert place.raw("zombie") is None
    with pytest.raises(Fenced):
        await zombie.apply(0, [one(insert("thing", "zombie"))])
    assert place.raw("zombie") is None


async def test_lanes_do_not_collide(place: Place) -> None:  # rule 3
    batches = [[one(insert("thing", f"{lane}-{at}")) for at in range(20)] for lane in (0, 1)]
    for _ in range(3):
        results = await asyncio.gather(
            *(place.participant.apply(lane, batch) for lane, batch in enumerate(batches))
        )
        assert [len(each.done) for each in results] == [20, 20]


async def test_documents_that_are_large_together_are_read_in_smaller_batches(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:  # I12
    monkeypatch.setattr(mongodb_participant, "_FOUND_BYTES_MAX", 16 * 2**20)
    place.things.insert_many(
        {"_id": key, "version": 1, "blob": b"x" * (12 * 2**20)} for key in "abc"
    )
    batch = [one(update("thing", key, email=key)) for key in "abc"]
    for attempt in (place.participant.load, partial(place.participant.apply, 0)):
        with pytest.raises(StoreBusy, match="too many bytes"):
            await attempt(batch)
        status = place.client.admin.command("serverStatus")
        assert status["metrics"]["cursor"]["open"]["total"] == 0, "none stays open in the server"
    tried = await try_in_parts(batch, partial(place.participant.apply, 0))
    assert [seq for each in tried.results for seq in each.done] == [each.seq for each in batch]
    assert len(tried.results) == 2, "in two halves"
    loaded = await place.participant.load(batch[:1])
    assert loaded.images[("thing", '"a"')] is not None
    assert loaded.rows == {}, "it is not held until the apply"


async def test_a_transaction_ends_in_time(place: Place) -> None:  # rule 5
    late = place.open(timeout_seconds=0.2)
    await late.enrol(20, 1)

    async def endless() -> None:
        async with late._transactions.begin(0) as transaction:
            await transaction.run({"insert": "things", "documents": [{"_id": "k"}]})
            while True:
                await transaction.find("things", {})

    with pytest.raises(StoreBusy):
        await endless()
    # The lane goes on at once: nothing was left open.
    batch = one(insert("thing", "k"))
    assert (await late.apply(0, [batch])).done.keys() == {batch.seq}


async def test_a_cancelled_transaction_leaves_nothing_open(place: Place) -> None:
    entered = asyncio.Event()

    async def held() -> None:
        async with place.participant._transactions.begin(0) as transaction:
            await transaction.run({"insert": "things", "documents": [{"_id": "k"}]})
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(held())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await done(place, one(insert("thing", "k")))


async def test_a_lane_outlives_a_session_that_was_killed(place: Place) -> None:
    await done(place, one(insert("thing", "a")))
    fences = place.client[place.name][FENCES].find({"worker": WORKER})
    sessions = [each for fence in fences for each in fence["sessions"]]
    assert sessions  # rule 5: known to whoever takes over
    place.client.admin.command({"killSessions": sessions})
    await done(place, one(insert("thing", "b")))


# --- unknown results (I11) ----------------------------------------------------------------------


@dataclass
class LosesAnswers:
    """A driver that does what it is told, and loses the answer of commits."""

    inner: Driver
    losses: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def start_session(self) -> Any:
        session = await self.inner.start_session()
        commit = session.commit

        async def lossy(steps: Any = ()) -> None:
            await commit(steps)
            if self.losses:
                self.losses -= 1
                raise pymongo.errors.NetworkTimeout("the answer was lost")

        session.commit = lossy  # type: ignore[method-assign]
        return session


async def test_a_lost_answer_to_a_commit_is_asked_for_again(place: Place) -> None:  # I11
    driver = LosesAnswers(open_driver(place.uri, place.name, place.kind))
    lossy = MongodbParticipant(STORE, driver, JOURNAL)
    place.opened.append(lossy)
    await lossy.enrol(30, 1)
    driver.losses = 1
    batch = one(insert("thing", "k"))
    assert (await lossy.apply(0, [batch])).done.keys() == {batch.seq}
    assert driver.losses == 0


async def test_a_commit_that_never_answers_is_unknown_and_settled_by_a_write(place: Place) -> None:
    # I11: it has happened here, and the next apply finds out by its undo record.
    driver = LosesAnswers(open_driver(place.uri, place.name, place.kind))
    lossy = MongodbParticipant(STORE, driver, JOURNAL, transaction_timeout_seconds=0.5)
    place.opened.append(lossy)
    await lossy.enrol(30, 1)
    batch = one(insert("thing", "k"))
    driver.losses = 10**9
    with pytest.raises(ResultUnknown):
        await lossy.apply(0, [batch])
    driver.losses = 0
    assert (await lossy.apply(0, [batch])).done.keys() == {batch.seq}
    assert place.things.find_one() == {"_id": "k", "version": 1}


async def test_sweep_deletes_records_and_tombstones(place: Place) -> None:
    kept, swept, buried = (one(insert("thing", key)) for key in ("a", "b", "c"))
    await place.participant.apply(0, [kept, swept])
    await undone(place, buried)
    await place.participant.sweep([swept.id, buried.id, "unknown"])
    assert [each["unit"] for each in place.undo.find()] == [kept.id]
    assert place.raw("b") is not None


class Concerns(pymongo.monitoring.CommandListener):
    """The write concerns of commands, by the command's name."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Any]] = {}

    def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
        if "writeConcern" in event.command:
            concern = {k: event.command["writeConcern"].get(k) for k in ("w", "j")}
            self.seen.setdefault(event.command_name, []).append(concern)

    def succeeded(self, event: object) -> None:
        pass

    def failed(self, event: object) -> None:
        pass


async def test_what_is_durable_is_durable_at_a_majority(place: Place) -> None:
    """Rule 10: commits, and what is written outside transactions, fences above all."""
    concerns = Concerns()
    pymongo.monitoring.register(concerns)
    try:
        watched = place.open()
    finally:  # a client takes those that are registered when it is made
        pymongo.monitoring._LISTENERS.command_listeners.remove(concerns)
    await watched.enrol(40, 1)
    await watched.apply(0, [one(insert("thing", "k"))])
    await watched.fence(41)
    assert {"commitTransaction", "update", "delete"} <= concerns.seen.keys()
    majority = {"w": "majority", "j": True}
    assert [each for every in concerns.seen.values() for each in every if each != majority] == []


async def test_records_name_what_undo_needs(place: Place) -> None:  # rule 8, F37
    place.put(STORED)
    batch = one(update("thing", "k", unset=["status"], n=6, increment={"amount": Decimal("1.5")}))
    await done(place, batch)
    record = place.undo.find_one()
    assert record["_id"] == f"{JOURNAL}/{batch.id}"
    assert {name: record[name] for name in ("format", "unit", "digest", "worker", "state")} == {
        "format": 1,
        "unit": batch.id,
        "digest": batch.digest,
        "worker": WORKER,
        "state": "applied",
    }
    (key,) = record["keys"]
    (step,) = key.pop("steps")
    assert key == {
        "entity": "thing",
        "collection": "things",
        "key_field": "_id",
        "key": "k",
        "shown": "k",
        "version_field": "version",
        "on_foreign_write": "park",
    }
    assert step["before"] == STORED
    assert step["set"] == {"n": 6, "amount": Decimal128("11.50"), "version": 4}
    assert (step["unset"], step["written"]) == (["status"], ["n", "status"])
    assert step["deltas"] == {"amount": ["decimal", "1.5"]}


# --- shared documents -----------------------------------------------------------------------------


def count(amount: int) -> Unit:
    return one(update("thing", "k", increment={"n": amount}))


def told(result: Applied, unit: Unit) -> tuple[int, int, int | None]:
    (each,) = result.done[unit.seq]
    before, after = json.loads(each.before or b""), json.loads(each.after or b"")
    return before["n"], after["n"], each.version


async def test_sharers_are_written_at_once_and_taken_out_one_by_one(place: Place) -> None:
    """F21, F27, I8: the very document comes back; who runs again is told without the undone."""
    raw = place.put(STORED)
    units = [count(amount) for amount in (5, 7, -2)]
    result = await place.participant.apply(0, units)
    assert [told(result, each) for each in units] == [(5, 10, 4), (10, 17, 5), (17, 15, 6)]
    found = place.things.find_one({"_id": "k"})
    assert (found["n"], found["version"]) == (15, 6)
    assert (await undone(place, units[1])).wrote
    found = place.things.find_one({"_id": "k"})
    assert (found["n"], found["version"]) == (8, 5)
    joining = count(1)
    again = await place.participant.apply(0, [units[0], units[2], joining])
    assert [told(again, each) for each in (units[0], units[2])] == [(5, 10, 4), (10, 8, 5)]
    assert again.behind == {joining.seq}, "nobody joins those of an earlier attempt"
    taken_out = await place.participant.compensate(0, [units[0], units[2]])
    assert all(each.wrote and each.problem is None for each in taken_out.values())
    assert place.raw() == raw
    assert place.client[place.name][SHARES].count_documents({}) == 0


async def test_a_stranger_among_sharers_is_found(place: Place) -> None:
    """F28: the version that we left on a shared key is that after our last write or undo."""
    place.put(STORED)
    units = [count(1), count(2)]
    await place.participant.apply(0, units)
    assert (await undone(place, units[0])).problem is None
    place.things.update_one({"_id": "k"}, {"$inc": {"version": 1}})
    problem = (await undone(place, units[1])).problem
    assert problem is not None
    assert problem.code is ErrorCode.FOREIGN_WRITE


async def test_shares_are_swept_with_their_last_unit(place: Place) -> None:
    place.put(STORED)
    units = [count(1), count(2)]
    await place.participant.apply(0, units)
    shares = place.client[place.name][SHARES]
    await place.participant.sweep([units[0].id])
    assert shares.count_documents({}) == 1
    await place.participant.sweep([units[1].id])
    assert shares.count_documents({}) == 0


@pytest.mark.parametrize("rule", ["validator", "unique index"])
async def test_a_collection_that_judges_what_stands_between_is_not_shared(
    place: Place, rule: str
) -> None:
    """The sum of all three would do; but one after the other, the second is refused."""
    place.things.insert_many([{"_id": "k", "n": 0, "version": 1}, {"_id": "x", "n": 6}])
    if rule == "validator":
        where = {"n": {"$lte": 5}}
        place.client[place.name].command({"collMod": "things", "validator": where})
        place.things.delete_one({"_id": "x"})
    else:
        place.things.create_index("n", unique=True)
    first, second, third = [
        one(update("thing", "k", increment={"n": delta})) for delta in (4, 2, -5)
    ]
    applied = await place.participant.apply(0, [first, second, third])
    assert list(applied.done) == [first.seq]
    assert applied.behind == {second.seq, third.seq}
    with pytest.raises(BatchRefused):
        await place.participant.apply(0, [second])
    assert place.things.find_one({"_id": "k"}) == {"_id": "k", "n": 4, "version": 2}
