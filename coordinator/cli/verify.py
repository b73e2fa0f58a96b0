"""``coordinator verify``: what was found, for a person and for a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.cli.output import is_terminal, show_json, show_text

if TYPE_CHECKING:
    from coordinator.engine.verification import Verified


def show(verified: Verified) -> int:
    """Show the discrepancies, then how much was looked at; give the exit code."""
    found = [each.as_json(detail) for each, detail in sorted(verified.found.items(), key=str)]
    if not is_terminal():
        for one in found:
            show_json(one)
    for one in found if is_terminal() else ():
        names = [f"unit {one['unit']}" if one["unit"] else "", one["subject"] or ""]
        place = ", ".join(filter(None, names))
        at = f" at {one['store']}" if one["store"] else ""
        show_text(f"{one['kind']}: {place}{at}")
        for text in filter(None, (one["detail"], one["meaning"], f"→ {one['remedy']}")):
            show_text(f"    {text}")
    looked_at = {
        "verified": not found,
        "found": len(found),
        "units": verified.units,
        "records": verified.records,
        "locks": verified.locks,
        "stopped_early": verified.stopped_early,
    }
    if not is_terminal():
        show_json(looked_at)
        return 1 if found else 0
    much = f"{verified.units} units, {verified.records} undo records, {verified.locks} locks"
    if not found:
        show_text(f"Everything agrees: {much} compared.")
        return 0
    more = " There may be more: too many were found." if verified.stopped_early else ""
    show_text(f"{len(found)} discrepancies; {much} compared.{more}")
    return 1
