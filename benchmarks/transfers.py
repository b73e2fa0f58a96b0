"""Who pays whom: endless streams of transfers, as plain values.

A transfer takes 1 from each of some accounts and gives 1 to as many wallets. Pure: the same seed
gives the same stream.
"""

from __future__ import annotations

import itertools
import random
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

KEYS: Final = 10_000
POOR: Final = 1_000
"""So many accounts beyond the last are empty, and as many wallets are missing there."""

_STRIDE: Final = 7  # has no divisor in common with the number of keys: no wallet comes twice
_ZIPF_EXPONENT: Final = 0.99
_SEED: Final = 20_251
_REFUSED_EVERY: Final = 20

COMMITTED: Final = frozenset({"committed"})


class Transfer(NamedTuple):
    """One unit of work."""

    id: str
    debits: tuple[int, ...]
    credits: tuple[int, ...]

    def as_unit(self) -> dict[str, Any]:
        """Give it as it is submitted to the coordinator."""
        debits = [_change("account", key, "-1") for key in self.debits]
        return {
            "id": self.id,
            "timeout_ms": 600_000,
            "operations": debits + [_change("wallet", key, "1") for key in self.credits],
        }


def _change(entity: str, key: int, amount: str) -> dict[str, Any]:
    return {"op": "update", "entity": entity, "key": key, "increment": {"balance": amount}}


_Sides = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of stream. ``sides`` makes an endless one: the accounts and wallets of a transfer.

    ``statuses`` are the outcomes that may come of it.
    """

    sides: Callable[[], Iterator[_Sides]]
    keys: int = KEYS
    width: int = 1
    statuses: frozenset[str] = COMMITTED

    def transfers(self, name: str) -> Iterator[Transfer]:
        """Give transfers whose ids begin with ``name``."""
        for number, (debits, credits) in enumerate(self.sides()):
            yield Transfer(f"{name}-{number}", debits, credits)

    def take(self, name: str, count: int) -> list[Transfer]:
        """Give the first so many."""
        return list(itertools.islice(self.transfers(name), count))


def uncontended(width: int = 1, keys: int = KEYS) -> Workload:
    """Nobody waits for anybody: a key comes again only after all others."""

    def sides() -> Iterator[_Sides]:
        for first in itertools.count(0, width):
            debits = tuple((first + n) % keys for n in range(width))
            yield debits, tuple(key * _STRIDE % keys for key in debits)

    return Workload(sides, keys, width)


def one_hot_key() -> Workload:
    """Everybody pays to one wallet."""

    def sides() -> Iterator[_Sides]:
        for number in itertools.count():
            yield (number % KEYS,), (0,)

    return Workload(sides)


def zipf() -> Workload:
    """Both keys of a transfer are drawn by Zipf's law, each kind in an order of its own."""

    def sides() -> Iterator[_Sides]:
        chance = random.Random(_SEED)
        steps = list(itertools.accumulate(1 / rank**_ZIPF_EXPONENT for rank in range(1, KEYS + 1)))
        accounts, wallets = list(range(KEYS)), list(range(KEYS))
        chance.shuffle(accounts)
        chance.shuffle(wallets)

        def rank() -> int:
            return bisect_left(steps, chance.random() * steps[-1])

        while True:
            yield (accounts[rank()],), (wallets[rank()],)

    return Workload(sides)


def refused_by_mongodb() -> Workload:
    """Every twentieth pays to a wallet that is not there."""
    return _sometimes(lambda key, stranger: ((key,), (stranger,)), "rejected")


def refused_by_postgresql() -> Workload:
    """Every twentieth takes from an empty account, which only a CHECK of PostgreSQL forbids."""
    return _sometimes(
        lambda key, stranger: ((stranger,), (key * _STRIDE % KEYS,)), "compensated", "rejected"
    )


def _sometimes(refused: Callable[[int, int], _Sides], *statuses: str) -> Workload:
    def sides() -> Iterator[_Sides]:
        for number in itertools.count():
            key = number % KEYS
            if number % _REFUSED_EVERY:
                yield (key,), (key * _STRIDE % KEYS,)
            else:
                yield refused(key, KEYS + number // _REFUSED_EVERY % POOR)

    return Workload(sides, statuses=COMMITTED | frozenset(statuses))
