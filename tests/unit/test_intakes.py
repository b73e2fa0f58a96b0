"""Admission by authority: each topic's records are read with its rights, or its signer's."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from coordinator import signatures
from coordinator.domain.announce import Announcer
from coordinator.domain.authority import Authority, Breach, Grant, granted_readers
from coordinator.domain.operation import OperationKind
from coordinator.domain.publishing import Message
from coordinator.domain.signing import SignedIntake, TrustedKey
from coordinator.engine.admission import Admission, AdmissionRules, IntakeRules
from coordinator.engine.drawing import Drawing
from coordinator.engine.membership import Membership
from coordinator.engine.ports import Record
from coordinator.engine.schedule import Schedule
from coordinator.memory.journal import MemoryJournal
from coordinator.memory.journal_tables import Epoch
from coordinator.memory.link import DirectLink
from coordinator.memory.workers import MemoryWorkers
from coordinator.memory.world import World
from coordinator.signatures import Signer
from tests.admissions import SHOP
from tests.engine_fakes import HighestChance, ManualClock, SeenObserver

SEED = b"\x07" * 32
UPDATE = {"op": "update", "entity": "account", "key": 1, "set": {"balance": 2}}


def updates(**parts: Any) -> Authority:
    grant = Grant("account", frozenset({OperationKind.UPDATE}))
    return Authority(granted_readers(SHOP, [grant]), **parts)


class Door:
    """An admission with three topics: all rights, some rights, and signed."""

    def __init__(self) -> None:
        announcer = Announcer("test", "0", "outcomes", "changes.{entity}")
        self.world = World(SHOP, [], pivot_store=None, announcer=announcer, seconds=lambda: 0.0)
        self.clock, bell = ManualClock(), asyncio.Event()
        self.verified = 0
        number, link, epoch = self.world.register(1, 10), DirectLink(), Epoch()
        self.schedule, self.observer = Schedule(), SeenObserver()
        self.signer = Signer(SEED, "partner-1", "signed")
        signed = SignedIntake(
            "signed",
            3_600,
            30,
            {"partner-1": TrustedKey(self.signer.public_key, updates(cancels=frozenset()))},
            self._verify,
        )
        self.admission = Admission(
            journal=MemoryJournal(self.world, number, link, epoch),
            schedule=self.schedule,
            mapping=SHOP,
            rules=AdmissionRules(
                max_bytes=1_000,
                timeout_ms=30_000,
                intakes={
                    "shop": IntakeRules(frozenset({"replies"})),
                    "some": IntakeRules(frozenset(), updates(cancels=frozenset({"some"}))),
                    "signed": IntakeRules(frozenset({"replies"}), signed=signed),
                },
                dead_letters_topic="dead",
                backlog_units_max=100,
                backlog_bytes_max=1_000_000,
            ),
            announcer=announcer,
            drawing=Drawing(self.clock, HighestChance()),
            clock=self.clock,
            observer=self.observer,
            membership=Membership(
                MemoryWorkers(self.world, number, 10, link, epoch), self.schedule, self.clock
            ),
            bell=bell,
            outbox_bell=bell,
        )
        self._offsets = 0

    def _verify(self, *what: bytes) -> bool:
        self.verified += 1
        return signatures.verify(*what)

    async def take(
        self, topic: str, value: Any, *headers: tuple[str, bytes | None], signed: bool = False
    ) -> list[tuple[Any, ...]]:
        """Admit one record; give what the observer was told beside that."""
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        if signed:
            now = self.clock.now().timestamp()
            headers = (*headers, self.signer.header(b"k", headers, raw, now))
        await self.admission.positions([(topic, 0)])
        before = len(self.observer.seen)
        self._offsets += 1
        record = Record(topic, 0, self._offsets, 0, b"k", raw, headers)
        await self.admission.admit([record])
        usual = {"received", "admitted", "stage_done"}
        return [each for each in self.observer.seen[before:] if each[0] not in usual]

    def published(self) -> list[Message]:
        return [each for row in self.world.journal.outbox.values() for each in row]

    def ids(self) -> list[str]:
        return sorted(self.world.journal.ids)


def unit(unit_id: str, *operations: Any, **members: Any) -> dict[str, Any]:
    return {"id": unit_id, "operations": list(operations or [UPDATE]), **members}


@pytest.fixture
def door() -> Door:
    return Door()


INSERT = {"op": "insert", "entity": "order", "key": "o", "values": {"total": 1}}


async def test_each_topic_has_rights_of_its_own(door: Door) -> None:
    await door.take("shop", unit("a", UPDATE, INSERT))
    assert await door.take("some", unit("b", UPDATE, INSERT)) == [("refused_early",)]
    await door.take("some", unit("c"))
    assert door.ids() == ["a", "c"]
    (outcome,) = door.published()
    assert outcome.value is not None
    said = json.loads(outcome.value)
    assert (said["unit"], said["status"], said["error"]["code"]) == ("b", "rejected", "forbidden")
    assert said["error"]["path"] == "operations.1.entity"


async def test_a_refused_unit_leaves_its_id_free(door: Door) -> None:
    await door.take("some", unit("a", INSERT))
    await door.take("some", unit("a"))
    assert door.ids() == ["a"]


async def test_reply_topics_are_those_of_the_record_s_own_topic(door: Door) -> None:
    await door.take("shop", unit("a"), ("reply-to", b"replies"))
    assert await door.take("some", unit("b"), ("reply-to", b"replies")) == [("refused_early",)]
    assert [each.topic for each in door.published()] == ["outcomes"]
    assert door.ids() == ["a"]


async def test_a_signed_topic_takes_what_is_signed_with_the_rights_of_the_key(door: Door) -> None:
    await door.take("signed", unit("a"), signed=True)
    assert door.ids() == ["a"]
    assert await door.take("signed", unit("b", INSERT), signed=True) == [("refused_early",)]
    assert await door.take("signed", unit("c")) == [("refused_early",)]
    assert door.ids() == ["a"]


async def test_nothing_is_verified_on_topics_without_keys(door: Door) -> None:
    await door.take("shop", unit("a"), signed=True)
    await door.take("some", unit("b"), signed=True)
    assert door.verified == 0
    await door.take("signed", unit("c"), signed=True)
    assert door.verified == 1


async def test_what_is_too_large_or_empty_is_not_verified(door: Door) -> None:
    for value in (b"", b" " * 1_001):
        assert await door.take("signed", value, signed=True) == [("dead_letter",)]
    assert door.verified == 0
    assert [each.topic for each in door.published()] == ["dead", "dead"]


async def test_a_broken_record_is_answered_only_where_its_signer_is_known(door: Door) -> None:
    broken = b'{"id": "victim", "a": 1, "a": 2}'
    assert await door.take("signed", broken) == [("dead_letter",)]
    assert [each.topic for each in door.published()] == ["dead"]
    assert await door.take("signed", broken, signed=True) == [("dead_letter",)]
    assert [each.topic for each in door.published()] == ["dead", "dead", "outcomes"]


async def test_an_unsigned_copy_of_a_unit_is_no_answer_to_it(door: Door) -> None:
    """Its outcome has no digest, goes to no reply topic and echoes nothing."""
    await door.take("signed", unit("a", metadata=1), ("reply-to", b"replies"), signed=True)
    await door.take("signed", unit("a", metadata=1), ("reply-to", b"replies"))
    (outcome,) = door.published()
    assert outcome.topic == "outcomes"
    assert outcome.value is not None
    said = json.loads(outcome.value)
    assert (said["digest"], said["metadata"]) == (None, None)
    assert dict(outcome.headers)["ce_id"] == b"a/refused/signed-0-2"


async def test_signatures_age_by_the_journals_clock(door: Door) -> None:
    value = json.dumps(unit("a")).encode()
    old = door.signer.header(b"k", (), value, door.clock.now().timestamp() - 931)
    assert await door.take("signed", value, old) == [("refused_early",)]
    assert door.ids() == []


async def test_cancels_are_bounded_by_topic_and_by_key(door: Door) -> None:
    await door.take("shop", unit("a"))
    await door.take("some", unit("b"))
    assert await door.take("some", {"cancel": "a"}) == [("cancel_refused", "a", Breach.CANCEL)]
    assert await door.take("signed", {"cancel": "a"}) == [("cancel_refused", "a", Breach.UNSIGNED)]
    assert await door.take("signed", {"cancel": "a"}, signed=True) == [
        ("cancel_refused", "a", Breach.CANCEL)
    ]
    rows = {each.id: each.cancel_requested for each in door.world.journal.units.values()}
    assert rows == {"a": None, "b": None}
    await door.take("some", {"cancel": "b"})
    await door.take("shop", {"cancel": "a", "reason": "all rights"})
    rows = {each.id: each.cancel_requested for each in door.world.journal.units.values()}
    assert rows == {"a": "all rights", "b": ""}
    assert door.published() == []


async def test_a_topic_that_nobody_has_spoken_of_is_not_read(door: Door) -> None:
    with pytest.raises(KeyError):
        await door.take("unknown", unit("a"))


async def test_without_the_judgement_of_signatures_an_unsigned_unit_is_taken(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    believed = TrustedKey(door.signer.public_key, Authority())
    monkeypatch.setattr("coordinator.engine.admission.judge", lambda *_: believed)
    await door.take("signed", unit("a"))
    assert door.ids() == ["a"]
