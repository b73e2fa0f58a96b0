"""Strangers: they hold rows for a while, and write them between our apply and our undo."""

from __future__ import annotations

import random

from coordinator.domain.decide import ImageKey
from coordinator.memory.store_tables import StoreTables
from coordinator.memory.witness import RowWrite, Way
from coordinator.memory.world import World
from tests.simulation.faults import Faults
from tests.simulation.shop import PASSING_KEYS, SHOP, STANDING_KEYS, first_image


def come_by(world: World, faults: Faults, source: random.Random) -> None:
    """Do one thing that no unit asked for."""
    entity = SHOP.entities[source.choice(tuple(SHOP.entities))]
    store = world.stores[entity.store]
    key = source.choice((*STANDING_KEYS, *STANDING_KEYS, *PASSING_KEYS))
    at = (entity.name, str(key))
    if at in store.held:
        return
    if source.random() < 0.4:
        _hold(store, at, faults, 0.01 + source.random() * 0.5)
        return
    before = store.rows[at]
    if before is None:
        after = {**first_image(entity, key, None), "note": "stranger"}
    elif key in PASSING_KEYS and source.random() < 0.3:
        after = None
    else:
        after = dict(before)
        if source.random() < 0.5:
            after["note"] = source.choice(("theirs", "red", "green"))
        if source.random() < 0.5 and after["n"] is not None:
            after["n"] += 100
        if entity.version is not None and source.random() < 0.5:
            after["version"] += 1
    if after is None:
        del store.rows[at]
    else:
        store.rows[at] = after
    delta = 0 if before is None or after is None else (after["n"] or 0) - (before["n"] or 0)
    faults.note("stranger", store.name, f"wrote {at}", f"{after}")
    world.witness.wrote(RowWrite(store.name, 0, 0, 0, Way.STRANGER, at, before, after, delta=delta))


def _hold(store: StoreTables, at: ImageKey, faults: Faults, seconds: float) -> None:
    store.held.add(at)
    faults.count("rows held")
    faults.loop.call_later(seconds, store.held.discard, at, context=faults.loop.world)
