"""The shop: who is there when it opens, and the units of work that a seeded day brings.

Pure: the same seed gives the same day. Owns what each unit is *meant* to show; what becomes of it
is the coordinator's affair, and the report says so. Entities and constraints are those of
``config/``: three of them are known to PostgreSQL only, so a unit that breaks one has been written
to MongoDB already when PostgreSQL refuses it at the pivot.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from coordinator.client import check, insert, unit, update

Json = dict[str, Any]

FIRST_NUMBER: Final = 1000
"""Customers, accounts and products are numbered from here, past those of ``config/sample/``."""
_OPENING_BALANCE: Final = Decimal("5000.00")
_POOR_BALANCE: Final = Decimal("3.00")
_PIECES: Final = 10_000
_RARE_PIECES: Final = 5
_NOUNS: Final = ("tea", "cup", "pot", "jam", "map", "pen", "lamp", "rug", "bell", "kite")


class Kind(StrEnum):
    """What a unit is meant to show, in the words of the report."""

    ORDER = "orders, as they should be"
    POOR = "the balance is too low"
    RARE = f"many want the last {_RARE_PIECES}"
    CLOSED = "the customer's file is closed"
    TWICE = "double click: one cart, two orders"
    RESERVED = "PostgreSQL: CHECK, pieces are reserved"
    EMAIL = "PostgreSQL: UNIQUE, e-mail is taken"
    SHELF = "PostgreSQL: deferred UNIQUE, shelf is taken"
    CANCELLED = "cancelled by their customer"
    AGAIN = "the same unit sent again"
    REUSED = "another unit under a used id"


LATE: Final = frozenset({Kind.RESERVED, Kind.EMAIL, Kind.SHELF})
"""Refused by PostgreSQL after MongoDB was written."""

_SHARES: Final = {
    Kind.POOR: 0.02,
    Kind.RARE: 0.01,
    Kind.CLOSED: 0.015,
    Kind.TWICE: 0.015,
    Kind.RESERVED: 0.008,
    Kind.EMAIL: 0.006,
    Kind.SHELF: 0.006,
    Kind.CANCELLED: 0.004,
    Kind.AGAIN: 0.02,
    Kind.REUSED: 0.01,
}


@dataclass(frozen=True, slots=True)
class Sending:
    """One unit to send. ``key`` is its Kafka key; ``cancel``: ask for its end right behind it."""

    kind: Kind
    unit: Json
    key: str
    cancel: bool = False

    @property
    def id(self) -> str:
        """The unit's id."""
        return str(self.unit["id"])

    @property
    def order(self) -> str | None:
        """The order that it inserts."""
        for each in self.unit["operations"]:
            if each["op"] == "insert" and each["entity"] == "order":
                return str(each["key"])
        return None


@dataclass(frozen=True, slots=True)
class Opening:
    """What is in the stores when the shop opens, beside the samples."""

    customers: Sequence[tuple[int, str, str, str]]
    """id, name, e-mail, status"""
    accounts: Sequence[tuple[int, int, Decimal, str]]
    """id, customer, balance, status"""
    stock: Sequence[tuple[str, int, int, str]]
    """sku, on_hand, reserved, shelf"""
    carts: Sequence[str]


class Shop:
    """A day in the shop: `opening` first, then `day`."""

    def __init__(self, seed: int, units: int) -> None:
        """``units`` is how many the day brings, duplicates and refused ones included."""
        self._chance = random.Random(seed)
        self._units = units
        people = max(40, units // 4)
        self._poor = range(FIRST_NUMBER, FIRST_NUMBER + 5)
        self._closed = range(FIRST_NUMBER + 5, FIRST_NUMBER + 10)
        self._customers = range(FIRST_NUMBER + 10, FIRST_NUMBER + 10 + people)
        products = range(FIRST_NUMBER, FIRST_NUMBER + max(40, units // 3))
        self._skus = [f"{_NOUNS[n % len(_NOUNS)]}-{n}" for n in products]
        self._prices = {sku: Decimal(self._chance.randrange(190, 2990)) / 100 for sku in self._skus}
        self._rare = [f"rarity-{n}" for n in range(max(1, int(units * _SHARES[Kind.RARE]) // 15))]
        self._reserved = [f"reserved-{n}" for n in range(5)]
        self._numbers = iter(range(units * 2))
        self._orders: list[Sending] = []

    def opening(self) -> Opening:
        """Everybody and everything that is there before the first unit."""
        everybody = [*self._poor, *self._closed, *self._customers]
        customers = [
            (n, f"Customer {n}", f"{n}@shop.example", "closed" if n in self._closed else "active")
            for n in everybody
        ]
        accounts = [
            (n, n, _POOR_BALANCE if n in self._poor else _OPENING_BALANCE, "active")
            for n in everybody
        ]
        stock = [(sku, _PIECES, 0, f"shelf-{sku}") for sku in self._skus]
        stock += [(sku, _RARE_PIECES, 0, f"shelf-{sku}") for sku in self._rare]
        stock += [(sku, 10, 10, f"shelf-{sku}") for sku in self._reserved]
        return Opening(customers, accounts, stock, [_cart(n) for n in range(self._units * 2)])

    def day(self) -> list[Sending]:
        """The day's units in their order, exactly as many as asked for."""
        kinds = [kind for kind, share in _SHARES.items() for _ in range(int(self._units * share))]
        doubles = kinds.count(Kind.TWICE)  # each of these brings its first order along
        kinds += [Kind.ORDER] * (self._units - len(kinds) - doubles)
        self._chance.shuffle(kinds)
        sendings: list[Sending] = []
        for kind in kinds:
            sendings.extend(self._make(kind))
        return sendings

    def pair(self) -> tuple[Sending, Sending]:
        """One unit to commit and one to be compensated, for a closer look at each."""
        return self._order(Kind.ORDER), self._refused_late(Kind.SHELF)

    def _make(self, kind: Kind) -> list[Sending]:
        if kind in LATE:
            return [self._refused_late(kind)]
        if kind is Kind.TWICE:
            who, cart = [self._chance.choice(self._customers)], next(self._numbers)
            clicks = (Kind.ORDER, kind)
            return [self._order(click, customers=who, cart=cart) for click in clicks]
        if kind in {Kind.AGAIN, Kind.REUSED}:
            return [self._once_more(kind)]
        if kind is Kind.ORDER:
            self._orders.append(self._order(kind))
            return self._orders[-1:]
        customers = {Kind.POOR: self._poor, Kind.CLOSED: self._closed}.get(kind, self._customers)
        skus = self._rare if kind is Kind.RARE else self._skus
        return [self._order(kind, customers=customers, skus=skus, cancel=kind is Kind.CANCELLED)]

    def _order(
        self,
        kind: Kind,
        *,
        customers: Sequence[int] = (),
        skus: Sequence[str] = (),
        cart: int | None = None,
        extra: Sequence[Json] = (),
        cancel: bool = False,
    ) -> Sending:
        """Debit the account and take the pieces in PostgreSQL; order and cart in MongoDB."""
        customer = self._chance.choice(customers or self._customers)
        skus = skus or self._skus
        chosen = self._chance.sample(skus, min(len(skus), self._chance.choice((1, 1, 2))))
        taken = [(sku, self._pieces(kind)) for sku in chosen]
        lines = [{"sku": sku, "pieces": pieces} for sku, pieces in taken]
        total = sum((self._price(sku) * pieces for sku, pieces in taken), Decimal(0))
        number = next(self._numbers)
        unit_id = f"shop-{number}"
        made = unit(
            check("customer", customer, expect={"status": {"in": ["active", "trial"]}}),
            update("account", customer, increment={"balance": str(-total)}),
            *(update("stock", sku, increment={"on_hand": -pieces}) for sku, pieces in taken),
            *extra,
            insert(
                "order",
                order_of(unit_id),
                {"customer": customer, "state": "paid", "total": str(total), "lines": lines},
            ),
            update(
                "cart",
                _cart(number if cart is None else cart),
                set={"state": "closed", "customer": customer},
                expect={"state": "open"},
            ),
            id=unit_id,
            metadata={"sent by": "the demonstration"},
        )
        return Sending(kind, made, str(customer), cancel)

    def _refused_late(self, kind: Kind) -> Sending:
        if kind is Kind.RESERVED:
            return self._order(kind, skus=self._reserved)
        if kind is Kind.EMAIL:
            one, other = self._chance.sample(self._customers, 2)
            taken = update("customer", one, set={"email": f"{other}@shop.example"})
            return self._order(kind, customers=[one], extra=[taken])
        one_sku, other_sku = self._chance.sample(self._skus, 2)
        moved = update("stock", one_sku, set={"shelf": f"shelf-{other_sku}"})
        return self._order(kind, extra=[moved])

    def _once_more(self, kind: Kind) -> Sending:
        """An earlier unit again, members in another order (F3); or its id with other content."""
        first = self._chance.choice(self._orders or [self._order(Kind.ORDER)])
        if kind is Kind.AGAIN:
            return Sending(kind, dict(reversed(first.unit.items())), first.key)
        return Sending(kind, self._order(kind).unit | {"id": first.id}, first.key)

    def _pieces(self, kind: Kind) -> int:
        return 1 if kind is Kind.RARE else self._chance.randint(1, 4)

    def _price(self, sku: str) -> Decimal:
        return self._prices.get(sku, Decimal("19.90"))


def order_of(unit_id: str) -> str:
    """The key of the order that a unit of this id inserts."""
    return f"o-{unit_id.rpartition('-')[2]}"


def _cart(number: int) -> str:
    return f"cart-{number}"
