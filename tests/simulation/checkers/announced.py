"""I8: exactly the writes of committed units are announced, per key in the order of the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from coordinator.domain.decide import ImageKey, show_image
from coordinator.domain.lifecycle import Status
from coordinator.memory.witness import RowWrite, Way
from tests.simulation.history import Rest
from tests.simulation.published import ce_id

_PREFIX = "changes."


def check(rest: Rest) -> None:
    told: dict[ImageKey, list[tuple[str, Any, Any]]] = {}
    seen: set[str] = set()
    for message in rest.broker.published:
        if not message.topic.startswith(_PREFIX) or message.value is None:
            continue
        name = ce_id(message)
        if name in seen:
            continue
        seen.add(name)
        at = (message.topic.removeprefix(_PREFIX), (message.key or b"").decode())
        event = orjson.loads(message.value)
        told.setdefault(at, []).append(
            (event["transaction"]["id"], event["before"], event["after"])
        )
    units = rest.world.journal.units
    for at in sorted({*told, *rest.history.by_key}):
        done = [
            write
            for write in rest.history.by_key.get(at, ())
            if write.way is Way.FORWARD and units[write.seq].status is Status.COMMITTED
        ]
        heard = told.get(at, [])
        if [units[write.seq].id for write in done] != [unit for unit, _, _ in heard]:
            rest.history.fail(f"I8: {at}: done {done}, told {heard}")
            continue
        _compare(rest, at, done, heard)


def _compare(
    rest: Rest, at: ImageKey, done: Sequence[RowWrite], heard: Sequence[tuple[str, Any, Any]]
) -> None:
    """Compare what was told of one key with what was done, image by image."""
    history, entity = rest.history, rest.world.mapping.entities[at[0]]
    # What a stranger wrote, or a person left who had to end a unit by hand, nobody tells.
    only_ours = not history.stranger_writes and all(
        history.status(write.seq) is Status.COMMITTED
        or not history.stands_applied(write.seq, write.store)
        for write in history.by_key[at]
    )
    before: Any = None
    for write, (_, told_before, told_after) in zip(done, heard, strict=True):
        if not history.only_counts(write.seq, at):
            expected = show_image(entity, write.after)
        elif only_ours:
            # It may have been shared: told is what it left, those undone since left out.
            expected = show_image(entity, history.in_turn[write.seq, write.position])
        else:
            expected = {**told_after, "n": told_before["n"] + write.delta}
        if told_after != expected:
            history.fail(f"I8: {at}: {write} was told as {told_after}, not {expected}")
        if only_ours and before is not None and told_before != before:
            history.fail(f"I8: {at}: {told_before} does not follow on {before}")
        before = told_after
