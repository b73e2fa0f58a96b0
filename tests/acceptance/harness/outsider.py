"""A stranger who holds rows: what makes a unit stand still at a place that the test chooses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World


@asynccontextmanager
async def holding(
    world: World, table: str, key: Any, store: str = "ledger", strength: str = "UPDATE"
) -> AsyncIterator[None]:
    """Hold a row lock of PostgreSQL, in a transaction of somebody else's."""
    connection = await world.connect(store)
    transaction = connection.transaction()
    await transaction.start()
    try:
        found = await connection.fetch(f"SELECT 1 FROM {table} WHERE id = $1 FOR {strength}", key)
        assert found, f"there is no row {key} in {table} to hold"
        yield
    finally:
        await transaction.rollback()


async def accepted(world: World, unit_id: str) -> None:
    """Wait until the journal has accepted the unit."""

    async def look() -> bool:
        return (await world.daemon.get(f"/v1/units/{unit_id}"))[0] == 200

    await until(look, f"{unit_id} is accepted", context=world.daemon.tail)


async def holds(world: World, entity: str, key: Any, **values: Any) -> None:
    """Wait until a row or document holds the values; no values: until it is there."""

    async def look() -> bool:
        found = await stored(world, entity, key)
        return found is not None and all(found[name] == value for name, value in values.items())

    await until(look, f"{entity} {key} holds {values}", context=world.daemon.tail)


async def stored(world: World, entity: str, key: Any) -> dict[str, Any] | None:
    """Give the raw row or document of an entity's key."""
    of = world.entities[entity]
    if "collection" in of:
        return world.doc(of["collection"], key)
    return await world.row(of["table"], key, of["store"])


async def overwrite(world: World, entity: str, key: Any, **values: Any) -> None:
    """Write as a stranger, past the coordinator."""
    of = world.entities[entity]
    if "collection" in of:
        done = world.catalog[of["collection"]].update_one({"_id": key}, {"$set": values})
        assert done.matched_count == 1
        return
    connection = await world.connect(of["store"])
    names = ", ".join(f'"{name}" = ${n}' for n, name in enumerate(values, 2))
    status = await connection.execute(
        f"UPDATE {of['table']} SET {names} WHERE id = $1", key, *values.values()
    )
    assert status == "UPDATE 1"
    await connection.close()


async def remove(world: World, entity: str, key: Any) -> None:
    """Delete as a stranger."""
    of = world.entities[entity]
    if "collection" in of:
        assert world.catalog[of["collection"]].delete_one({"_id": key}).deleted_count == 1
        return
    connection = await world.connect(of["store"])
    assert await connection.execute(f"DELETE FROM {of['table']} WHERE id = $1", key) == "DELETE 1"
    await connection.close()
