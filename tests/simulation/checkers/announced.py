"""I8: exactly the writes of committed units are announced, per key in the order of the store."""

from __future__ import annotations

from typing import Any

import orjson

from coordinator.domain.decide import ImageKey, show_image
from coordinator.domain.lifecycle import Status
from coordinator.memory.witness import Way
from tests.simulation.history import Rest
from tests.simulation.published import ce_id

_PREFIX = "changes."


def check(rest: Rest) -> None:
    told: dict[ImageKey, list[tuple[str, Any]]] = {}
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
        told.setdefault(at, []).append((event["transaction"]["id"], event["after"]))
    units, entities = rest.world.journal.units, rest.world.mapping.entities
    for at in sorted({*told, *rest.history.by_key}):
        done = [
            (units[write.seq].id, show_image(entities[at[0]], write.after))
            for write in rest.history.by_key.get(at, ())
            if write.way is Way.FORWARD and units[write.seq].status is Status.COMMITTED
        ]
        if done != told.get(at, []):
            rest.history.fail(f"I8: {at}: done {done}, told {told.get(at, [])}")
