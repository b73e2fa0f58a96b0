"""What is published, to the letter: outcomes (DESIGN 2.2), change events (2.3), sizes (F26)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coordinator.domain.announce import (
    Announcer,
    Verdict,
    as_duplicate,
    change_messages,
    committed_operations,
    duplicate_ce_id,
    instant,
    outcome_messages,
    outcome_value,
    oversize,
    refused_ce_id,
    size_bytes,
)
from coordinator.domain.decide import Effect
from coordinator.domain.entity import FieldType, StoreKind
from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Origin, Unit
from coordinator.domain.publishing import Done, Message
from tests.units import check, delete, entity, insert, mapping, unit, update, upsert

SHOP = mapping(
    entity("account", {"id": FieldType.INTEGER, "balance": FieldType.DECIMAL}, table="accounts"),
    entity(
        "order",
        {"_id": FieldType.STRING},
        store="catalog",
        kind=StoreKind.MONGODB,
        table="orders",
        key="_id",
        version=None,
    ),
)
ANNOUNCER = Announcer("shop", "1.2.3", "outcomes", "changes.{entity}.v1")
RECEIVED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FINISHED = RECEIVED + timedelta(microseconds=6_100)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ORIGIN = Origin("coordinator.units", 3, 77)


def verdict(**parts: Any) -> Verdict:
    given: dict[str, Any] = {
        "unit_id": "u-1",
        "digest": "9f86d0",
        "status": Status.COMMITTED,
        "problems": (),
        "received_at": RECEIVED,
        "finished_at": FINISHED,
        "metadata": None,
        **parts,
    }
    return Verdict(**given)


def told(message: Message) -> Any:
    assert message.value is not None
    return json.loads(message.value)


def publish(value: bytes, announcer: Announcer = ANNOUNCER, **parts: Any) -> list[Message]:
    given: dict[str, Any] = {
        "unit_id": "u-1",
        "ce_id": "u-1/outcome",
        "status": Status.REJECTED,
        "finished_at": FINISHED,
        "reply_to": None,
        "traceparent": None,
        **parts,
    }
    return outcome_messages(announcer, value=value, **given)


# --- outcomes -------------------------------------------------------------------------------------


def test_an_outcome_has_these_members_and_no_others() -> None:
    value = outcome_value(verdict(metadata=b'{"any": [1.10, "\\u00e9"]}'))
    assert json.loads(value) == {
        "unit": "u-1",
        "digest": "9f86d0",
        "status": "committed",
        "duplicate": False,
        "error": None,
        "operations": [],
        "received_at": "2026-01-02T03:04:05.000000Z",
        "finished_at": "2026-01-02T03:04:05.006100Z",
        "duration_ms": 6.1,
        "metadata": {"any": [1.10, "é"]},
    }
    assert b"1.10" in value, "metadata is echoed as it was written"


def test_an_id_of_any_printable_characters_leaves_the_json_whole() -> None:
    """F1 allows quotes and backslashes in it."""
    unit_id = '"a\\b{}%d"'
    assert json.loads(outcome_value(verdict(unit_id=unit_id)))["unit"] == unit_id
    planned = unit(SHOP, update("account", 42, balance=1), id=unit_id)
    [message] = changes(planned, Done(0, Effect.UPDATED, b"{}", b"{}", 8))
    assert told(message)["transaction"]["id"] == unit_id


def test_a_clock_that_was_set_back_gives_no_negative_duration() -> None:
    value = outcome_value(verdict(finished_at=RECEIVED - timedelta(seconds=1)))
    assert json.loads(value)["duration_ms"] == 0


@pytest.mark.parametrize("code", list(ErrorCode))
def test_an_error_tells_its_code_and_whether_a_new_id_may_succeed(code: ErrorCode) -> None:
    """F10."""
    retryable = {
        "expectation_failed",
        "deadline_exceeded",
        "cancelled",
        "store_refused",
        "not_found",
        "already_exists",
        "out_of_bounds",
    }
    problem = Problem(code, "Because.", "operations.1.key", 1, "account", 42)
    shape = {
        "code": code.value,
        "message": "Because.",
        "path": "operations.1.key",
        "operation": 1,
        "entity": "account",
        "key": 42,
        "retryable": code.value in retryable,
    }
    error = json.loads(outcome_value(verdict(status=Status.REJECTED, problems=(problem,))))["error"]
    assert error == {**shape, "details": [shape]}


def test_details_list_all_mistakes_those_found_together_included() -> None:
    """F10."""
    second = Problem(ErrorCode.INVALID, "Two.", operation=1)
    first = Problem(ErrorCode.INVALID, "One.", operation=0, also=(second,))
    error = json.loads(outcome_value(verdict(problems=(first,))))["error"]
    assert error["message"] == "One."
    assert [each["message"] for each in error["details"]] == ["One.", "Two."]
    assert all("details" not in each and "also" not in each for each in error["details"])


def test_a_duplicate_is_equal_but_for_one_member() -> None:
    """F4, whatever the sender wrote into the metadata."""
    value = outcome_value(verdict(metadata=b'{"duplicate":false,"x":"\\"duplicate\\":false"}'))
    again = json.loads(as_duplicate(value))
    assert again == {**json.loads(value), "duplicate": True}
    assert as_duplicate(value) == outcome_value(
        verdict(metadata=b'{"duplicate":false,"x":"\\"duplicate\\":false"}'), duplicate=True
    )


def test_an_outcome_travels_with_cloudevents_headers() -> None:
    [message] = publish(b"{}", traceparent=TRACE)
    assert (message.topic, message.key, message.value) == ("outcomes", b"u-1", b"{}")
    assert message.headers == (
        ("ce_specversion", b"1.0"),
        ("ce_id", b"u-1/outcome"),
        ("ce_type", b"io.coordinator.unit.rejected.v1"),
        ("ce_source", b"/coordinator/shop"),
        ("ce_subject", b"u-1"),
        ("ce_time", b"2026-01-02T03:04:05.006100Z"),
        ("content-type", b"application/json"),
        ("traceparent", TRACE.encode()),
    )
    [without] = publish(b"{}")
    assert "traceparent" not in dict(without.headers)


def test_a_reply_topic_gets_it_as_well_but_not_twice() -> None:
    messages = publish(b"{}", reply_to="replies")
    assert [each.topic for each in messages] == ["outcomes", "replies"]
    assert messages[1] == messages[0]._replace(topic="replies")
    assert [each.topic for each in publish(b"{}", reply_to="outcomes")] == ["outcomes"]


def test_ce_ids_of_answers_name_the_record() -> None:
    """F5."""
    assert duplicate_ce_id("u-1", ORIGIN) == "u-1/duplicate/coordinator.units-3-77"
    assert refused_ce_id("u-1", ORIGIN) == "u-1/refused/coordinator.units-3-77"


def test_a_time_has_always_microseconds_and_z() -> None:
    assert instant(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00.000000Z"


# --- the outcome's operations (F9) ----------------------------------------------------------------


def test_operations_are_listed_as_submitted_not_as_executed() -> None:
    planned = unit(
        SHOP,
        insert("order", "o-7"),
        check("account", 42),
        update("account", 2**53, balance=1),
        delete("account", 7, ignore_missing=True),
        upsert("account", 8),
    )
    submitted = [4, 2, 0, 1, 3]  # where each planned operation stood in the submission
    operations = tuple(
        replace(each, index=index)
        for each, index in zip(planned.plan.operations, submitted, strict=True)
    )
    planned = planned._replace(plan=planned.plan._replace(operations=operations))
    done = [
        Done(4, Effect.CREATED, None, b"{}", 1),
        Done(0, Effect.CREATED, None, b"{}", None),
        Done(1, Effect.NOTHING, b"{}", b"{}", 5),
        Done(2, Effect.UPDATED, b"{}", b"{}", 8),
        Done(3, Effect.NOTHING, None, None, None),
    ]
    value = outcome_value(verdict(operations=committed_operations(planned, done)))
    assert json.loads(value)["operations"] == [
        {"entity": "account", "key": str(2**53), "op": "update", "version": 8},
        {"entity": "account", "key": 7, "op": "delete", "version": None, "applied": False},
        {"entity": "account", "key": 42, "op": "check", "version": 5, "applied": False},
        {"entity": "account", "key": 8, "op": "upsert", "version": 1},
        {"entity": "order", "key": "o-7", "op": "insert"},
    ]


# --- change events (DESIGN 2.3, F34) --------------------------------------------------------------


def changes(planned: Unit, *done: Done, announcer: Announcer = ANNOUNCER) -> list[Message]:
    return change_messages(announcer, planned, done, FINISHED)


def test_a_change_event_has_debeziums_envelope() -> None:
    planned = unit(SHOP, update("account", 42, balance=1), id="u-1")
    before, after = b'{"id":42,"balance":"2.50","version":7}', b'{"id":42,"balance":"1.0"}'
    [message] = changes(planned, Done(0, Effect.UPDATED, before, after, 8))
    ts_ms = int(FINISHED.timestamp() * 1000)
    assert (message.topic, message.key) == ("changes.account.v1", b"42")
    assert told(message) == {
        "op": "u",
        "before": {"id": 42, "balance": "2.50", "version": 7},
        "after": {"id": 42, "balance": "1.0"},
        "source": {
            "connector": "coordinator",
            "version": "1.2.3",
            "name": "shop",
            "ts_ms": ts_ms,
            "store": "ledger",
            "entity": "account",
            "table": "public.accounts",
        },
        "transaction": {"id": "u-1", "total_order": 1, "data_collection_order": 1},
        "ts_ms": ts_ms,
    }
    assert message.headers == (
        ("ce_specversion", b"1.0"),
        ("ce_id", b"u-1/1"),
        ("ce_type", b"io.coordinator.entity.updated.v1"),
        ("ce_source", b"/coordinator/shop"),
        ("ce_subject", b"42"),
        ("ce_time", instant(FINISHED).encode()),
        ("content-type", b"application/json"),
    )


def test_a_collection_is_named_as_one_and_metadata_stands_beside_the_transaction() -> None:
    planned = unit(SHOP, insert("order", "o-7"), id="u-1")
    planned = planned._replace(metadata=b'{"by":"me"}', traceparent=TRACE)
    [message] = changes(planned, Done(0, Effect.CREATED, None, b'{"_id":"o-7"}', None))
    value = told(message)
    assert message.key == b'"o-7"'
    assert value["source"]["collection"] == "orders"
    assert "table" not in value["source"]
    assert (value["op"], value["before"], value["after"]) == ("c", None, {"_id": "o-7"})
    assert value["metadata"] == {"by": "me"}
    headers = dict(message.headers)
    assert headers["ce_type"] == b"io.coordinator.entity.created.v1"
    assert headers["ce_subject"] == b'"o-7"'
    assert headers["traceparent"] == TRACE.encode()


def test_events_are_counted_over_the_unit_and_within_their_entity() -> None:
    """What wrote nothing is left out."""
    planned = unit(
        SHOP,
        insert("account", 1),
        check("account", 2),
        insert("order", "o"),
        update("account", 1, balance=1),
        id="u-1",
    )
    done = [
        Done(2, Effect.CREATED, None, b"{}", None),
        Done(3, Effect.UPDATED, b"{}", b"{}", 2),
        Done(0, Effect.CREATED, None, b"{}", 1),
        Done(1, Effect.NOTHING, b"{}", b"{}", 1),
    ]
    messages = changes(planned, *done)
    orders = [told(each)["transaction"] for each in messages]
    assert [(each["total_order"], each["data_collection_order"]) for each in orders] == [
        (1, 1),
        (2, 1),
        (3, 2),
    ]
    assert [dict(each.headers)["ce_id"] for each in messages] == [b"u-1/1", b"u-1/2", b"u-1/3"]
    assert [each.topic for each in messages] == [
        "changes.account.v1",
        "changes.order.v1",
        "changes.account.v1",
    ]


@pytest.mark.parametrize("tombstones", [False, True])
def test_a_delete_is_followed_by_a_tombstone_when_asked_for(tombstones: bool) -> None:
    planned = unit(SHOP, delete("account", 1), id="u-1")
    messages = changes(
        planned,
        Done(0, Effect.DELETED, b'{"id":1}', None, None),
        announcer=replace(ANNOUNCER, tombstones=tombstones),
    )
    assert told(messages[0])["op"] == "d"
    assert told(messages[0])["after"] is None
    assert dict(messages[0].headers)["ce_type"] == b"io.coordinator.entity.deleted.v1"
    tail = [(each.topic, each.key, each.value) for each in messages[1:]]
    assert tail == ([("changes.account.v1", b"1", None)] if tombstones else [])


# --- sizes (F26, I7) ------------------------------------------------------------------------------


def limited(limit_bytes: int, topic: str = "outcomes") -> Announcer:
    return replace(ANNOUNCER, limits_bytes={topic: limit_bytes})


def test_a_message_up_to_its_topics_limit_is_taken_and_one_byte_more_is_not() -> None:
    message = Message("outcomes", b"k", b"v" * 1000, (("ce_id", b"x"), ("none", None)))
    size = size_bytes(message)
    assert size > 1000 + 1 + len("ce_id") + 1 + len("none")
    assert oversize(limited(size), [message]) is None
    assert oversize(limited(size - 1, "other"), [message]) is None
    problem = oversize(limited(size - 1), [message])
    assert problem is not None
    assert (problem.code, problem.path) == (ErrorCode.TOO_LARGE, "operations")
    assert "outcomes" in problem.message


def test_a_refusal_that_its_topic_could_not_take_is_told_shorter() -> None:
    """I7: first without metadata, then with the first detail only; never not at all."""
    also = tuple(Problem(ErrorCode.INVALID, f"Mistake {n}.", operation=n) for n in range(200))
    problem = Problem(ErrorCode.INVALID, "First.", operation=0, also=also)
    parts: dict[str, Any] = {"status": Status.REJECTED, "problems": (problem,)}
    value = outcome_value(verdict(metadata=b'"' + b"m" * 5000 + b'"', **parts))
    plain = size_bytes(publish(outcome_value(verdict(**parts)))[0])

    [whole] = publish(value, limited(len(value) + 1000))
    assert whole.value == value
    [without_metadata] = publish(value, limited(plain))
    assert told(without_metadata) == {**json.loads(value), "metadata": None}
    [brief] = publish(value, limited(2000), reply_to=None)
    assert size_bytes(brief) <= 2000
    assert told(brief)["error"]["message"] == "First."
    assert [each["message"] for each in told(brief)["error"]["details"]] == ["First."]
    assert told(brief)["metadata"] is None


def test_each_topic_gets_what_it_can_take() -> None:
    value = outcome_value(verdict(metadata=b'"' + b"m" * 5000 + b'"'))
    outcome, reply = publish(value, limited(3000, "replies"), reply_to="replies")
    assert outcome.value == value
    assert told(reply)["metadata"] is None


def test_a_unit_that_shall_commit_is_judged_unshortened() -> None:
    value = outcome_value(verdict(metadata=b'"' + b"m" * 5000 + b'"'))
    messages = publish(value, limited(3000), shorten=False)
    assert oversize(limited(3000), messages) is not None
