"""The report of a run, in tables. Every figure is counted from the evidence, logs or metrics."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table

from tests.chaos.checkers import CHECKERS, FENCED_EXIT_CODE, decisions
from tests.chaos.run import Result
from tests.chaos.schedule import Kind

VIOLATIONS_SHOWN = 40
_STATUSES = ("committed", "rejected", "compensated", "parked")
_RETRIED = {
    "batch.retried": "batches tried in parts",
    "intake.retried": "admissions",
    "intake.rebuilt": "consumers made anew",
    "intake.position_lost": "reads lost to another daemon",
    "relay.retried": "publishing",
    "relay.rebuilt": "producers made anew",
    "duty.retried": "duties",
}


def report(console: Console, result: Result) -> None:
    """Print what happened, and what does not hold."""
    _outcomes(console, result)
    _faults(console, result)
    _figures(console, result)
    for violation in result.violations[:VIOLATIONS_SHOWN]:
        console.print(f"VIOLATION {violation}", markup=False, soft_wrap=True)
    more = len(result.violations) - VIOLATIONS_SHOWN
    if more > 0:
        console.print(f"… and {more} more")


def _outcomes(console: Console, result: Result) -> None:
    told = decisions(result.seen)
    counts: Counter[tuple[str, str]] = Counter()
    for unit, sent in result.seen.sent.items():
        counts[sent.kind, told[unit].body["status"] if unit in told else "none"] += 1
    table = _table("units by outcome", "sent", *_STATUSES)
    for kind in dict.fromkeys(sent.kind for sent in result.seen.sent.values()):
        figures = [counts[kind, status] for status in _STATUSES]
        sent_count = sum(count for (of, _), count in counts.items() if of == kind)
        table.add_row(kind, *(f"{each:,}" for each in (sent_count, *figures)))
    totals = [sum(counts[of, to] for of, to in counts if to == status) for status in _STATUSES]
    table.add_row("all", *(f"{each:,}" for each in (len(result.seen.sent), *totals)), style="bold")
    console.print(table)


def _faults(console: Console, result: Result) -> None:
    table = _table("faults", "")
    for kind in Kind:
        table.add_row(str(kind), str(result.faults[kind]))
    console.print(table)


def _figures(console: Console, result: Result) -> None:
    seen = result.seen
    fenced = sum(end.code == FENCED_EXIT_CODE for end in seen.ends)
    answers = sum("/duplicate/" in outcome.ce_id for outcome in seen.outcomes)
    names = [change.ce_id for change in seen.changes]
    parked = sum(outcome.body["status"] == "parked" for outcome in seen.outcomes)
    retried = ", ".join(f"{result.events[e]} {what}" for e, what in _RETRIED.items())
    table = _table("figures", "")
    for what, figure in {
        "seed": str(result.seed),
        "chaos, then time to rest": f"{result.seconds:.0f} s, {result.rest_seconds:.1f} s",
        "daemons started": str(len(seen.ends)),
        "takeovers": str(result.takeovers),
        "fenced workers (exit code 3)": str(fenced),
        "fenced writes (refused by a fence)": str(result.events["worker.fenced"]),
        "retries": retried,
        "answers of stores that were lost": str(result.results_unknown),
        "submitted again by the sender": str(result.submitted_again),
        "duplicates answered": str(answers),
        "change events, repeats among them": f"{len(set(names)):,}, {len(names) - len(set(names))}",
        "longest time of a unit": _longest(result),
        "parked": str(parked),
        "invariants checked": f"{len(CHECKERS)} checkers",
        "violations": str(len(result.violations)),
    }.items():
        table.add_row(what, figure)
    console.print(table)


def longest_seconds(result: Result) -> tuple[float, str]:
    """Give the longest time from the first submit to the outcome on its topic, and the unit."""
    times = [
        (outcome.at - result.sent_at[unit], unit)
        for unit, outcome in decisions(result.seen).items()
        if unit in result.sent_at
    ]
    return max(times, default=(0.0, "none"))


def _longest(result: Result) -> str:
    seconds, unit = longest_seconds(result)
    return f"{seconds:.1f} s from submit to outcome ({unit})"


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.add_column(title, style=None)
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    return table
