"""The report: what was sent and what became of it, in tables for a terminal or a pipe.

Owns words and layout. Every figure is counted from the evidence.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coordinator.demo.checks import Verdict, final_statuses
from coordinator.demo.evidence import Evidence
from coordinator.demo.progress import COLOURS
from coordinator.demo.shop import LATE, Kind
from coordinator.demo.stories import brief, show_line, tell
from coordinator.demo.topics import Message
from coordinator.domain.lifecycle import Status

_EVENTS_SHOWN: Final = 4
_SHOWN_STATUSES: Final = (Status.COMMITTED, Status.REJECTED, Status.COMPENSATED)


def report(console: Console, seen: Evidence) -> None:
    """Print everything but the verdicts."""
    _by_kind(console, seen)
    _by_code(console, seen)
    _dead_letters(console, seen)
    _changes(console, seen)
    for story in seen.stories:
        tell(console, story, seen)
    _paces(console, seen)


def show_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print the checks, each with its mark."""
    _title(console, "What must hold", "PostgreSQL, MongoDB and the topics against each other")
    table = _table("", "check", "figures")
    for verdict in verdicts:
        mark = "[green]✓[/]" if verdict.holds else "[bold red]✗ DOES NOT HOLD[/]"
        table.add_row(mark, verdict.sentence, f"[dim]{verdict.figures}[/]")
    table.show_header = False
    console.print(table)


def what_next(console: Console) -> None:
    """Print what the reader can do now."""
    console.print(
        "\nNext: submit a unit of your own, in five lines of README.md (Submit your own unit)."
        "\nWhat is promised: docs/INVARIANTS.md. How it works: docs/ARCHITECTURE.md."
        "\nEvery test, on servers of its own: [bold]make test[/]. Another day in the shop: "
        "python -m coordinator.demo --seed 7"
    )


def _by_kind(console: Console, seen: Evidence) -> None:
    _title(console, "What was sent, and what became of it")
    statuses = final_statuses(seen)
    answers = Counter(
        Kind.REUSED if (m.body["error"] or {}).get("code") == "id_reused" else Kind.AGAIN
        for m in seen.outcomes
        if "/duplicate/" in m.ce_id
    )
    table = _table("", "sent", *(f"[{COLOURS[s]}]{s.value}[/]" for s in _SHOWN_STATUSES), "else")
    for column in table.columns[1:]:
        column.justify = "right"
    for kind in Kind:
        sent = [sending for sending in seen.sendings if sending.kind is kind]
        if kind in {Kind.AGAIN, Kind.REUSED}:
            became = "answered again" if kind is Kind.AGAIN else "id_reused"
            table.add_row(kind, f"{len(sent):,}", "", "", "", f"{answers[kind]} {became}")
            continue
        found = Counter(statuses.get(sending.id) for sending in sent)
        table.add_row(kind, f"{len(sent):,}", *(_count(found[s.value]) for s in _SHOWN_STATUSES))
    table.add_row(
        "broken records",
        f"{len(seen.broken)}",
        "",
        "",
        "",
        f"{len(seen.dead_letters)} dead letters",
    )
    total = Counter(statuses.values())
    sums = (_count(total[s.value]) for s in _SHOWN_STATUSES)
    everything = len(seen.sendings) + len(seen.broken)
    table.add_row("[bold]all[/]", f"{everything:,}", *(f"[bold]{each}[/]" for each in sums))
    console.print(table)
    if any(
        statuses.get(sending.id) == Status.COMPENSATED.value and sending.kind not in LATE
        for sending in seen.sendings
    ):
        console.print(
            "  [dim]After a takeover only a write tells whether MongoDB has a unit already.\n"
            "  So some refused ones were written there and undone; they count as compensated.[/]"
        )


def _by_code(console: Console, seen: Evidence) -> None:
    _title(console, "Why units did not commit", "the first message of each code")
    found: defaultdict[tuple[str, str], list[Message]] = defaultdict(list)
    for message in seen.outcomes:
        if message.body["error"] is not None:
            found[message.body["status"], message.body["error"]["code"]].append(message)
    table = _table("status", "code", "units", "message")
    for (status, code), messages in sorted(found.items()):
        colour = COLOURS[Status(status)]
        said = escape(str(messages[0].body["error"]["message"]))
        table.add_row(f"[{colour}]{status}[/]", code, f"{len(messages)}", f"[dim]{said}[/]")
    console.print(table)


def _dead_letters(console: Console, seen: Evidence) -> None:
    _title(console, "Dead letters", "coordinator.units-dlt, one of each sort")
    why = {record.value: record.why for record in seen.broken}
    table = _table("sent", "code", "message", "its bytes")
    shown: set[str] = set()
    for letter in seen.dead_letters:
        sort = why.get(letter.value, "?")
        if sort not in shown:
            shown.add(sort)
            table.add_row(
                sort,
                letter.header("coordinator.errors.code"),
                f"[dim]{escape(letter.header('coordinator.errors.message'))}[/]",
                escape(_cut(repr(letter.value or b"")[1:], 30)),
            )
    console.print(table)


def _changes(console: Console, seen: Evidence) -> None:
    total = sum(map(len, seen.changes.values()))
    _title(
        console,
        "Change events",
        f"{total:,} in all; {seen.repeats:,} messages came twice, each with the ce_id of the first",
    )
    for entity, messages in seen.changes.items():
        if messages:
            show_line(console, f"  [cyan]coordinator.changes.{entity}[/]  {brief(messages[0])}")


def _paces(console: Console, seen: Evidence) -> None:
    _title(console, "Pace", "from submit to the outcome read back from Kafka, by this one client")
    table = _table("", "units", "units/s", "p50", "p99")
    for column in table.columns[1:]:
        column.justify = "right"
    for pace in seen.paces:
        table.add_row(
            pace.title,
            f"{pace.units:,}",
            f"{pace.units / pace.seconds:,.0f}",
            f"{pace.p50_ms:,.0f} ms",
            f"{pace.p99_ms:,.0f} ms",
        )
    console.print(table)
    console.print("  [dim]three servers, daemon and client share this machine's processors[/]")


def _title(console: Console, title: str, rest: str = "") -> None:
    console.print(f"\n[bold]{title}[/]" + (f" [dim]· {rest}[/]" if rest else ""))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in columns:
        table.add_column(f"  {heading}" if not table.columns else heading, overflow="fold")
    return table


def _count(number: int) -> str:
    return f"{number:,}" if number else "–"


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else f"{text[: columns - 1]}…"
