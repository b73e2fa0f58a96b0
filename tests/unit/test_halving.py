"""Rule 9: one stranger or one bad unit must not stop a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from coordinator.domain.entity import FieldType
from coordinator.domain.errors import (
    BatchRefused,
    ErrorCode,
    Problem,
    StoreBusy,
    StoreUnavailable,
)
from coordinator.domain.operation import Unit
from coordinator.domain.sharing import Line
from coordinator.engine.halving import Tried, Turns, try_in_parts
from tests.units import entity, mapping, unit, update

PROBLEM = Problem(ErrorCode.CONSTRAINT_VIOLATED, "refused")


def units(count: int) -> list[Unit]:
    return [cast(Unit, SimpleNamespace(seq=seq)) for seq in range(count)]


class Store:
    """Refuses a part that holds a bad unit, and is busy for one that holds a held unit."""

    def __init__(self, bad: set[int], held: set[int], *, tells: bool) -> None:
        self.bad, self.held, self.tells = bad, held, tells
        self.done: list[int] = []
        self.attempts = 0

    async def attempt(self, part: Sequence[Unit]) -> list[int]:
        self.attempts += 1
        seqs = [unit.seq for unit in part]
        for seq in seqs:
            if seq in self.held:
                named = frozenset({seq}) if self.tells else frozenset[int]()
                raise StoreBusy("ledger", "held", named)
            if seq in self.bad:
                raise BatchRefused("ledger", PROBLEM, {seq: PROBLEM} if self.tells else None)
        self.done += seqs
        return seqs


def run(store: Any, count: int) -> Tried[list[int]]:
    return asyncio.run(try_in_parts(units(count), store.attempt))


@given(
    st.integers(1, 40),
    st.sets(st.integers(0, 39), max_size=6),
    st.sets(st.integers(0, 39), max_size=6),
    st.booleans(),
)
def test_the_good_ones_go_through_and_the_others_are_told_apart(
    count: int, bad: set[int], held: set[int], tells: bool
) -> None:
    store = Store(bad, held, tells=tells)
    tried = run(store, count)
    members = set(range(count))
    assert set(store.done) == members - bad - held
    assert tried.failing.keys() == (bad - held) & members
    assert tried.busy == held & members
    assert not tried.interrupted


def test_a_good_batch_is_tried_once() -> None:
    store = Store(set(), set(), tells=False)
    run(store, 300)
    assert store.attempts == 1


def test_one_bad_unit_costs_a_logarithm() -> None:
    store = Store({123}, set(), tells=False)
    run(store, 256)
    assert store.attempts <= 2 * 8 + 1


def test_what_a_store_that_goes_away_leaves_is_unknown() -> None:
    """I11: neither done nor undone; the parts after it are not tried."""

    class Leaving(Store):
        async def attempt(self, part: Sequence[Unit]) -> list[int]:
            if self.attempts == 2:
                raise StoreUnavailable("ledger", "gone")
            return await super().attempt(part)

    store = Leaving({3}, set(), tells=False)
    tried = run(store, 4)
    assert tried.error is not None
    assert set(store.done) | tried.interrupted | tried.failing.keys() == {0, 1, 2, 3}
    assert tried.interrupted


# --- sharers ------------------------------------------------------------------------------------

WALLET = mapping(entity("wallet", {"id": FieldType.INTEGER, "n": FieldType.INTEGER}))


def sharers(*keys: int) -> list[Unit]:
    return [
        unit(WALLET, update("wallet", key, increment={"n": 1}), seq=seq)
        for seq, key in enumerate(keys)
    ]


async def test_nobody_goes_past_a_sharer_that_is_busy_or_in_another_part() -> None:
    """I5: 1 is held by a stranger, so 2 and 4 stay behind; 3 has a key of its own."""
    store = Store(bad=set(), held={1}, tells=True)
    batch = sharers(1, 1, 1, 2, 1)
    line = Line.of(batch)
    assert line is not None
    turns: Turns[list[int]] = Turns(line, lambda part, _: part)
    tried = await try_in_parts(batch, store.attempt, turns)
    assert (store.done, tried.busy, tried.behind) == ([0, 3], {1}, {2, 4})


async def test_what_a_part_has_left_open_is_not_known_to_the_next() -> None:
    """F23: another transaction would take its uncommitted sums for facts."""
    store = Store(bad={3}, held=set(), tells=False)
    batch = sharers(1, 2, 1, 2)
    line = Line.of(batch)
    assert line is not None
    turns: Turns[list[int]] = Turns(line, lambda part, _: part)
    tried = await try_in_parts(batch, store.attempt, turns)
    assert (store.done, set(tried.failing), tried.behind) == ([0, 1], set(), {2, 3})
