"""F5: one final decision per unit, with stable content, and it is the journal's."""

from __future__ import annotations

import orjson

from tests.simulation.history import Rest
from tests.simulation.kafka import OUTCOMES
from tests.simulation.published import ce_id


def check(rest: Rest) -> None:
    fail, journal = rest.history.fail, rest.world.journal
    contents: dict[str, bytes | None] = {}
    for message in rest.broker.published:
        name = ce_id(message)
        if message.topic != OUTCOMES or name.endswith("/parked"):
            continue
        if contents.setdefault(name, message.value) != message.value:
            fail(f"F5: {name} was told twice, with different contents")
    for name, value in contents.items():
        unit_id, _, kind = name.partition("/")
        if kind != "outcome":
            continue
        seq = journal.ids.get(unit_id)
        status = orjson.loads(value or b"{}")["status"]
        if seq is None or journal.units[seq].status.value != status:
            fail(f"F5: {name} tells {status}, the journal does not")
