"""Which fault comes when: drawn from a seed alone, so that a seed repeats the schedule.

Kinds are dealt like cards: every kind comes once, in an order of the seed's, before any comes
again. So a run of a few minutes meets all of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

SLOTS = 3
"""Daemons that run at once; a slot's daemon is replaced when it ends."""
LEASE_SECONDS = 3
GAP_SECONDS = (5.0, 20.0)
AWAY_SECONDS_MAX = 4.0
HANG_LEASES_MAX = 2.5


class Kind(StrEnum):
    """What can be done to a daemon, a server or what lies between them."""

    KILL = "daemon killed"
    FREEZE = "daemon frozen past its lease"
    POSTGRES_FAST = "PostgreSQL restarted, fast"
    POSTGRES_IMMEDIATE = "PostgreSQL restarted, immediate"
    MONGOD_KILL = "mongod killed"
    MONGOD_STEP_DOWN = "mongod stepped down"
    BROKER_KILL = "broker killed"
    CUT = "connections cut"
    HANG = "connections frozen"
    DEAFEN = "answers lost"


class Server(StrEnum):
    """What a daemon's connections lead to."""

    POSTGRES = "PostgreSQL"
    MONGOD = "mongod"
    BROKER = "broker"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: at which second it begins and for how many it lasts, where that has a meaning.

    ``slot`` is the daemon, ``server`` the far end of its connections; other kinds ignore them.
    """

    at: float
    kind: Kind
    slot: int
    server: Server
    seconds: float


MUST_MEET = (
    Kind.KILL,
    Kind.FREEZE,
    Kind.POSTGRES_IMMEDIATE,
    Kind.MONGOD_KILL,
    Kind.BROKER_KILL,
    Kind.CUT,
)
"""What the short form meets, each once."""
SHORT_SECONDS = 45.0
SHORT_GAP_SECONDS = (5.0, 7.0)


def plan(
    seed: int,
    seconds: float,
    *,
    gap_seconds: tuple[float, float] = GAP_SECONDS,
    kinds: Sequence[Kind] = tuple(Kind),
) -> tuple[Fault, ...]:
    """Draw the faults of a run that lasts so long."""
    chance = random.Random(f"faults {seed}")
    faults = []
    at = 0.0
    for kind in _dealt(chance, kinds):
        at += chance.uniform(*gap_seconds)
        if at >= seconds:
            break
        faults.append(_fault(chance, kind, at))
    return tuple(faults)


def short_plan(seed: int) -> tuple[Fault, ...]:
    """Draw the faults of the short form: each of `MUST_MEET` once, in the seed's order."""
    faults = plan(seed, SHORT_SECONDS, gap_seconds=SHORT_GAP_SECONDS, kinds=MUST_MEET)
    return faults[: len(MUST_MEET)]


def _dealt(chance: random.Random, kinds: Sequence[Kind]) -> Iterator[Kind]:
    while True:
        yield from chance.sample(list(kinds), len(kinds))


def _fault(chance: random.Random, kind: Kind, at: float) -> Fault:
    slot = chance.randrange(SLOTS)
    server = chance.choice(list(Server))
    longest = LEASE_SECONDS * HANG_LEASES_MAX if kind is Kind.HANG else AWAY_SECONDS_MAX
    return Fault(round(at, 1), kind, slot, server, round(chance.uniform(0.2, longest), 1))
