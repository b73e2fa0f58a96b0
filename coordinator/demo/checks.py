"""What must hold when the dust has settled: plain functions over the evidence.

Pure. Each check compares what different parts of the world say: PostgreSQL against MongoDB, both
against the outcomes, the events against both. None asks the daemon.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

from coordinator.demo.evidence import Evidence
from coordinator.demo.shop import Kind
from coordinator.demo.stores import Row, Snapshot, money

_FINAL: Final = frozenset({"committed", "rejected", "compensated"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check: what must hold, whether it does, and the figures."""

    sentence: str
    holds: bool
    figures: str


def judge(seen: Evidence) -> list[Verdict]:
    """Make every check."""
    return [
        _money(seen),
        _accounts(seen),
        _pieces(seen),
        _products(seen),
        _carts(seen),
        _nothing_left(seen),
        _one_decision(seen),
        _announced(seen),
        _replayed(seen),
        _in_order(seen),
        _dead_letters(seen),
        _duplicates(seen),
        _ended(seen),
    ]


def final_statuses(seen: Evidence) -> dict[str, str]:
    """The final status of each unit, by id (F5: ``<unit>/outcome``)."""
    return {
        message.body["unit"]: message.body["status"]
        for message in seen.outcomes
        if message.ce_id.endswith("/outcome")
    }


def _money(seen: Evidence) -> Verdict:
    held = [sum(_balances(each).values(), Decimal(0)) for each in (seen.before, seen.after)]
    paid = sum(_paid_by_customer(seen.after).values(), Decimal(0))
    return Verdict(
        "balances in PostgreSQL + paid orders in MongoDB = the money at first",
        held[1] + paid == held[0],
        f"{held[1]:,} + {paid:,} = {held[0]:,} EUR",
    )


def _accounts(seen: Evidence) -> Verdict:
    paid = _paid_by_customer(seen.after)
    then, now = _balances(seen.before), _balances(seen.after)
    wrong = [who for who in then if now.get(who) != then[who] - paid.get(who, 0)]
    return Verdict(
        "… and so for every account on its own",
        not wrong and set(paid) <= set(then) and then.keys() == now.keys(),
        _of(len(then) - len(wrong), len(then), "accounts"),
    )


def _pieces(seen: Evidence) -> Verdict:
    held = [
        sum(row["on_hand"] for row in each.stock.values()) for each in (seen.before, seen.after)
    ]
    sold = sum(_sold(seen.after).values())
    return Verdict(
        "pieces in PostgreSQL + pieces in MongoDB's orders = the pieces at first",
        held[1] + sold == held[0],
        f"{held[1]:,} + {sold:,} = {held[0]:,}",
    )


def _products(seen: Evidence) -> Verdict:
    sold, then, now = _sold(seen.after), seen.before.stock, seen.after.stock
    wrong = [
        sku
        for sku, row in then.items()
        if sku not in now or now[sku]["on_hand"] != row["on_hand"] - sold[sku]
    ]
    return Verdict(
        "… and so for every product on its own",
        not wrong and set(sold) <= set(then) and then.keys() == now.keys(),
        _of(len(then) - len(wrong), len(then), "products"),
    )


def _carts(seen: Evidence) -> Verdict:
    closed = {key for key, cart in seen.after.carts.items() if cart != seen.before.carts.get(key)}
    statuses = final_statuses(seen)
    wanted = {
        each["key"]
        for sending in seen.sendings
        if sending.kind is not Kind.REUSED and statuses.get(sending.id) == "committed"
        for each in sending.unit["operations"]
        if each["entity"] == "cart"
    }
    return Verdict(
        "carts are closed by committed orders only, the others as they were",
        closed == wanted and len(seen.after.carts) == len(seen.before.carts),
        f"{len(closed):,} closed, {len(seen.after.carts) - len(closed):,} untouched",
    )


def _nothing_left(seen: Evidence) -> Verdict:
    statuses = final_statuses(seen)
    meant: dict[str, bool] = {}
    for sending in seen.sendings:
        is_committed = statuses.get(sending.id) == "committed" and sending.kind is not Kind.REUSED
        if sending.order is not None:
            meant[sending.order] = is_committed
    there = set(seen.after.orders)
    left = [order for order in there if not meant.get(order, False)]
    missing = [
        order for order, is_committed in meant.items() if is_committed and order not in there
    ]
    undone = sum(status == "compensated" for status in statuses.values())
    return Verdict(
        "MongoDB holds the order of every committed unit, and of no other",
        not left and not missing,
        f"{len(there):,} orders; {undone:,} compensated units left {len(left)}",
    )


def _one_decision(seen: Evidence) -> Verdict:
    decided = Counter(
        message.body["unit"] for message in seen.outcomes if message.ce_id.endswith("/outcome")
    )
    ids = {sending.id for sending in seen.sendings}
    is_final = set(final_statuses(seen).values()) <= _FINAL
    return Verdict(
        "every unit has one final decision, and only one",
        set(decided) == ids and set(decided.values()) == {1} and is_final,
        _of(sum(count == 1 for count in decided.values()), len(ids), "units"),
    )


def _announced(seen: Evidence) -> Verdict:
    statuses = final_statuses(seen)
    told: Counter[str] = Counter(event["transaction"]["id"] for event in _events(seen))
    wanted: dict[str, int] = {}
    for message in seen.outcomes:
        if message.ce_id.endswith("/outcome") and message.body["status"] == "committed":
            written = [e for e in message.body["operations"] if e.get("applied", True)]
            wanted[message.body["unit"]] = len(written)
    stray = [unit for unit in told if statuses.get(unit) != "committed"]
    return Verdict(
        "every committed unit is announced whole, and no other unit is",
        not stray and dict(told) == wanted,
        f"{told.total():,} events of {len(told):,} units",
    )


def _replayed(seen: Evidence) -> Verdict:
    """Play the events onto the stores as they were: that must give the stores as they are."""
    wrong = replayed = 0
    for entity, messages in seen.changes.items():
        now = seen.after.rows(entity)
        last = {_key(message.body): message.body["after"] for message in messages}
        for key, after in last.items():
            replayed += 1
            wrong += after is None or key not in now or not _same(after, now[key])
        untouched = {key: row for key, row in seen.before.rows(entity).items() if key not in last}
        wrong += sum(now.get(key) != row for key, row in untouched.items())
        wrong += len(now) - len(last) - len(untouched)
    return Verdict(
        "the events, played onto the first state, give the state of both stores",
        wrong == 0,
        f"{replayed:,} rows and documents compared",
    )


def _in_order(seen: Evidence) -> Verdict:
    keys = steps = wrong = 0
    for entity in ("account", "stock", "order"):
        versions: defaultdict[Any, list[tuple[int | None, int]]] = defaultdict(list)
        for message in seen.changes.get(entity, ()):
            before, after = message.body["before"], message.body["after"]
            step = (None if before is None else before["version"], after["version"])
            versions[_key(message.body)].append(step)
        keys += len(versions)
        for found in versions.values():
            steps += len(found)
            wrong += sum(later[0] != earlier[1] for earlier, later in pairwise(found))
    return Verdict(
        "per key the events stand in commit order, without a gap",
        wrong == 0 and steps > 0,
        f"{steps:,} events of {keys:,} keys",
    )


def _dead_letters(seen: Evidence) -> Verdict:
    sent = Counter(record.value for record in seen.broken)
    kept = Counter(message.value for message in seen.dead_letters)
    return Verdict(
        "every broken record is kept as a dead letter, byte for byte",
        sent == kept,
        _of((sent & kept).total(), sent.total(), "records"),
    )


def _duplicates(seen: Evidence) -> Verdict:
    """One answer per newcomer (F4), which says that it is one."""
    newcomers = [s for s in seen.sendings if s.kind in {Kind.AGAIN, Kind.REUSED}]
    answers = [message for message in seen.outcomes if "/duplicate/" in message.ce_id]
    reused = [m for m in answers if (m.body["error"] or {}).get("code") == "id_reused"]
    return Verdict(
        "whoever sent an id twice was answered for it",
        len(answers) == len(newcomers)
        and all(message.body["duplicate"] for message in answers)
        and len(reused) == sum(s.kind is Kind.REUSED for s in newcomers),
        f"{len(answers)} answers, {len(reused)} of them id_reused",
    )


def _ended(seen: Evidence) -> Verdict:
    return Verdict(
        "nothing is left open in the journal, and the daemon left with 0",
        seen.open_units == 0 and seen.exit_code == 0,
        f"{seen.open_units} open, exit code {seen.exit_code}",
    )


def _balances(stores: Snapshot) -> dict[int, Decimal]:
    return {row["customer"]: row["balance"] for row in stores.accounts.values()}


def _paid_by_customer(stores: Snapshot) -> Mapping[int, Decimal]:
    paid: defaultdict[int, Decimal] = defaultdict(Decimal)
    for order in stores.orders.values():
        paid[order["customer"]] += money(order["total"])
    return paid


def _sold(stores: Snapshot) -> Counter[str]:
    sold: Counter[str] = Counter()
    for order in stores.orders.values():
        for line in order["lines"]:
            sold[line["sku"]] += line["pieces"]
    return sold


def _events(seen: Evidence) -> Iterator[Mapping[str, Any]]:
    return (message.body for messages in seen.changes.values() for message in messages)


def _key(event: Mapping[str, Any]) -> Any:
    image = event["after"] or event["before"]
    return next(image[name] for name in ("_id", "sku", "id") if name in image)


def _same(image: Mapping[str, Any], row: Row) -> bool:
    """Whether an event's image says what a store holds, but for times, whose forms differ."""
    names = [name for name in image if name not in {"since", "placed"}]
    return all(_plain(image[name]) == _plain(row.get(name)) for name in names)


def _plain(value: object) -> object:
    if isinstance(value, list | dict | bool) or value is None:
        return value
    return str(value)


def _of(good: int, total: int, what: str) -> str:
    return f"{good:,} of {total:,} {what}"


def failed(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Those that do not hold."""
    return [verdict for verdict in verdicts if not verdict.holds]
