"""Thousands of hostile messages, each judged by an oracle of its own (I7, I10, I12).

``COORDINATOR_FUZZ`` says how many and ``COORDINATOR_FUZZ_SEED`` which; `make fuzz` sets both. A run
prints its seed, and the same seed makes the same messages again.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from tests.acceptance.conftest import MakeWorld
from tests.acceptance.fuzz.grammar import Grammar, Message
from tests.acceptance.fuzz.oracle import DeadLetter, Oracle, Refused, Unit, Verdict
from tests.acceptance.harness.canonical import digest_of
from tests.acceptance.harness.operations import adding, insert
from tests.acceptance.harness.topics import Place
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_id, new_number

MESSAGES = int(os.environ.get("COORDINATOR_FUZZ", "1500"))
SEED = int(os.environ.get("COORDINATOR_FUZZ_SEED", "0")) or random.SystemRandom().getrandbits(32)

AT_ONCE = 250
GOOD_EVERY = 25
PAIRS = 8
BALANCE = Decimal(1000)
MEMORY_GROWTH_MAX = 50 * 1024 * 1024
MAX_BYTES = 65_536
LATE = {
    "already_exists", "not_found", "expectation_failed", "out_of_bounds", "constraint_violated",
    "type_mismatch", "too_large", "id_reused", "cancelled", "deadline_exceeded", "undo_failed",
}  # fmt: skip
LISTED_MAX = 200


@dataclass
class Answers:
    """What came back for each record, by its place."""

    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By `ce_id`."""
    letters: dict[str, list[Any]] = field(default_factory=dict)
    read: int = 0

    def take(self, world: World) -> None:
        """Read on where it stood."""
        records = world.topics.records
        for record in records[self.read :]:
            if record.topic == world.topics.outcomes_topic:
                self.outcomes[record.ce_id] = record.json
            elif record.topic == world.topics.dead_letters_topic:
                last = dict(record.headers)
                names = ("topic", "partition", "offset")
                at = "-".join((last[f"coordinator.errors.{n}"] or b"").decode() for n in names)
                self.letters.setdefault(at, []).append(record)
        self.read = len(records)


def missing(verdict: Verdict, place: Place, answers: Answers) -> bool:
    """Whether what the verdict promises has not come yet."""
    match verdict:
        case DeadLetter():
            has_answer = verdict.answered is None or f"{verdict.answered}/refused/{place}" in (
                answers.outcomes
            )
            return str(place) not in answers.letters or not has_answer
        case Refused():
            return f"{verdict.id}/refused/{place}" not in answers.outcomes
        case Unit():
            return (
                f"{verdict.id}/duplicate/{place}" not in answers.outcomes
                and f"{verdict.id}/outcome" not in answers.outcomes
            )
    return False


def faults(message: Message, verdict: Verdict, place: Place, answers: Answers) -> list[str]:
    """Say what is wrong with what came back for one record."""
    found: list[str] = []
    letters = answers.letters.get(str(place), [])
    if len(letters) != isinstance(verdict, DeadLetter):
        found.append(f"{len(letters)} dead letters")
    if isinstance(verdict, DeadLetter):
        for letter in letters:
            code = dict(letter.headers)["coordinator.errors.code"].decode()
            if code != verdict.code or (letter.value, letter.key) != (message.value, message.key):
                found.append(f"the dead letter is {code}")
    answered = verdict.answered if isinstance(verdict, DeadLetter) else verdict.id
    refused = answers.outcomes.get(f"{answered}/refused/{place}")
    if refused is not None:
        if isinstance(verdict, Refused):
            found += _refusal_faults(message, verdict, refused)
        elif not isinstance(verdict, DeadLetter):
            found.append(f"refused early: {refused['error']}")
        elif refused["error"]["code"] != "malformed" or refused["digest"] is not None:
            found.append(f"answered with {refused}")
    return found


def _refusal_faults(message: Message, verdict: Refused, outcome: dict[str, Any]) -> list[str]:
    found = []
    error = outcome["error"]
    told = {(each["operation"], each["code"]) for each in error["details"]}
    if len(error["details"]) < LISTED_MAX and told != verdict.mistakes:
        found.append(f"told {sorted(map(str, told))}, not {sorted(map(str, verdict.mistakes))}")
    first = min(-1 if operation is None else operation for operation, _ in verdict.mistakes)
    if error["operation"] != (None if first < 0 else first):
        found.append(f"the first mistake is that of operation {error['operation']}, not {first}")
    structured = b"cloudevents+json" in (dict(message.headers).get("content-type") or b"").lower()
    if not structured and outcome["digest"] != digest_of(message.value or b""):
        found.append("the digest is another")
    return found


async def test_i10_hostile_messages_are_answered_rightly_and_harm_nobody(
    make_world: MakeWorld,
) -> None:
    """I7, I10, I12: every message its answer, every good unit its commit, the memory flat."""
    print(f"\nfuzz: {MESSAGES} messages, COORDINATOR_FUZZ_SEED={SEED}")
    world = await make_world({"units": {"max_bytes": MAX_BYTES}, "batch": {"max_units": 100}})
    # A sender's own undo may be refused (F25): then the unit is parked, and that is an error.
    world.daemon.expected_errors |= {"unit.parked", "intake.record_set_aside"}
    pairs = [(new_number() + 10**6, f"good-{new_id()}") for _ in range(PAIRS)]
    for account, wallet in pairs:
        await world.committed(
            insert("account", account, balance=str(BALANCE)),
            insert("wallet", wallet, balance=str(BALANCE)),
        )
    grammar = Grammar(random.Random(SEED), world.entities, f"f{SEED:x}")
    oracle = Oracle(world.entities, max_bytes=MAX_BYTES, reply_topics=[world.topics.replies_topic])
    sent: list[tuple[Message, Verdict, Place]] = []
    good: list[str] = []
    answers = Answers()
    began, memory = time.monotonic(), 0
    while len(sent) < MESSAGES:
        for _ in range(min(AT_ONCE, MESSAGES - len(sent))):
            message = grammar.message()
            place = await world.topics.submit(
                message.value, key=message.key, headers=message.headers
            )
            sent.append((message, oracle.judge(message.value, message.headers), place))
            if len(sent) % GOOD_EVERY == 0:
                account, wallet = pairs[len(good) % PAIRS]
                good.append(
                    await world.submit(
                        adding("account", account, balance="-1"),
                        adding("wallet", wallet, balance="1"),
                        timeout_ms=120_000,
                    )
                )
        await _answered(world, sent, good, answers)
        if not memory:
            memory = resident_bytes(world)
    grown = resident_bytes(world) - memory
    bomb = Place(world.topics.units, 0, await drop_a_bomb(world), 0)
    letter = await world.topics.dead_letter(bomb, seconds=60)
    assert (letter.value, letter.header("coordinator.errors.code")) == (None, "too_large")
    await world.settled()
    answers.take(world)

    wrong = [
        (message.what, fault, message.value, message.headers)
        for message, verdict, place in sent
        for fault in faults(message, verdict, place, answers)
    ]
    wrong += [("a unit", fault, None, []) for fault in _unit_faults(sent, answers)]
    kinds = Counter(type(verdict).__name__ for _, verdict, _ in sent)
    seconds = time.monotonic() - began
    print(f"fuzz: {dict(kinds)} in {seconds:.0f} s, memory grew by {grown >> 10} KiB")
    assert not wrong, f"{len(wrong)} wrong, seed {SEED}; the first: {wrong[:5]}"
    statuses = {answers.outcomes[f"{unit_id}/outcome"]["status"] for unit_id in good}
    assert statuses == {"committed"}
    await _sums_hold(world, pairs, len(good))
    assert grown < MEMORY_GROWTH_MAX
    assert world.daemon.exit_code() is None
    # Once for the bomb, and once more while it is looked for.
    assert len(world.daemon.logs("intake.rebuilt")) <= 3


async def drop_a_bomb(world: World) -> int:
    """Put a gzip batch of some kilobytes on partition 0 that unpacks to 48 MiB; give its offset."""
    batch = BatchBuilder(64 * 1024 * 1024, 1)
    for _ in range(48):
        batch.append(timestamp=None, key=b"bomb", value=bytes(1024 * 1024), headers=[])
    producer = AIOKafkaProducer(bootstrap_servers=world.topics.bootstrap)
    await producer.start()
    try:
        await producer.partitions_for(world.topics.units)
        sent = await (await producer.send_batch(batch, world.topics.units, partition=0))
    finally:
        await producer.stop()
    return int(sent.offset)


async def _answered(
    world: World,
    sent: list[tuple[Message, Verdict, Place]],
    good: list[str],
    answers: Answers,
) -> None:
    """Wait until everything has come that the verdicts promise."""
    waiting = [(verdict, place) for _, verdict, place in sent[-AT_ONCE:]]
    waiting += [(Unit(unit_id), sent[-1][2]) for unit_id in good[-AT_ONCE // GOOD_EVERY :]]

    async def look() -> bool:
        answers.take(world)
        waiting[:] = [each for each in waiting if missing(*each, answers)]
        assert world.daemon.exit_code() is None, world.daemon.tail()
        return not waiting

    await until(look, "every message is answered", 60, lambda: f"{waiting[:3]} seed {SEED}")


def _unit_faults(sent: list[tuple[Message, Verdict, Place]], answers: Answers) -> list[str]:
    """Of the units that share an id one is the first, and every other one is a duplicate (F4)."""
    places: dict[str, list[Place]] = {}
    for _, verdict, place in sent:
        if isinstance(verdict, Unit):
            places.setdefault(verdict.id, []).append(place)
    found = []
    for unit_id, where in places.items():
        final = answers.outcomes.get(f"{unit_id}/outcome")
        parked = f"{unit_id}/parked" in answers.outcomes
        duplicates = [
            each for place in where if (each := f"{unit_id}/duplicate/{place}") in answers.outcomes
        ]
        if parked and final is None:
            continue
        if final is None or len(duplicates) != len(where) - 1:
            found.append(f"{unit_id}: {len(where)} records, {len(duplicates)} duplicates, {final}")
            continue
        for outcome in (final, *(answers.outcomes[each] for each in duplicates)):
            error = outcome["error"]
            if (error is None) != (outcome["status"] == "committed"):
                found.append(f"{unit_id}: {outcome}")
            elif error is not None and error["code"] not in LATE:
                found.append(f"{unit_id}: {error}")
    return found


async def _sums_hold(world: World, pairs: list[tuple[int, str]], transfers: int) -> None:
    moved = Decimal(0)
    for account, wallet in pairs:
        row, document = await world.row("accounts", account), world.doc("wallets", wallet)
        assert row is not None
        assert document is not None
        assert row["balance"] + document["balance"].to_decimal() == 2 * BALANCE
        moved += BALANCE - row["balance"]
    assert moved == transfers


def resident_bytes(world: World) -> int:
    """Give the daemon's resident memory."""
    status = Path(f"/proc/{world.daemon.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+([0-9]+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


pytestmark = pytest.mark.timeout(max(180, MESSAGES // 10))
