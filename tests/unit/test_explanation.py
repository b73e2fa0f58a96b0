"""What `coordinator explain` says: of a submission before it is sent, and of a unit that stands."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.explanation import Explained, explain_reading
from coordinator.domain.lifecycle import Status
from coordinator.domain.situation import Blocker, Owner, Situation, sentences
from coordinator.domain.submission import read
from tests.mapping_samples import MAPPING, FixedDraw

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ALIVE = Owner(3, "blue", NOW + timedelta(seconds=10), fenced=False)


def explained(value: Any, pivot: str | None = "ledger") -> Explained:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    reading = read(raw, (), MAPPING, 100_000, 30_000, frozenset(), FixedDraw())
    return explain_reading(reading, MAPPING, pivot)


def unit(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"id": "u-1", "operations": list(operations)}


def test_what_is_no_unit_is_told_as_its_outcome_would() -> None:
    assert explained(b"{")["verdict"] == "dead_letter"
    assert explained({"cancel": "u-9"}) == {"unit": "u-9", "verdict": "cancel"}
    refused = explained(unit({"op": "nonsense"}, {"op": "delete", "entity": "nobody", "key": 1}))
    assert (refused["verdict"], refused["unit"]) == ("rejected", "u-1")
    assert len(refused["error"]["details"]) >= 2
    assert refused["error"]["path"].startswith("operations.0")


def test_a_unit_is_told_in_the_order_of_its_execution() -> None:
    told = explained(
        unit(
            {
                "op": "update",
                "entity": "account",
                "key": 7,
                "set": {"status": "active"},
                "increment": {"balance": "-1.00"},
                "expect": {"status": {"ne": "closed"}},
            },
            {"op": "check", "entity": "account", "key": 8, "absent": True},
        ),
        pivot=None,
    )
    assert told["verdict"] == "admitted"
    update, check = told["order"]
    assert (update["op"], update["key"], update["store"]) == ("update", "7", "ledger")
    assert update["expects"] == ["it exists", "status ne what is given"]
    assert [each["code"] for each in update["may_be_refused"]] == [
        "not_found",
        "expectation_failed",
        "type_mismatch",
        "out_of_bounds",
        "constraint_violated",
    ]
    assert update["undo"] == (
        "set status back to what was there and take the increment of balance back;"
        " if a stranger has changed it since, the unit is parked"
    )
    assert (check["expects"], check["undo"]) == (
        ["it does not exist"],
        "nothing: a check writes nothing",
    )
    assert told["locks"] == [
        {"entity": "account", "key": "7", "mode": "exclusive"},
        {"entity": "account", "key": "8", "mode": "shared"},
    ]
    (branch,) = told["branches"]
    assert (branch["store"], branch["commits"]) == ("ledger", "before the pivot")
    assert branch["statements"] == [
        "UPDATE public.accounts SET balance, status, version WHERE id",
        "SELECT FROM public.accounts WHERE id FOR SHARE",
    ]


def test_what_the_pivot_writes_needs_no_undo() -> None:
    told = explained(unit({"op": "delete", "entity": "account", "key": 7}))
    assert told["order"][0]["undo"].startswith("nothing: it is written in the transaction")
    assert told["branches"][0]["commits"] == "with the journal, last"
    assert "values" not in json.dumps(told)


def situated(status: Status, **changes: Any) -> Situation:
    return Situation(
        unit="u-1",
        status=status,
        now=NOW,
        received_at=NOW - timedelta(seconds=7),
        deadline_at=NOW + timedelta(seconds=23),
        finished_at=None,
        stores=("catalog",),
        owner=ALIVE,
        cause=None,
        problem=None,
        cancel_requested=None,
        blockers=(),
        blockers_count=0,
        behind=0,
        swept=False,
        undo_retention=timedelta(minutes=10),
        retention=timedelta(days=7),
    )._replace(**changes)


def said(status: Status, **changes: Any) -> str:
    return "\n".join(sentences(situated(status, **changes)))


def test_a_unit_that_waits_names_whom_for() -> None:
    blocker = Blocker(
        "u-0", Status.PARKED, NOW - timedelta(hours=3), ALIVE, "account", "42", exclusive=True
    )
    text = said(Status.ACCEPTED, blockers=[blocker], blockers_count=1, behind=4)
    assert "accepted 7.0 s ago" in text
    assert "- u-0 (parked, accepted 3 h ago, of worker blue) writes account 42" in text
    assert "units retry" in text
    assert "Its deadline is in 23.0 s" in text
    assert "4 units wait for this one." in text


def test_a_unit_that_waits_for_nobody_says_so() -> None:
    text = said(Status.ACCEPTED, cancel_requested="no more", deadline_at=NOW - timedelta(seconds=1))
    assert "No earlier unit stands in its way" in text
    assert "A cancel was asked for (no more)" in text
    assert "Its deadline was 1.0 s ago" in text


@pytest.mark.parametrize(
    ("owner", "sentence"),
    [
        (ALIVE, "Worker blue (3) works on it"),
        (ALIVE._replace(lease_until=NOW - timedelta(seconds=9)), "the lease ran out 9.0 s ago"),
        (ALIVE._replace(lease_until=None, fenced=True), "takes the unit over"),
        (None, "coordinator verify"),
    ],
)
def test_the_owner_tells_who_goes_on(owner: Owner | None, sentence: str) -> None:
    assert sentence in said(Status.ACCEPTED, owner=owner)
    assert sentence in said(Status.COMPENSATING, owner=owner)


def test_a_parked_unit_tells_what_is_in_the_way_and_what_to_type() -> None:
    text = said(
        Status.PARKED,
        problem=Problem(ErrorCode.FOREIGN_WRITE, "Somebody has changed it."),
        cause=Problem(ErrorCode.CANCELLED, "It was cancelled."),
        behind=1,
    )
    assert "foreign_write: Somebody has changed it." in text
    assert "cancelled: It was cancelled." in text
    assert "1 unit waits behind it" in text
    assert "coordinator units resolve u-1 --as compensated --reason TEXT" in text


def test_a_final_unit_tells_how_long_it_is_remembered() -> None:
    finished = {"finished_at": NOW - timedelta(minutes=4)}
    text = said(Status.COMMITTED, **finished)
    assert "It is committed, 4 min ago" in text
    assert "are swept in 6 min" in text
    assert "remembered until 2026-11-28T11:56:00+00:00" in text
    assert "swept" not in said(Status.COMMITTED, swept=True, **finished)
    cause = Problem(ErrorCode.NOT_FOUND, "It is not there.")
    assert "not_found: It is not there." in said(Status.REJECTED, cause=cause, **finished)
