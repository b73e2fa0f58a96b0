"""The judges of the chaos runs: a good history passes, and each one that is doctored is noticed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.chaos.checkers import CHECKERS, violations
from tests.chaos.history import (
    Add,
    Append,
    At,
    Change,
    End,
    Evidence,
    Image,
    JournalUnit,
    Make,
    Outcome,
    Sent,
    Submission,
    UndoRecord,
    after,
    normal,
)

A: At = ("account", 1)
W: At = ("wallet", 101)
L1: At = ("ledger_list", "list-0")
L2: At = ("catalog_list", "list-0")
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def _transfer(unit: str, kind: str = "transfer", *, hopeless: bool = False) -> Sent:
    writes = (
        Add(*A, Decimal("-5.00")),
        Make("entry", f"{unit}-1", {"account": 1, "amount": Decimal("-5.00")}),
        Add(*W, Decimal("5.00")),
        Make("slip", f"{unit}-2", {"account": 101, "amount": Decimal("5.00")}),
    )
    return Sent(unit, kind, {"id": unit}, writes, hopeless=hopeless)


def _append(unit: str) -> Sent:
    return Sent(unit, "append", {"id": unit}, (Append(*L1), Append(*L2)))


def _told(unit: str, status: str, *, duplicate: bool = False, code: str = "") -> dict[str, Any]:
    error = {"code": code} if code else None
    return {"unit": unit, "status": status, "duplicate": duplicate, "error": error}


def good() -> Evidence:
    """Transfers, one of them undone, one sent again; two appends. All is as it should be."""
    start: dict[At, Image] = {
        at: {"balance": Decimal("100.00"), "note": None, "version": 1} for at in (A, W)
    } | {at: {"items": (), "version": 1} for at in (L1, L2)}
    sent = [
        _transfer("t1"),
        _transfer("t2", "refused", hopeless=True),
        _append("a1"),
        _append("a2"),
        _transfer("t3"),
    ]
    done = [each for each in sent if each.id != "t2"]
    rows = dict(start)
    changes = []
    for each in done:
        for number, write in enumerate(each.writes, 1):
            at = write.entity, write.key
            before = rows.get(at)
            later = after(write, each.id, before)
            assert later is not None
            rows[at] = later
            changes.append(Change(*at, f"{each.id}/{number}", each.id, before, later, b"text"))
    statuses = {each.id: "committed" for each in done} | {"t2": "compensated"}
    return Evidence(
        start=start,
        rows=rows,
        sent={each.id: each for each in sent},
        submissions=(
            *(Submission(each.id, f"units-0-{n}") for n, each in enumerate(sent)),
            Submission("t1", "units-0-90"),
            Submission("t1", "units-0-91", is_altered=True),
            Submission("t1", "units-0-92", is_cancel=True),
        ),
        outcomes=(
            *(
                Outcome(f"{unit}/outcome", _told(unit, status, code="x" * (unit == "t2")))
                for unit, status in statuses.items()
            ),
            Outcome("t1/duplicate/units-0-90", _told("t1", "committed", duplicate=True)),
            Outcome(
                "t1/duplicate/units-0-91",
                _told("t1", "rejected", duplicate=True, code="id_reused"),
            ),
            Outcome("t1/duplicate/units-0-92", _told("t1", "committed", duplicate=True)),
        ),
        changes=(*changes, changes[0]),
        units={
            each.id: JournalUnit(n, statuses[each.id], MOMENT, MOMENT + timedelta(seconds=1 + n))
            for n, each in enumerate(sent, 1)
        },
        undo=(
            UndoRecord("catalog", "t1", "applied"),
            UndoRecord("catalog", "t2", "undone"),
            UndoRecord("catalog", "a1", "applied"),
        ),
        fenced={7: MOMENT + timedelta(seconds=9)},
        left={"locks": 0, "outbox": 0},
        ends=(
            End("daemon-0-1", -9, killed=True),
            End("daemon-1-1", 3),
            End("daemon-0-2", 0, stopped=True),
        ),
    )


def test_a_good_history_passes() -> None:
    assert violations(good()) == []


Doctor = Callable[[Evidence], Evidence]


def _row(seen: Evidence, at: At, **values: Any) -> Evidence:
    return replace(seen, rows={**seen.rows, at: {**seen.rows[at], **values}})


def _without_row(seen: Evidence, *at: Any) -> Evidence:
    return replace(seen, rows={k: row for k, row in seen.rows.items() if k != at})


def _outcome(seen: Evidence, ce_id: str, body: Mapping[str, Any] | None) -> Evidence:
    """Replace an outcome, or take it away."""
    outcomes = [each for each in seen.outcomes if each.ce_id != ce_id]
    if body is not None:
        outcomes.append(Outcome(ce_id, dict(body)))
    return replace(seen, outcomes=tuple(outcomes))


def _more_outcome(seen: Evidence, ce_id: str, body: Mapping[str, Any]) -> Evidence:
    return replace(seen, outcomes=(*seen.outcomes, Outcome(ce_id, dict(body))))


def _change(seen: Evidence, ce_id: str, **values: Any) -> Evidence:
    changes = [replace(c, **values) if c.ce_id == ce_id else c for c in seen.changes]
    return replace(seen, changes=tuple(changes))


def _unit(seen: Evidence, unit: str, **values: Any) -> Evidence:
    return replace(seen, units={**seen.units, unit: replace(seen.units[unit], **values)})


def _swapped(seen: Evidence, first: str, second: str) -> Evidence:
    """Let two events change their places."""
    changes = list(seen.changes)
    places = [n for n, each in enumerate(changes) if each.ce_id in {first, second}][-2:]
    changes[places[0]], changes[places[1]] = changes[places[1]], changes[places[0]]
    return replace(seen, changes=tuple(changes))


DOCTORED: dict[str, tuple[str, Doctor]] = {
    "an outcome is missing": ("I7: t1 has no", lambda s: _outcome(s, "t1/outcome", None)),
    "a second, other decision": (
        "F5: t1/outcome was published with different",
        lambda s: _more_outcome(s, "t1/outcome", _told("t1", "rejected")),
    ),
    "an outcome of nobody's unit": (
        "I8: t9 was never sent",
        lambda s: _more_outcome(s, "t9/outcome", _told("t9", "committed")),
    ),
    "the journal decided otherwise": (
        "F5: t1 was told committed",
        lambda s: _unit(s, "t1", status="rejected"),
    ),
    "a final outcome that is none": (
        "F5: the final outcome of a1",
        lambda s: _outcome(s, "a1/outcome", _told("a1", "accepted")),
    ),
    "parked": (
        "F11: t2/parked",
        lambda s: _more_outcome(s, "t2/parked", _told("t2", "parked", code="undo_failed")),
    ),
    "the hopeless committed": (
        "t2 (refused) is committed",
        lambda s: _outcome(s, "t2/outcome", _told("t2", "committed")),
    ),
    "compensated in the journal's store only": (
        "F6: a2 is compensated",
        lambda s: _outcome(
            replace(s, sent={**s.sent, "a2": replace(s.sent["a2"], writes=(Append(*L1),))}),
            "a2/outcome",
            _told("a2", "compensated"),
        ),
    ),
    "a duplicate without an answer": (
        "F4: t1: 2 of 3 records",
        lambda s: _outcome(s, "t1/duplicate/units-0-90", None),
    ),
    "the first is answered as a duplicate": (
        "F4: a1: 0 of 1",
        lambda s: _more_outcome(
            s, "a1/duplicate/units-0-2", _told("a1", "committed", duplicate=True)
        ),
    ),
    "an answer to a record that is not there": (
        "F4: a1/duplicate/units-0-77",
        lambda s: _more_outcome(
            s, "a1/duplicate/units-0-77", _told("a1", "committed", duplicate=True)
        ),
    ),
    "another answer than the outcome": (
        "F4: t1/duplicate/units-0-90 is not",
        lambda s: _outcome(s, "t1/duplicate/units-0-90", _told("t1", "rejected", duplicate=True)),
    ),
    "other content taken for the same": (
        "F4: t1/duplicate/units-0-91: other content",
        lambda s: _outcome(s, "t1/duplicate/units-0-91", _told("t1", "committed", duplicate=True)),
    ),
    "refused early": (
        "F2: t1/refused/units-0-0",
        lambda s: _more_outcome(s, "t1/refused/units-0-0", _told("t1", "rejected")),
    ),
    "half a unit": ("I2: t1: slip t1-2 is None", lambda s: _without_row(s, "slip", "t1-2")),
    "a mark of an undone unit": (
        "I2: t2: entry t2-1",
        lambda s: replace(
            s, rows={**s.rows, ("entry", "t2-1"): {"account": 1, "amount": Decimal("-5.00")}}
        ),
    ),
    "a mark with another amount": (
        "I2: t1: entry t1-1",
        lambda s: _row(s, ("entry", "t1-1"), amount=Decimal("-5.01")),
    ),
    "a row of no unit": (
        "I10: ('slip', 'x')",
        lambda s: replace(s, rows={**s.rows, ("slip", "x"): {}}),
    ),
    "an account is gone": ("I10: ('account', 1) is gone", lambda s: _without_row(s, *A)),
    "an append is lost": ("I2: the committed a1", lambda s: _row(s, L1, items=("a2",))),
    "an append of nobody": (
        "I2: a9 stands in",
        lambda s: _row(s, L1, items=("a1", "a2", "a9")),
    ),
    "an append happened twice": (
        "I3: a2 stands in",
        lambda s: _row(s, L1, items=("a1", "a2", "a2")),
    ),
    "an increment happened twice": (
        "I3: ('account', 1) has 85.00",
        lambda s: _row(s, A, balance=Decimal("85.00")),
    ),
    "a write that left no trace but its version": (
        "I3: ('account', 1) has version 4",
        lambda s: _row(s, A, version=4),
    ),
    "overdrawn": (
        "('account', 1) is overdrawn",
        lambda s: _row(s, A, balance=Decimal("-1.00")),
    ),
    "money is made": ("money: there was", lambda s: _row(s, W, balance=Decimal("999.00"))),
    "not in the order of admission": ("I5: on", lambda s: _unit(s, "t3", seq=0)),
    "at the same time": (
        "I5: on ('account', 1) t3 ended before t1",
        lambda s: _unit(s, "t1", finished_at=MOMENT + timedelta(hours=1)),
    ),
    "the lists disagree": (
        "I5: the lists disagree",
        lambda s: _row(s, L2, items=("a2", "a1")),
    ),
    "an event is missing": (
        "I8: t1/3 was never announced",
        lambda s: replace(s, changes=tuple(c for c in s.changes if c.ce_id != "t1/3")),
    ),
    "an undone unit is announced": (
        "I8: t2/1 is announced",
        lambda s: replace(s, changes=(*s.changes, replace(s.changes[0], ce_id="t2/1", unit="t2"))),
    ),
    "a repeat differs": (
        "I8: t1/1 was published with different",
        lambda s: replace(s, changes=(*s.changes[:-1], replace(s.changes[-1], text=b"other"))),
    ),
    "an event under another's name": (
        "I8: t1/2 is of ('slip', 't1-1')",
        lambda s: _change(s, "t1/2", entity="slip"),
    ),
    "an event of another unit": (
        "I8: t1/2 says that it is of unit t3",
        lambda s: _change(s, "t1/2", unit="t3"),
    ),
    "two events in the wrong order": ("before is", lambda s: _swapped(s, "a1/1", "a2/1")),
    "a gap between the images": (
        "I8: t3/1: before is",
        lambda s: _change(s, "t3/1", before={"balance": Decimal(1), "note": None, "version": 2}),
    ),
    "an image that the write does not make": (
        "I8: a1/2: after is",
        lambda s: _change(s, "a1/2", after={"items": ("a1", "a1"), "version": 2}),
    ),
    "the store is not where the events end": (
        "I8: the events end with",
        lambda s: _row(s, A, note="by nobody"),
    ),
    "a unit is left open": (
        "I7: t1 is left accepted",
        lambda s: _unit(s, "t1", status="accepted", finished_at=None),
    ),
    "a unit out of nowhere": (
        "I10: the journal knows t9",
        lambda s: replace(s, units={**s.units, "t9": s.units["t1"]}),
    ),
    "a lock is left": ("I7: 2 locks are left", lambda s: replace(s, left={"locks": 2})),
    "a fenced worker ended a unit": (
        "I9: t1 was ended by worker 7",
        lambda s: _unit(s, "t1", worker=7, finished_at=MOMENT + timedelta(seconds=10)),
    ),
    "an undo record without a unit": (
        "rule 10:",
        lambda s: replace(s, undo=(*s.undo, UndoRecord("catalog", "t9", "applied"))),
    ),
    "an undo record that was never undone": (
        "I2: UndoRecord(store='archive', unit='t2'",
        lambda s: replace(s, undo=(*s.undo, UndoRecord("archive", "t2", "applied"))),
    ),
    "a tombstone of a committed unit": (
        "I2: UndoRecord(store='archive', unit='t1'",
        lambda s: replace(s, undo=(*s.undo, UndoRecord("archive", "t1", "tombstone"))),
    ),
    "a daemon failed": (
        "F36: daemon-2-1 ended with exit code 1",
        lambda s: replace(s, ends=(*s.ends, End("daemon-2-1", 1))),
    ),
    "a daemon left by itself": (
        "F36: daemon-2-1 ended with exit code 0",
        lambda s: replace(s, ends=(*s.ends, End("daemon-2-1", 0))),
    ),
    "a daemon failed when it was stopped": (
        "F36: daemon-2-1 ended with exit code 1",
        lambda s: replace(s, ends=(*s.ends, End("daemon-2-1", 1, stopped=True))),
    ),
    "an alarm was logged": ("a stack", lambda s: replace(s, alarms=("a stack",))),
}


@pytest.mark.parametrize("what", DOCTORED)
def test_a_doctored_history_is_noticed(what: str) -> None:
    told, doctor = DOCTORED[what]
    found = violations(doctor(good()))
    assert any(told in violation for violation in found), found


@pytest.mark.parametrize("checker", CHECKERS, ids=lambda each: str(each.__name__))
def test_every_checker_is_needed(checker: Callable[[Evidence], Any]) -> None:
    """Each notices something by itself; one that notices nothing would be no checker."""
    assert any(list(checker(doctor(good()))) for _, doctor in DOCTORED.values())


def test_images_of_row_document_and_event_are_one() -> None:
    row = {"id": 1, "balance": Decimal("1.50"), "items": "a1 a2", "version": 3}
    event = {"_id": 1, "balance": "1.50", "items": ["a1", "a2"], "version": 3}
    assert normal(row) == normal(event)
    assert normal({"items": ""}) == {"items": ()}
    assert normal(None) is None
