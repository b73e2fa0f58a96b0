"""The demonstration's checks can fail: each one notices the harm that it is there for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from coordinator.demo.checks import failed, judge
from coordinator.demo.evidence import Evidence
from coordinator.demo.mishaps import Broken
from coordinator.demo.shop import Kind, Sending, Shop
from coordinator.demo.stores import Snapshot
from coordinator.demo.topics import Message

Json = dict[str, Any]


def message(ce_id: str, body: Json) -> Message:
    headers = (("ce_id", ce_id.encode()),)
    return Message("topic", 0, 0, None, json.dumps(body).encode(), headers)


def outcome(unit: str, status: str, kind: str = "outcome", **more: Any) -> Message:
    operations = [{"op": "update"}] * 4 if status == "committed" else []
    body = {"unit": unit, "status": status, "error": None, "operations": operations}
    return message(f"{unit}/{kind}", body | {"duplicate": False} | more)


def event(unit: str, n: int, before: Json | None, after: Json) -> Message:
    body = {"before": before, "after": after, "transaction": {"id": unit, "total_order": n}}
    return message(f"{unit}/{n}", body)


def operations(order: str) -> list[Json]:
    return [
        {"op": "update", "entity": "account", "key": 1},
        {"op": "insert", "entity": "order", "key": order},
        {"op": "update", "entity": "cart", "key": f"cart-{order}"},
    ]


def evidence() -> Evidence:
    """One order committed, one compensated, one sent again, one record broken: all is well."""
    line = {"sku": "tea", "pieces": 2}
    order = {"_id": "o-1", "customer": 1, "total": Decimal("7.50"), "lines": [line], "version": 1}
    account = [{"id": 1, "customer": 1, "balance": Decimal(b), "version": v}
               for b, v in (("10.00", 1), ("2.50", 2))]  # fmt: skip
    stock = [{"sku": "tea", "on_hand": pieces, "version": v} for pieces, v in ((5, 1), (3, 2))]
    open_, closed = {"_id": "cart-o-1", "state": "open"}, {"_id": "cart-o-1", "state": "closed"}
    other = {"_id": "cart-o-2", "state": "open"}
    carts = {"cart-o-2": other}
    shown = order | {"total": "7.50"}
    sent = [
        Sending(Kind.ORDER, {"id": "u-1", "operations": operations("o-1")}, "1"),
        Sending(Kind.SHELF, {"id": "u-2", "operations": operations("o-2")}, "1"),
    ]
    return Evidence(
        sendings=[*sent, Sending(Kind.AGAIN, sent[0].unit, "1")],
        broken=[Broken("torn", b"{")],
        before=Snapshot({}, {1: account[0]}, {"tea": stock[0]}, {}, {"cart-o-1": open_} | carts),
        after=Snapshot(
            {}, {1: account[1]}, {"tea": stock[1]}, {"o-1": order}, {"cart-o-1": closed} | carts
        ),
        outcomes=[
            outcome("u-1", "committed"),
            outcome("u-2", "compensated"),
            outcome("u-1", "committed", "duplicate/t-0-3", duplicate=True),
        ],
        changes={
            "account": [event("u-1", 1, *({**a, "balance": str(a["balance"])} for a in account))],
            "stock": [event("u-1", 2, *stock)],
            "order": [event("u-1", 3, None, shown)],
            "cart": [event("u-1", 4, open_, closed)],
        },
        dead_letters=[Message("dlt", 0, 0, None, b"{", ())],
        repeats=0,
        open_units=0,
        exit_code=0,
        stories=[],
        paces=[],
    )


def test_a_clean_run_passes_every_check() -> None:
    assert failed(judge(evidence())) == []


def _left_behind(seen: Evidence) -> Evidence:
    ghost = seen.after.orders["o-1"] | {"_id": "o-2", "total": Decimal(0), "lines": []}
    return replace(seen, after=replace(seen.after, orders={**seen.after.orders, "o-2": ghost}))


def _debited_twice(seen: Evidence) -> Evidence:
    account = seen.after.accounts[1] | {"balance": Decimal("-5.00")}
    return replace(seen, after=replace(seen.after, accounts={1: account}))


def _pieces_lost(seen: Evidence) -> Evidence:
    stock = seen.after.stock["tea"] | {"on_hand": 1}
    return replace(seen, after=replace(seen.after, stock={"tea": stock}))


def _cart_not_reopened(seen: Evidence) -> Evidence:
    carts = {key: cart | {"state": "closed"} for key, cart in seen.after.carts.items()}
    return replace(seen, after=replace(seen.after, carts=carts))


def _announced_though_undone(seen: Evidence) -> Evidence:
    stray = event("u-2", 1, seen.before.carts["cart-o-2"], seen.before.carts["cart-o-2"])
    return replace(seen, changes={**seen.changes, "cart": [*seen.changes["cart"], stray]})


def _event_missing(seen: Evidence) -> Evidence:
    return replace(seen, changes={**seen.changes, "order": []})


def _out_of_order(seen: Evidence) -> Evidence:
    first = seen.changes["stock"][0]
    later = event("u-1", 5, {"sku": "tea", "version": 3}, {**first.body["after"], "version": 4})
    return replace(seen, changes={**seen.changes, "stock": [first, later]})


def _two_decisions(seen: Evidence) -> Evidence:
    return replace(seen, outcomes=[*seen.outcomes, outcome("u-1", "rejected")])


def _dead_letter_changed(seen: Evidence) -> Evidence:
    return replace(seen, dead_letters=[Message("dlt", 0, 0, None, b"{}", ())])


def _unanswered_duplicate(seen: Evidence) -> Evidence:
    return replace(seen, outcomes=seen.outcomes[:2])


def _left_open(seen: Evidence) -> Evidence:
    return replace(seen, open_units=1)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_left_behind, "and of no other"),
        (_debited_twice, "balances in PostgreSQL"),
        (_debited_twice, "every account on its own"),
        (_pieces_lost, "pieces in PostgreSQL"),
        (_pieces_lost, "every product on its own"),
        (_pieces_lost, "played onto the first state"),
        (_cart_not_reopened, "carts are closed by committed orders only"),
        (_announced_though_undone, "and no other unit is"),
        (_event_missing, "is announced whole"),
        (_event_missing, "played onto the first state"),
        (_out_of_order, "in commit order"),
        (_two_decisions, "one final decision"),
        (_dead_letter_changed, "byte for byte"),
        (_unanswered_duplicate, "sent an id twice"),
        (_left_open, "left open in the journal"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__.strip("_"),
)
def test_harm_is_noticed(harm: Callable[[Evidence], Evidence], words: str) -> None:
    assert any(words in verdict.sentence for verdict in failed(judge(harm(evidence()))))


def test_the_same_seed_gives_the_same_day_of_the_length_asked_for() -> None:
    one, other, another = Shop(3, 500), Shop(3, 500), Shop(4, 500)
    assert one.opening() == other.opening()
    day = one.day()
    assert day == other.day()
    assert day != another.day()
    assert len(day) == 500
    assert {sending.kind for sending in day} == set(Kind)
