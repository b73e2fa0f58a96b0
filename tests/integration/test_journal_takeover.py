"""Leases, fences and takeovers on a real journal (I9, rules 2–6)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from coordinator.domain.entity import FieldType
from coordinator.domain.operation import Operation, Unit
from coordinator.engine.ports import OpenUnit
from coordinator.journal.workers import application_name
from coordinator.postgres_pool import DRIVER_ERRORS
from tests.admissions import SHOP, arrival, batch
from tests.journal_worker import JournalWorker, a_worker, refused_as_fenced
from tests.units import entity, insert, mapping

pytestmark = pytest.mark.integration


async def admit(worker: JournalWorker, partition: int, **units: Operation) -> tuple[Unit, ...]:
    await worker.mappings.remember(SHOP)
    records = [arrival(name, each, partition=partition) for name, each in units.items()]
    return (await worker.admission.admit(batch(*records), SHOP)).units


def ids(units: Sequence[OpenUnit]) -> list[str]:
    return sorted(each.unit.id for each in units)


async def test_a_lease_that_is_kept_is_not_expired_and_cannot_be_fenced(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        assert await other.workers.expired() == []
        assert not await other.workers.fence(one.number)
        before = await one.value("SELECT clock_timestamp()")
        assert before <= await one.workers.beat() <= await one.value("SELECT clock_timestamp()")


async def test_a_lease_that_was_renewed_meanwhile_saves_its_worker(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        await one.expire()
        assert await other.workers.expired() == [one.number]
        assert await one.workers.expired() == [], "a worker does not take itself over"
        await one.workers.beat()
        assert not await other.workers.fence(one.number)
        await one.workers.beat()


async def test_who_leaves_is_taken_over_at_once(postgres_dsn: str) -> None:
    """F36."""
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        await one.workers.leave()
        assert await other.workers.expired() == [one.number]
        assert await other.workers.fence(one.number)


async def test_fenced_is_for_good(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as zombie, a_worker(postgres_dsn) as other:
        await zombie.expire()
        assert await other.workers.fence(zombie.number)
        assert await other.workers.fence(zombie.number), "a takeover may be resumed"
        await refused_as_fenced(zombie.workers.beat)
        await refused_as_fenced(zombie.workers.ours)
        await refused_as_fenced(lambda: zombie.workers.fence(other.number))
        await refused_as_fenced(lambda: zombie.workers.take_over(other.number, ["catalog"]))


async def test_a_zombies_open_transaction_is_ended_and_its_commit_refused(
    postgres_dsn: str,
) -> None:
    """Rules 3 and 5."""
    async with a_worker(postgres_dsn) as zombie, a_worker(postgres_dsn) as other:
        await admit(zombie, 0, u=insert("account", 1))
        async with zombie.pool.acquire() as connection:
            # The takeover ends it, not the server's patience with whoever idles in a transaction.
            await connection.execute("SET idle_in_transaction_session_timeout = 0")
            await connection.execute("BEGIN")
            await connection.execute("SELECT coordinator.hold_fence($1)", zombie.number)
            await connection.execute("UPDATE coordinator.units SET status = 'committed'")
            await zombie.expire()
            assert await other.workers.fence(zombie.number)
            with pytest.raises(DRIVER_ERRORS):
                await connection.execute("COMMIT")
        assert await other.rows("SELECT status FROM coordinator.units") == [("accepted",)]


async def test_without_the_right_to_end_sessions_a_takeover_waits_for_the_open_transaction(
    postgres_dsn: str,
) -> None:
    async with a_worker(postgres_dsn) as zombie, a_worker(postgres_dsn) as other:
        await other.pool.execute(
            "DO $$ BEGIN CREATE ROLE coordinator_test_limited; EXCEPTION WHEN duplicate_object"
            " THEN NULL; END $$;"
            "GRANT USAGE ON SCHEMA coordinator TO coordinator_test_limited;"
            "GRANT ALL ON ALL TABLES IN SCHEMA coordinator TO coordinator_test_limited;"
        )
        try:
            held = [await other.pool.acquire() for _ in range(6)]  # all that the pool has
            for connection in held:
                await connection.execute("SET ROLE coordinator_test_limited")
                await other.pool.release(connection)
            async with zombie.pool.acquire() as connection:
                await connection.execute("BEGIN")
                await connection.execute("SELECT coordinator.hold_fence($1)", zombie.number)
                await zombie.expire()
                fencing = asyncio.create_task(other.workers.fence(zombie.number))
                await asyncio.wait([fencing], timeout=0.6)
                assert not fencing.done(), "the zombie's transaction still holds the door"
                await connection.execute("COMMIT")
            assert await fencing
            await refused_as_fenced(zombie.workers.beat)
        finally:
            await zombie.pool.execute("DROP OWNED BY coordinator_test_limited")


async def test_a_takeover_brings_what_the_stores_allow_and_is_resumable(postgres_dsn: str) -> None:
    """Rule 6."""
    async with a_worker(postgres_dsn) as dead, a_worker(postgres_dsn) as heir:
        await admit(dead, 0, here=insert("account", 1), there=insert("order", "o"))
        await dead.expire()
        assert await heir.workers.take_over(dead.number, ["ledger"]) == [], "not fenced yet"
        assert await heir.workers.fence(dead.number)
        assert ids(await heir.workers.take_over(dead.number, ["ledger"])) == ["here"]
        assert not await heir.workers.bury(dead.number)
        assert await heir.workers.expired() == [dead.number]
        assert await heir.workers.fenced_stores(dead.number) == frozenset()
        for _ in range(2):
            await heir.workers.record_fenced(dead.number, "catalog")
        assert await heir.workers.fenced_stores(dead.number) == {"catalog"}
        assert ids(await heir.workers.take_over(dead.number, ["ledger", "catalog"])) == ["there"]
        assert ids(await heir.workers.ours()) == ["here", "there"]
        assert await heir.workers.bury(dead.number)
        assert await heir.workers.expired() == []
        assert await heir.rows(
            "SELECT fenced FROM coordinator.workers WHERE id = $1", dead.number
        ) == [(True,)]


async def test_units_come_as_they_stand_and_final_ones_stay(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as dead, a_worker(postgres_dsn) as heir:
        names = ("accepted", "compensating", "parked", "committed", "rejected", "compensated")
        await admit(dead, 0, **{name: insert("account", at) for at, name in enumerate(names)})
        await dead.value(
            "UPDATE coordinator.units SET status = id, finished_at = CASE WHEN id IN"
            " ('committed', 'rejected', 'compensated') THEN clock_timestamp() END,"
            ' cause = \'{"code": "cancelled", "message": "m"}\', cancel_requested = \'why\''
        )
        await dead.expire()
        assert await heir.workers.fence(dead.number)
        came = await heir.workers.take_over(dead.number, [])
        assert {each.unit.id: each.status.value for each in came} == {
            name: name for name in names[:3]
        }
        assert {(each.cause and each.cause.code.value, each.cancel_reason) for each in came} == {
            ("cancelled", "why")
        }
        assert await heir.workers.bury(dead.number)


async def test_a_unit_keeps_its_plan_and_the_mapping_that_it_was_made_with(
    postgres_dsn: str,
) -> None:
    """Rule 8: whatever the heir's own configuration says by now."""
    today = mapping(entity("account", {"id": FieldType.INTEGER}, table="elsewhere"))
    async with a_worker(postgres_dsn) as dead, a_worker(postgres_dsn) as heir:
        (unit,) = await admit(dead, 0, u=insert("account", 1))
        await heir.mappings.remember(today)
        await dead.expire()
        assert await heir.workers.fence(dead.number)
        (came,) = await heir.workers.take_over(dead.number, [])
        assert came.unit.plan == unit.plan
        assert came.unit.mapping.entities["account"].table == "accounts"


async def test_of_two_heirs_each_unit_goes_to_one(postgres_dsn: str) -> None:
    async with (
        a_worker(postgres_dsn) as dead,
        a_worker(postgres_dsn) as one,
        a_worker(postgres_dsn) as two,
    ):
        await admit(dead, 0, **{f"u{n}": insert("account", n) for n in range(30)})
        await dead.expire()

        async def inherit(heir: JournalWorker) -> list[str]:
            assert await heir.workers.fence(dead.number)
            return ids(await heir.workers.take_over(dead.number, []))

        first, second = await asyncio.gather(inherit(one), inherit(two))
        assert sorted([*first, *second]) == sorted(f"u{n}" for n in range(30))


async def test_sessions_carry_the_workers_name(postgres_dsn: str) -> None:
    """Rule 5: a takeover finds them by it."""
    async with a_worker(postgres_dsn) as worker:
        name = await worker.value("SELECT current_setting('application_name')")
        assert name == application_name(worker.number)
