"""What must hold at rest: pure functions from the evidence to the violations, each by its number.

None of them asks the product: they judge what was read from the topics, the stores and the
journal. `tests/unit/test_chaos_checkers.py` doctors a good history in every way that they know.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from itertools import chain, pairwise

from tests.chaos.history import (
    Add,
    Append,
    At,
    Change,
    Evidence,
    Make,
    Outcome,
    Sent,
    Submission,
    after,
)

FINAL = {"committed", "rejected", "compensated"}
PIVOT_ENTITIES = {"account", "entry", "ledger_list"}
"""Those in the journal's store: a unit of them alone has nothing to compensate (F6)."""
FENCED_EXIT_CODE = 3
Checker = Callable[[Evidence], Iterable[str]]


def violations(seen: Evidence) -> list[str]:
    """Say everything that does not hold."""
    return list(chain.from_iterable(check(seen) for check in CHECKERS))


def decisions(seen: Evidence) -> dict[str, Outcome]:
    """Give the final outcome of each unit, by its id; the first that was published."""
    found: dict[str, Outcome] = {}
    for outcome in seen.outcomes:
        unit, _, kind = outcome.ce_id.partition("/")
        if kind == "outcome":
            found.setdefault(unit, outcome)
    return found


def committed(seen: Evidence) -> dict[str, Sent]:
    """Give the units that were told to be committed."""
    told = decisions(seen)
    return {
        unit: sent
        for unit, sent in seen.sent.items()
        if unit in told and told[unit].body["status"] == "committed"
    }


# --- outcomes -----------------------------------------------------------------------------------


def one_final_decision(seen: Evidence) -> Iterator[str]:
    """F5, I4, I7: one final decision per unit, the journal's; all repeats of a ce_id are equal."""
    texts: dict[str, str] = {}
    for outcome in seen.outcomes:
        text = json.dumps(outcome.body, sort_keys=True)
        if texts.setdefault(outcome.ce_id, text) != text:
            yield f"F5: {outcome.ce_id} was published with different contents"
    told = decisions(seen)
    for unit in seen.sent.keys() - told.keys():
        yield f"I7: {unit} has no final outcome"
    for unit in told.keys() - seen.sent.keys():
        yield f"I8: {unit} was never sent and has an outcome"
    for unit, outcome in told.items():
        status, row = outcome.body["status"], seen.units.get(unit)
        if status not in FINAL or outcome.body["duplicate"]:
            yield f"F5: the final outcome of {unit} is {outcome.body}"
        if row is None or row.status != status:
            yield f"F5: {unit} was told {status}, the journal says {row and row.status}"


def nothing_parked(seen: Evidence) -> Iterator[str]:
    """Nobody else writes here, so nothing may need a person (F11)."""
    for outcome in seen.outcomes:
        if outcome.body["status"] == "parked":
            yield f"F11: {outcome.ce_id}: {outcome.body['error']}"


def hopeless_refused(seen: Evidence) -> Iterator[str]:
    """What must not commit did not; what is in the pivot's store only is not compensated (F6)."""
    for unit, outcome in decisions(seen).items():
        sent, status = seen.sent.get(unit), outcome.body["status"]
        if sent is None:
            continue
        if sent.hopeless and status == "committed":
            yield f"{unit} ({sent.kind}) is committed and must not be"
        if status == "compensated" and {write.entity for write in sent.writes} <= PIVOT_ENTITIES:
            yield f"F6: {unit} is compensated and writes to the journal's store only"


def duplicates_answered(seen: Evidence) -> Iterator[str]:
    """F4: every record of a known id but the first is answered, once, with what was decided."""
    told = decisions(seen)
    answered: dict[str, set[str]] = defaultdict(set)
    for outcome in seen.outcomes:
        unit, _, rest = outcome.ce_id.partition("/")
        kind, _, place = rest.partition("/")
        if kind == "duplicate":
            answered[unit].add(place)
        elif kind not in {"outcome", "parked"}:
            yield f"F2: {outcome.ce_id}: no unit of this run is invalid"
    records: dict[str, dict[str, Submission]] = defaultdict(dict)
    for each in seen.submissions:
        records[each.unit][each.place] = each
    for unit, places in records.items():
        units = {place for place, each in places.items() if not each.is_cancel}
        missing = units - answered[unit]
        if len(missing) != 1:
            yield f"F4: {unit}: {len(missing)} of {len(units)} records have no answer of their own"
    for outcome in seen.outcomes:
        unit, _, place = outcome.ce_id.partition("/duplicate/")
        if place:
            yield from _answer_is_right(outcome, records[unit].get(place), told.get(unit))


def _answer_is_right(
    answer: Outcome, record: Submission | None, told: Outcome | None
) -> Iterator[str]:
    if record is None:
        yield f"F4: {answer.ce_id} answers a record that does not stand there"
    elif record.is_altered:
        if (answer.body["error"] or {}).get("code") != "id_reused":
            yield f"F4: {answer.ce_id}: other content is answered {answer.body}"
    elif told is not None and answer.body != told.body | {"duplicate": True}:
        yield f"F4: {answer.ce_id} is not the final outcome"


# --- stores -------------------------------------------------------------------------------------


def all_or_none(seen: Evidence) -> Iterator[str]:
    """I2: what each unit leaves by its name is there in full, or not at all."""
    done = committed(seen)
    made: dict[At, str] = {}
    for unit, sent in seen.sent.items():
        for write in sent.writes:
            if isinstance(write, Make):
                made[write.entity, write.key] = unit
                row = seen.rows.get((write.entity, write.key))
                expected = write.image if unit in done else None
                if row != expected:
                    yield f"I2: {unit}: {write.entity} {write.key} is {row}, expected {expected}"
    for at in seen.rows.keys() - seen.start.keys() - made.keys():
        yield f"I10: {at} is of no unit"
    for at in seen.start.keys() - seen.rows.keys():
        yield f"I10: {at} is gone"
    for at, row in seen.rows.items():
        if "items" in row:
            yield from _list_holds(seen, at, row["items"], done)


def _list_holds(
    seen: Evidence, at: At, items: tuple[str, ...], done: Mapping[str, Sent]
) -> Iterator[str]:
    expected = {unit for unit, sent in done.items() if _appends_to(sent, at)}
    for unit in sorted(expected - set(items)):
        yield f"I2: the committed {unit} is missing in {at}"
    for unit in sorted(set(items) - expected):
        how = "not committed" if unit in seen.sent else "unknown"
        yield f"I2: {unit} stands in {at} and is {how}"
    for unit, times in Counter(items).items():
        if times > 1:
            yield f"I3: {unit} stands in {at} {times} times"


def _appends_to(sent: Sent, at: At) -> bool:
    return any(
        isinstance(write, Append) and (write.entity, write.key) == at for write in sent.writes
    )


def exactly_once(seen: Evidence) -> Iterator[str]:
    """I3: each balance is its start and the committed units' sum, each version counts them."""
    amounts: dict[At, Decimal] = defaultdict(Decimal)
    times: Counter[At] = Counter()
    for sent in committed(seen).values():
        for write in sent.writes:
            times[write.entity, write.key] += 1
            if isinstance(write, Add):
                amounts[write.entity, write.key] += write.amount
    for at, first in seen.start.items():
        row = seen.rows.get(at)
        if row is None:
            continue  # told by all_or_none
        version = first["version"] + times[at]
        if row["version"] != version:
            yield f"I3: {at} has version {row['version']}, expected {version}"
        if "balance" not in first:
            continue
        balance = first["balance"] + amounts[at]
        if row["balance"] != balance:
            yield f"I3: {at} has {row['balance']}, expected {balance}"
        if row["balance"] < 0:
            yield f"{at} is overdrawn: {row['balance']}"


def money_kept(seen: Evidence) -> Iterator[str]:
    """The total of all balances is what it was."""
    before, now = (
        sum((row["balance"] for row in rows.values() if "balance" in row), Decimal())
        for rows in (seen.start, seen.rows)
    )
    if before != now:
        yield f"money: there was {before}, there is {now}"


# --- order --------------------------------------------------------------------------------------


def in_turn(seen: Evidence) -> Iterator[str]:
    """I5: on each key the units ran in the order of their admission, and never at once."""
    for at, units in _order_on_keys(seen).items():
        known = [(unit, seen.units[unit]) for unit in units if unit in seen.units]
        for (unit, row), (next_unit, next_row) in pairwise(known):
            if row.seq >= next_row.seq:
                yield f"I5: on {at} {next_unit} #{next_row.seq} came after {unit} #{row.seq}"
            if row.finished_at and next_row.finished_at and row.finished_at > next_row.finished_at:
                yield f"I5: on {at} {next_unit} ended before {unit}, which came before it"


def one_order_for_all(seen: Evidence) -> Iterator[str]:
    """I2, I5: one order of the units agrees with every list. A cycle is an anomaly."""
    followers: dict[str, set[str]] = defaultdict(set)
    for row in seen.rows.values():
        for earlier, later in pairwise(row.get("items", ())):
            followers[later].add(earlier)
    try:
        TopologicalSorter(followers).prepare()
    except CycleError as error:
        yield f"I5: the lists disagree on the order of {error.args[1]}"


def _order_on_keys(seen: Evidence) -> dict[At, list[str]]:
    order: dict[At, list[str]] = defaultdict(list)
    for change in _first_of_each(seen):
        at = change.entity, change.key
        if not order[at] or order[at][-1] != change.unit:
            order[at].append(change.unit)
    for at, row in seen.rows.items():
        if "items" in row:
            order[at] = list(row["items"])
    return order


# --- events -------------------------------------------------------------------------------------


def announced(seen: Evidence) -> Iterator[str]:
    """I8: exactly the committed units' events, under their own names, repeats equal."""
    texts: dict[str, Change] = {}
    for change in seen.changes:
        known = texts.setdefault(change.ce_id, change)
        if known != change:
            yield f"I8: {change.ce_id} was published with different contents"
    expected = {
        f"{unit}/{number}": (write.entity, write.key)
        for unit, sent in committed(seen).items()
        for number, write in enumerate(sent.writes, 1)
    }
    for ce_id in sorted(expected.keys() - texts.keys()):
        yield f"I8: {ce_id} was never announced"
    for ce_id in sorted(texts.keys() - expected.keys()):
        yield f"I8: {ce_id} is announced and was not committed"
    for ce_id in sorted(texts.keys() & expected.keys()):
        change = texts[ce_id]
        if (change.entity, change.key) != expected[ce_id]:
            yield f"I8: {ce_id} is of {(change.entity, change.key)}, not {expected[ce_id]}"
        if change.unit != ce_id.rpartition("/")[0]:
            yield f"I8: {ce_id} says that it is of unit {change.unit}"


def chained(seen: Evidence) -> Iterator[str]:
    """I8: per key the images follow each other, from the start to what is stored, by each write."""
    states: dict[At, object] = dict(seen.start)
    for change in _first_of_each(seen):
        at = change.entity, change.key
        if change.before != states.get(at):
            yield f"I8: {change.ce_id}: before is {change.before}, {at} was {states.get(at)}"
        states[at] = change.after
        expected = _expected_after(seen, change)
        if change.after != expected:
            yield f"I8: {change.ce_id}: after is {change.after}, expected {expected}"
    for at, state in states.items():
        if seen.rows.get(at) != state:
            yield f"I8: the events end with {at} as {state}, it is {seen.rows.get(at)}"


def _expected_after(seen: Evidence, change: Change) -> object:
    unit, _, number = change.ce_id.rpartition("/")
    sent = seen.sent.get(unit)
    if sent is None or not 0 < int(number) <= len(sent.writes):
        return None
    return after(sent.writes[int(number) - 1], unit, change.before)


def _first_of_each(seen: Evidence) -> Iterator[Change]:
    """Drop repeats by `ce_id`, as a consumer does."""
    known: set[str] = set()
    for change in seen.changes:
        if change.ce_id not in known:
            known.add(change.ce_id)
            yield change


# --- bookkeeping --------------------------------------------------------------------------------


def nothing_left(seen: Evidence) -> Iterator[str]:
    """I7: the journal has no open unit, no lock, nothing to publish; all sent units are there."""
    for unit, row in seen.units.items():
        if row.status not in FINAL or row.finished_at is None:
            yield f"I7: {unit} is left {row.status}"
        if unit not in seen.sent:
            yield f"I10: the journal knows {unit}, which was never sent"
    for what, count in seen.left.items():
        if count:
            yield f"I7: {count} {what} are left"


def fenced_changed_nothing(seen: Evidence) -> Iterator[str]:
    """I9: what a fenced worker had not ended belongs to the one that took it over."""
    for unit, row in seen.units.items():
        fenced_at = seen.fenced.get(row.worker)
        if fenced_at and row.finished_at and row.finished_at > fenced_at:
            yield f"I9: {unit} was ended by worker {row.worker}, which was fenced at {fenced_at}"


def undo_records(seen: Evidence) -> Iterator[str]:
    """Rules 1 and 10: what stands in a store agrees with its unit's end, and has a unit."""
    for record in seen.undo:
        row = seen.units.get(record.unit)
        if row is None or row.status not in FINAL:
            yield f"rule 10: {record} has no final unit"
        elif (record.state == "applied") != (row.status == "committed"):
            yield f"I2: {record} of a unit that is {row.status}"


def daemons_ended_well(seen: Evidence) -> Iterator[str]:
    """F36: a daemon ends by our hand, or fenced; and nothing alarming was logged."""
    for end in seen.ends:
        if end.killed or end.code == FENCED_EXIT_CODE or (end.stopped and end.code == 0):
            continue
        yield f"F36: {end.daemon} ended with exit code {end.code}"
    yield from seen.alarms


CHECKERS: tuple[Checker, ...] = (
    one_final_decision,
    nothing_parked,
    hopeless_refused,
    duplicates_answered,
    all_or_none,
    exactly_once,
    money_kept,
    in_turn,
    one_order_for_all,
    announced,
    chained,
    nothing_left,
    fenced_changed_nothing,
    undo_records,
    daemons_ended_well,
)
