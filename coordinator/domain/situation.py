"""Why a unit stands where it stands, in sentences: ``coordinator explain UNIT_ID``.

Pure: facts of one moment in, sentences out. Times are the journal's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from coordinator.domain.errors import Problem
from coordinator.domain.lifecycle import Status

_ENDS_WITHIN_SECONDS = 5
"""How soon a unit that only waits is refused after its deadline or a cancel (F7, F8)."""


class Owner(NamedTuple):
    """The worker that a unit belongs to. ``lease_until`` is None once its lease is forgotten."""

    number: int
    name: str
    lease_until: datetime | None
    fenced: bool


class Blocker(NamedTuple):
    """An earlier open unit that holds what this one claims."""

    unit: str
    status: Status
    received_at: datetime
    owner: Owner | None
    entity: str
    key: str
    exclusive: bool


class Situation(NamedTuple):
    """Everything about one unit that tells what happens next.

    ``blockers`` are the oldest few of ``blockers_count``; ``behind`` is how many open units wait
    for this one.
    """

    unit: str
    status: Status
    now: datetime
    received_at: datetime
    deadline_at: datetime
    finished_at: datetime | None
    stores: Sequence[str]
    owner: Owner | None
    cause: Problem | None
    problem: Problem | None
    cancel_requested: str | None
    blockers: Sequence[Blocker]
    blockers_count: int
    behind: int
    swept: bool
    undo_retention: timedelta
    retention: timedelta


def sentences(of: Situation) -> list[str]:
    """Say where the unit stands, why, and what happens next."""
    match of.status:
        case Status.ACCEPTED:
            return [*_accepted(of), *_owned(of)]
        case Status.COMPENSATING:
            return [*_compensating(of), *_owned(of)]
        case Status.PARKED:
            return list(_parked(of))
        case _:
            return list(_final(of))


def _accepted(of: Situation) -> Iterator[str]:
    yield f"It was accepted {ago(of.now, of.received_at)} and is not decided yet."
    if of.cancel_requested is not None:
        reason = f" ({of.cancel_requested})" if of.cancel_requested else ""
        yield (
            f"A cancel was asked for{reason}: while it waits it is refused within"
            f" {_ENDS_WITHIN_SECONDS} seconds, else it is undone, unless it commits first."
        )
    if of.blockers:
        yield from _waits(of)
    else:
        yield (
            "No earlier unit stands in its way: it is being executed or about to be. If that"
            " lasts, a store is away or an outsider holds one of its rows; it is tried again"
            " until its deadline."
        )
    if of.deadline_at > of.now:
        yield (
            f"Its deadline is {until(of.now, of.deadline_at)}; what is not committed by then is"
            " refused, or undone where it was applied already."
        )
    else:
        yield (
            f"Its deadline was {ago(of.now, of.deadline_at)}: it is refused within"
            f" {_ENDS_WITHIN_SECONDS} seconds, or undone once its stores answer."
        )


def _waits(of: Situation) -> Iterator[str]:
    number = "1 earlier unit" if of.blockers_count == 1 else f"{of.blockers_count} earlier units"
    yield f"It waits for {number} on keys that it claims:"
    for each in of.blockers:
        mode = "writes" if each.exclusive else "reads"
        worker = "no worker" if each.owner is None else f"worker {each.owner.name}"
        yield (
            f"- {each.unit} ({each.status.value}, accepted {ago(of.now, each.received_at)},"
            f" of {worker}) {mode} {each.entity} {each.key}"
        )
    parked = [each.unit for each in of.blockers if each.status is Status.PARKED]
    if parked:
        yield (
            f"{', '.join(dict.fromkeys(parked))} is parked and waits for a person:"
            " `coordinator units retry` or `units resolve` lets this one go on."
        )


def _compensating(of: Situation) -> Iterator[str]:
    yield f"It is being undone: {_why(of.cause)}"
    stores = ", ".join(of.stores) or "no store"
    yield (
        f"Its branches are at {stores}. A store that is away or a row that an outsider holds is"
        " tried again until it answers; there is no deadline for an undo."
    )
    yield "It ends as rejected if nothing was written, as compensated if something was undone."


def _parked(of: Situation) -> Iterator[str]:
    yield "It is parked: undoing it needs a person, and nothing happens until one acts."
    yield f"What is in the way: {_why(of.problem)}"
    yield f"Why it was being undone: {_why(of.cause)}"
    if of.behind:
        yield f"It keeps its locks; {_units(of.behind)} behind it until their own deadlines."
    yield (
        f"Put right what is in the way, then `coordinator units retry {of.unit}`; or undo it by"
        f" hand in every store, then `coordinator units resolve {of.unit} --as compensated"
        " --reason TEXT`."
    )


def _final(of: Situation) -> Iterator[str]:
    finished_at = of.finished_at or of.now
    yield f"It is {of.status.value}, {ago(of.now, finished_at)}; nothing about it changes any more."
    if of.cause is not None:
        yield f"Why: {_why(of.cause)}"
    if of.stores and not of.swept:
        goes_at = finished_at + of.undo_retention
        yield (
            f"Its undo records at {', '.join(of.stores)} are swept {until(of.now, goes_at)}."
            if goes_at > of.now
            else f"Its undo records at {', '.join(of.stores)} are about to be swept."
        )
    forgotten_at = finished_at + of.retention
    yield f"Its id is remembered until {forgotten_at.isoformat(timespec='seconds')}."


def _owned(of: Situation) -> Iterator[str]:
    owner = of.owner
    if owner is None:
        yield "It belongs to a worker that the journal does not know: run `coordinator verify`."
    elif owner.lease_until is not None and owner.lease_until > of.now and not owner.fenced:
        yield f"Worker {owner.name} ({owner.number}) works on it; its lease is good."
    else:
        ended = "" if owner.lease_until is None else f" {ago(of.now, owner.lease_until)}"
        yield (
            f"Its worker {owner.name} ({owner.number}) is gone: the lease ran out{ended}. Any"
            " running daemon takes the unit over as soon as it can reach all of its stores; if"
            " none runs, start one."
        )
    if of.behind:
        yield f"{_units(of.behind)} for this one."


def _units(count: int) -> str:
    return "1 unit waits" if count == 1 else f"{count} units wait"


def _why(problem: Problem | None) -> str:
    return (
        "nobody has noted why." if problem is None else f"{problem.code.value}: {problem.message}"
    )


def ago(now: datetime, then: datetime) -> str:
    """Say how long ago; never in the future, whatever the clocks say."""
    return f"{_span(now - then)} ago"


def until(now: datetime, then: datetime) -> str:
    """Say how soon."""
    return f"in {_span(then - now)}"


def _span(span: timedelta) -> str:
    seconds = max(0.0, span.total_seconds())
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
