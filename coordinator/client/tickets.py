"""Who waits for what: tickets, and the register that gives each outcome to its tickets.

A ticket is known by unit id *and* digest (F3), so that the `id_reused` answer to somebody else's
unit of the same id is never taken for ours. An early refusal is known by the place of its record
(F5): somebody else may have sent our very unit, by a way on which it is forbidden, and its refusal
says nothing of ours. The register holds its entries weakly: memory is bounded by the tickets that
the caller keeps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakValueDictionary

from coordinator.client.errors import ClientError, TooManyPending
from coordinator.client.outcome import Outcome, read_outcome
from coordinator.domain.lifecycle import Status


class Answer:
    """The answer to one submission, or to equal ones that are under way together."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.final: asyncio.Future[Outcome] = loop.create_future()
        self.parked: asyncio.Future[Outcome] = loop.create_future()
        self._sent: list[asyncio.Future[Any]] = []

    def sent(self, acknowledged: asyncio.Future[Any]) -> None:
        """A record of this submission is on its way; Kafka will tell where it stands."""
        self._sent.append(acknowledged)

    def refuse(self, place: str, outcome: Outcome) -> None:
        """Take an early refusal of the record at a place if that is ours, now or once we know."""

        def compare(acknowledged: asyncio.Future[Any]) -> None:
            if _stands_at(acknowledged, place):
                self.give(outcome)

        for acknowledged in self._sent:
            if acknowledged.done():
                compare(acknowledged)
            else:
                acknowledged.add_done_callback(compare)

    def give(self, outcome: Outcome) -> None:
        """Take an outcome; the first final one counts, and the last parked one before it."""
        if not outcome.final:
            if self.parked.done():
                self.parked = asyncio.get_running_loop().create_future()
            self.parked.set_result(outcome)
        elif not self.final.done():
            self.final.set_result(outcome)
            self._sent.clear()

    def fail(self, error: ClientError) -> None:
        """Let everybody who awaits this fail."""
        for future in (self.final, self.parked):
            if not future.done():
                future.set_exception(error)
                future.exception()  # a ticket that nobody awaits is no fault to be logged


_REFUSED: Final = "/refused/"


def _stands_at(acknowledged: asyncio.Future[Any], place: str) -> bool:
    """Whether a record stands at this place.

    A broker that was sent a batch twice may have forgotten where it stands (offset -1). Then no
    refusal is believed: one too few makes the outcome late, and submitting again is safe; one too
    many would tell of a unit that commits that it does not.
    """
    if acknowledged.cancelled() or acknowledged.exception() is not None:
        return False
    at = acknowledged.result()
    return place == f"{at.topic}-{at.partition}-{at.offset}"


class _Submitted:
    """All submissions of one unit id that somebody holds a ticket of."""

    __slots__ = ("__weakref__", "by_digest")

    def __init__(self) -> None:
        self.by_digest: dict[str, Answer] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """The right to one outcome; give it to `CoordinatorClient.outcome`."""

    unit: str
    digest: str
    answer: Answer
    submitted: _Submitted

    @property
    def done(self) -> bool:
        """Whether the final outcome has come."""
        return self.answer.final.done()


class Register:
    """The tickets that are held, by unit id."""

    def __init__(self, pending_max: int) -> None:
        self._pending_max = pending_max
        self._by_id: WeakValueDictionary[bytes, _Submitted] = WeakValueDictionary()

    def issue(self, unit_id: str, digest: str) -> Ticket:
        """Make a ticket; equal units that are under way share their answer.

        A unit that was answered and is submitted once more waits for an answer of its own: the
        coordinator publishes the outcome again (F4). Raises `TooManyPending`.
        """
        key = unit_id.encode()
        submitted = self._by_id.get(key)
        if submitted is None:
            if len(self._by_id) >= self._pending_max:
                raise TooManyPending(f"More than {self._pending_max} tickets are held.")
            submitted = self._by_id[key] = _Submitted()
        answer = submitted.by_digest.get(digest)
        if answer is None or answer.final.done():
            answer = submitted.by_digest[digest] = Answer()
        return Ticket(unit_id, digest, answer, submitted)

    def deliver(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        """Give a message of the outcomes topic to its ticket, if somebody holds one."""
        submitted = None if key is None else self._by_id.get(key)
        if submitted is None or value is None:
            return
        try:
            outcome = read_outcome(value)
        except ValueError:  # somebody else's message in this topic
            return
        place = _refused_at(outcome, headers)
        if place is not None:
            for answer in submitted.by_digest.values():
                answer.refuse(place, outcome)
            return
        if outcome.digest is None:  # it does not say which of them it is about
            for answer in submitted.by_digest.values():
                answer.give(outcome)
            return
        answer_or_none = submitted.by_digest.get(outcome.digest)
        if answer_or_none is not None:
            answer_or_none.give(outcome)

    def fail(self, error: ClientError) -> None:
        """Let every ticket fail."""
        for submitted in list(self._by_id.values()):
            for answer in submitted.by_digest.values():
                answer.fail(error)


def _refused_at(outcome: Outcome, headers: Sequence[tuple[str, bytes | None]]) -> str | None:
    """Give the place of the record that an early refusal is about (F5), if it is one."""
    if outcome.status is not Status.REJECTED:
        return None
    ce_id = (dict(headers).get("ce_id") or b"").decode(errors="replace")
    start = outcome.unit + _REFUSED
    return ce_id[len(start) :] if ce_id.startswith(start) else None
