"""``coordinator explain``: sentences for a person, JSON lines for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from coordinator.cli.output import is_terminal, show_json, show_rows, show_text

if TYPE_CHECKING:
    from coordinator.domain.situation import Situation


def show_explained(explained: Sequence[dict[str, Any]]) -> int:
    """Show what would become of submissions; exit code 0 when all would be admitted."""
    for one in explained:
        if is_terminal():
            _show_one(one)
        else:
            show_json(one)
    return 0 if all(one["verdict"] in ("admitted", "cancel") for one in explained) else 1


def show_situation(of: Situation) -> None:
    """Show where a unit stands."""
    from coordinator.domain.announce import instant
    from coordinator.domain.situation import sentences

    lines = sentences(of)
    if is_terminal():
        show_text(f"Unit {of.unit}")
        for line in lines:
            show_text(f"  {line}")
        return
    owner = of.owner
    show_json(
        {
            "unit": of.unit,
            "status": of.status.value,
            "received_at": instant(of.received_at),
            "deadline_at": instant(of.deadline_at),
            "worker": None if owner is None else owner.name,
            "waits_for": [
                {
                    "unit": each.unit,
                    "status": each.status.value,
                    "received_at": instant(each.received_at),
                    "worker": None if each.owner is None else each.owner.name,
                    "entity": each.entity,
                    "key": each.key,
                }
                for each in of.blockers
            ],
            "waits_for_units": of.blockers_count,
            "units_behind": of.behind,
            "explanation": lines,
        }
    )


def _show_one(one: dict[str, Any]) -> None:
    if one["verdict"] != "admitted":
        show_text(f"{one['unit'] or 'A record without an id'}: {_SAYS[one['verdict']]}")
        error = one.get("error")
        for each in error.get("details", [error]) if error else ():
            path = f"{each['path']}: " if each.get("path") else ""
            show_text(f"  {each['code']}: {path}{each['message']}")
        return
    show_text(f"{one['unit']}: would be admitted. Its operations act in this order:")
    show_rows(
        [{**each, "expects": ", ".join(each["expects"])} for each in one["order"]],
        ("position", "submitted_as", "op", "entity", "key", "store", "expects"),
        empty="",
    )
    for branch in one["branches"]:
        show_text(f"Branch at {branch['store']}, commits {branch['commits']}:")
        for statement in branch["statements"]:
            show_text(f"  {statement}")
    show_text("Locks:")
    for lock in one["locks"]:
        show_text(f"  {lock['entity']} {lock['key']}: {lock['mode']}")
    show_text("Undo, if a store refuses:")
    for each in reversed(one["order"]):
        show_text(f"  {each['op']} of {each['entity']} {each['key']}: {each['undo']}")
    show_text("It would be refused if:")
    for each in one["order"]:
        for refusal in each["may_be_refused"]:
            what = f"{each['op']} of {each['entity']} {each['key']}"
            show_text(f"  {what}: {refusal['when']} ({refusal['code']})")
    show_text(f"  it is not committed within {one['timeout_ms']} ms (deadline_exceeded)")


_SAYS = {
    "rejected": "would be rejected at once, and its id could be used again:",
    "dead_letter": "would become a dead letter:",
    "cancel": "is a cancel of that unit.",
    "ignored": "is a cancel beyond the topic's authority, and would be ignored.",
}
