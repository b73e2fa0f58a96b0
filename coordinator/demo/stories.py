"""One unit's whole story: what was asked, what the journal says, both stores before and after.

Owns words and layout of that page, and how a change event is shown in a line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from coordinator.demo.evidence import Evidence, Story
from coordinator.demo.stores import Row
from coordinator.demo.topics import Message

_STORE_OF: Final = {
    "customer": "PostgreSQL",
    "account": "PostgreSQL",
    "stock": "PostgreSQL",
    "order": "MongoDB",
    "cart": "MongoDB",
}
_NOT_TOLD: Final = {"_id", "id", "sku", "name", "email", "since", "placed", "currency"}


def tell(console: Console, story: Story, seen: Evidence) -> None:
    """Print the story of one unit."""
    sending, outcome = story.sending, story.journal.get("outcome") or {}
    status = story.journal.get("status")
    console.print(f"\n[bold]The story of {sending.id}: {status}[/]")
    console.print(f"  [dim]submitted to coordinator.units, Kafka key {sending.key}[/]")
    for operation in sending.unit["operations"]:
        show_line(console, f"    {_operation(operation)}")
    console.print(f"  [dim]GET /v1/units/{sending.id}[/]")
    error = outcome.get("error")
    if error is None:
        console.print(f"    {status} in {outcome.get('duration_ms')} ms")
    else:
        console.print(f"    {status} in {outcome.get('duration_ms')} ms: {error['code']}")
        console.print(f"    {escape(str(error['message']))}")
        console.print("    MongoDB had been written when PostgreSQL refused this; that was undone.")
    console.print("  [dim]before → after[/]")
    for entity, key in _touched(story):
        then = story.before.rows(entity).get(key)
        now = story.after.rows(entity).get(key)
        show_line(console, f"    {_STORE_OF[entity]:<10}  {entity} {key}: {_difference(then, now)}")
    events = [
        message
        for messages in seen.changes.values()
        for message in messages
        if message.body["transaction"]["id"] == sending.id
    ]
    console.print(f"  [dim]change events: {len(events) or 'none'}[/]")
    for message in sorted(events, key=lambda each: each.body["transaction"]["total_order"]):
        show_line(console, f"    {brief(message)}")


def show_line(console: Console, text: str) -> None:
    """Print one line; what does not fit is cut."""
    console.print(text, no_wrap=True, overflow="ellipsis", crop=True)


def brief(message: Message) -> str:
    """A change event in a line: its id, key, and what changed."""
    event = message.body
    key = (message.key or b"").decode()
    changed = _difference(event["before"], event["after"])
    return escape(f"{message.ce_id}  key {key}  {event['op']}  ") + changed


def _touched(story: Story) -> list[tuple[str, Any]]:
    places = [(each["entity"], each["key"]) for each in story.sending.unit["operations"]]
    return list(dict.fromkeys(places))


def _operation(operation: Mapping[str, Any]) -> str:
    rest = {k: v for k, v in operation.items() if k not in {"op", "entity", "key"}}
    text = json.dumps(rest, ensure_ascii=False)
    return escape(f"{operation['op']:<7}{operation['entity']} {operation['key']}  {text}")


def _difference(then: Row | None, now: Row | None) -> str:
    """What changed between two images of one row or document."""
    if then == now:
        return "not there, as before" if now is None else f"as before: {_image(now)}"
    if then is None or now is None:
        return f"[green]new[/] {_image(now)}" if now is not None else "[red]gone[/]"
    return ", ".join(
        f"{name} {_value(then.get(name))} → [green]{_value(now.get(name))}[/]"
        for name in dict.fromkeys([*then, *now])
        if then.get(name) != now.get(name)
    )


def _image(row: Row) -> str:
    told = [
        f"{name} {_value(value)}"
        for name, value in row.items()
        if value is not None and name not in _NOT_TOLD
    ]
    return ", ".join(told)


def _value(value: object) -> str:
    if isinstance(value, list | dict):
        return escape(json.dumps(value, ensure_ascii=False, default=str))
    return "–" if value is None else escape(str(value))
