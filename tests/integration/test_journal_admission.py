"""Admission on a real journal: positions by compare-and-set, units once, locks in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from coordinator.domain.publishing import Message
from coordinator.engine.ports import Admitted, Arrival, CancelArrival
from tests.acceptance.harness.waiting import until
from tests.admissions import SHOP, TOPIC, arrival, batch, cancel
from tests.cancels_contract import CONTRACT, Desk
from tests.journal_worker import JournalWorker, a_worker, refused_as_fenced
from tests.units import check, insert, update

pytestmark = pytest.mark.integration


async def admit(worker: JournalWorker, *records: Arrival | CancelArrival, **parts: Any) -> Admitted:
    """Admit records on a partition of which we know where the journal stands."""
    await worker.mappings.remember(SHOP)
    if "expected" not in parts:
        numbers = {each.origin.partition for each in records}
        held = await worker.admission.positions([(TOPIC, number) for number in numbers])
        parts["expected"] = {number: at for (_, number), at in held.items()}
    return await worker.admission.admit(batch(*records, **parts), SHOP)


def ids(admitted: Admitted) -> list[str]:
    return [each.id for each in admitted.units]


async def set_status(worker: JournalWorker, unit_id: str, status: str) -> None:
    final = status in ("committed", "rejected", "compensated")
    await worker.value(
        "UPDATE coordinator.units SET status = $2, outcome = '{}',"
        " finished_at = CASE WHEN $3 THEN clock_timestamp() END WHERE id = $1",
        unit_id,
        status,
        final,
    )


# --- positions ------------------------------------------------------------------------------------


async def test_a_position_moves_by_compare_and_set_only(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        assert await worker.admission.positions([(TOPIC, 0)]) == {}
        one = arrival("u-1", insert("account", 1), offset=5)
        assert (await admit(worker, one, expected={0: None})).lost == frozenset()
        assert await worker.admission.positions([(TOPIC, 0), (TOPIC, 1)]) == {(TOPIC, 0): 6}
        for stale in (None, 5, 7):
            again = arrival("u-2", insert("account", 2), offset=6)
            found = await admit(worker, again, expected={0: stale})
            assert found.lost == {(TOPIC, 0)}
            assert found.units == ()
        assert await worker.admission.positions([(TOPIC, 0)]) == {(TOPIC, 0): 6}


async def test_a_lost_partition_drops_its_own_records_only(postgres_dsn: str) -> None:
    """Its units, its cancels, its answers; nothing of the other partition's."""
    async with a_worker(postgres_dsn) as worker:
        await admit(worker, arrival("u-0", insert("account", 9), partition=1, offset=7))
        kept, dropped = Message("t", b"kept", b"1", ()), Message("t", b"dropped", b"2", ())
        found = await admit(
            worker,
            arrival("u-1", insert("account", 1), partition=0, offset=3),
            arrival("u-2", insert("account", 2), partition=1, offset=8),
            cancel("u-0", after=2, partition=1),
            expected={0: None, 1: 4},
            answers={0: [kept], 1: [dropped]},
        )
        assert found.lost == {(TOPIC, 1)}
        assert ids(found) == ["u-1"]
        assert found.cancelled == ()
        assert await worker.published() == [kept]
        assert await worker.rows("SELECT id FROM coordinator.units ORDER BY seq") == [
            ("u-0",),
            ("u-1",),
        ]


async def test_of_two_daemons_that_read_the_same_records_one_admits_them(
    postgres_dsn: str,
) -> None:
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        await one.mappings.remember(SHOP)
        records = [arrival(f"u-{n}", insert("account", n), offset=n) for n in range(5)]
        found = await asyncio.gather(
            *(worker.admission.admit(batch(*records), SHOP) for worker in (one, other))
        )
        assert sorted(len(each.units) for each in found) == [0, 5]
        assert sorted(len(each.lost) for each in found) == [0, 1]
        assert sum(each.newcomers for each in found) == 0, "delivered twice is no duplicate (F4)"


# --- units ----------------------------------------------------------------------------------------


async def test_an_admitted_unit_is_the_one_that_is_read_back(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        given = arrival(
            "u-1",
            update("account", 1, balance=5, increment=None),
            insert("order", "o-\u00e9", total=7),
            timeout_ms=1500,
            metadata=b'{"by":"me"}',
            reply_to="replies",
            traceparent="00-aa-bb-01",
        )
        [unit] = (await admit(worker, given)).units
        assert unit.deadline_at - unit.received_at == timedelta(milliseconds=1500)
        [read_back] = await worker.workers.ours()
        assert read_back.unit.size_bytes > 0, "it weighs as much as its plan"
        assert read_back.unit == unit._replace(size_bytes=read_back.unit.size_bytes)
        assert (read_back.status, read_back.cause, read_back.cancel_reason) == (
            "accepted",
            None,
            None,
        )
        assert await worker.rows("SELECT stores FROM coordinator.units") == [(["catalog"],)]


async def test_seqs_follow_the_order_of_the_records_and_of_the_admissions(
    postgres_dsn: str,
) -> None:
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        first = await admit(one, *(arrival(f"a-{n}", insert("account", n)) for n in range(3)))
        second = await admit(
            other, *(arrival(f"b-{n}", insert("account", n), partition=1) for n in range(3))
        )
        seqs = [each.seq for each in (*first.units, *second.units)]
        assert ids(first) + ids(second) == ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2"]
        assert seqs == sorted(set(seqs))


async def test_concurrent_admissions_keep_seq_in_the_order_of_their_commits(
    postgres_dsn: str,
) -> None:
    """I5: a unit that is seen later never has a lower seq."""
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        await one.mappings.remember(SHOP)

        async def many(worker: JournalWorker, partition: int) -> list[Admitted]:
            found = []
            for n in range(10):
                record = arrival(
                    f"{partition}-{n}", insert("account", 1), partition=partition, offset=n
                )
                expected = {partition: n if n else None}
                found.append(await worker.admission.admit(batch(record, expected=expected), SHOP))
            return found

        halves = await asyncio.gather(many(one, 0), many(other, 1))
        found = [each for half in halves for each in half]
        by_time = sorted(found, key=lambda each: each.at)
        assert [each.units[0].seq for each in by_time] == sorted(
            each.units[0].seq for each in found
        )


@pytest.mark.parametrize("same_batch", [True, False])
async def test_a_duplicate_is_remembered_and_never_admitted(
    postgres_dsn: str, same_batch: bool
) -> None:
    """F4: within a batch as across batches and partitions; the first admitted is the first."""
    async with a_worker(postgres_dsn) as worker:
        first = arrival("u-1", insert("account", 1), digest="d1")
        again = arrival("u-1", insert("account", 1), digest="d1", partition=1, reply_to="r")
        other = arrival("u-1", insert("account", 2), digest="d2", partition=1)
        if same_batch:
            found = await admit(worker, first, again, other, expected={0: None, 1: None})
            assert (ids(found), found.newcomers) == (["u-1"], 2)
        else:
            await admit(worker, first)
            found = await admit(worker, again, other)
            assert (ids(found), found.newcomers) == ([], 2)
        assert await worker.rows(
            "SELECT digest, partition, reply_to FROM coordinator.newcomers ORDER BY id"
        ) == [("d1", 1, "r"), ("d2", 1, None)]
        assert await worker.rows("SELECT key FROM coordinator.locks") == [("1",)]


async def test_the_same_record_delivered_twice_is_no_duplicate(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        record = arrival("u-1", insert("account", 1), offset=4)
        await admit(worker, record)
        found = await admit(worker, record, expected={0: 4})
        assert found.lost == {(TOPIC, 0)}
        assert found.newcomers == 0


# --- locks ----------------------------------------------------------------------------------------


async def test_every_claim_is_a_row_exclusive_for_writes_and_shared_for_checks(
    postgres_dsn: str,
) -> None:
    async with a_worker(postgres_dsn) as worker:
        found = await admit(
            worker,
            arrival("u-1", update("account", 1, balance=1), check("order", "o")),
            arrival("u-2", check("account", 1)),
        )
        one, two = (each.seq for each in found.units)
        assert await worker.rows(
            "SELECT entity, key, seq, exclusive FROM coordinator.locks ORDER BY entity, key, seq"
        ) == [
            ("account", "1", one, True),
            ("account", "1", two, False),
            ("order", '"o"', one, False),
        ]


async def test_a_unit_that_waits_for_another_workers_is_told_and_until_when(
    postgres_dsn: str,
) -> None:
    """I5 between daemons."""
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        await admit(one, arrival("w", update("account", 1, balance=1)))
        await admit(one, arrival("r", check("account", 2)))
        found = await admit(
            other,
            arrival("waits", update("account", 1, balance=2), partition=1),
            arrival("shares", check("account", 2), partition=1),
            arrival("waits-too", update("account", 2, balance=1), partition=1),
            arrival("free", update("account", 3, balance=1), partition=1),
        )
        by_id = {each.id: each.seq for each in found.units}
        assert found.elsewhere == {by_id["waits"], by_id["waits-too"]}
        assert await other.duties.still_elsewhere(list(by_id.values())) == found.elsewhere
        await one.value(
            "DELETE FROM coordinator.locks WHERE key = '1' AND seq < $1", by_id["waits"]
        )
        assert await other.duties.still_elsewhere(list(by_id.values())) == {by_id["waits-too"]}
        mine = await admit(other, arrival("behind-mine", check("account", 3), partition=1))
        assert mine.elsewhere == frozenset(), "our own units are the schedule's business"


async def test_a_key_of_any_length_is_claimed(postgres_dsn: str) -> None:
    """I10: an index has a limit, a sender has none."""
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        await admit(one, arrival("a", insert("order", "k" * 20_000)))
        found = await admit(
            other,
            arrival("b", insert("order", "k" * 20_000), partition=1),
            arrival("c", insert("order", "k" * 19_999), partition=1),
        )
        assert found.elsewhere == {found.units[0].seq}


# --- cancels (F8) ---------------------------------------------------------------------------------


async def test_a_cancel_marks_what_was_admitted_before_it(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        earlier = await admit(worker, arrival("old", insert("account", 1)))
        found = await admit(
            worker,
            arrival("new", insert("account", 2)),
            cancel("old", after=1, reason="nul \0 and \ud7ff"),
            cancel("new", after=1),
            cancel("later", after=1, reason="too early"),
            arrival("later", insert("account", 3)),
        )
        assert set(found.cancelled) == {earlier.units[0].seq, found.units[0].seq}
        assert found.unknown == ("later",)
        assert await worker.duties.cancel_requests() == {
            earlier.units[0].seq: "nul \ufffd and \ud7ff",
            found.units[0].seq: "",
        }


async def test_a_cancel_of_another_workers_unit_reaches_its_owner(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        [unit] = (await admit(one, arrival("u", insert("account", 1)))).units
        found = await admit(other, cancel("u", partition=1, reason="why"))
        assert (found.cancelled, found.unknown, found.ignored) == ((), (), ())
        assert await one.duties.cancel_requests() == {unit.seq: "why"}
        assert await other.duties.cancel_requests() == {}


@pytest.mark.parametrize(
    ("status", "ignored", "answered"),
    [
        ("compensating", ("u",), 0),
        ("parked", ("u",), 0),
        ("committed", (), 1),
        ("rejected", (), 1),
        ("compensated", (), 1),
    ],
)
async def test_a_cancel_in_every_other_state(
    postgres_dsn: str, status: str, ignored: tuple[str, ...], answered: int
) -> None:
    async with a_worker(postgres_dsn) as worker:
        await admit(worker, arrival("u", insert("account", 1)))
        await set_status(worker, "u", status)
        found = await admit(worker, cancel("u", reply_to="r"), cancel("nobody"))
        assert (found.cancelled, found.ignored, found.unknown) == ((), ignored, ("nobody",))
        rows = await worker.rows("SELECT digest, reply_to FROM coordinator.newcomers")
        assert rows == [(None, "r")] * answered
        assert await worker.rows("SELECT cancel_requested FROM coordinator.units") == [(None,)]


# --- fences ---------------------------------------------------------------------------------------


async def test_a_fenced_worker_admits_nothing(postgres_dsn: str) -> None:
    """I9."""
    async with a_worker(postgres_dsn) as zombie, a_worker(postgres_dsn) as other:
        await admit(zombie, arrival("before", insert("account", 1), offset=0))
        await zombie.expire()
        assert await other.workers.fence(zombie.number)
        late = arrival("after", insert("account", 2), offset=1)
        await refused_as_fenced(lambda: zombie.admission.admit(batch(late, expected={0: 1}), SHOP))
        assert await other.admission.positions([(TOPIC, 0)]) == {(TOPIC, 0): 1}
        assert await other.rows("SELECT id FROM coordinator.units") == [("before",)]


# --- cancels bounded by topic ---------------------------------------------------------------------


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda each: each.__name__)
async def test_bounded_cancels_on_postgresql(
    postgres_dsn: str, promise: Callable[[Desk], Awaitable[None]]
) -> None:
    async with a_worker(postgres_dsn) as worker:
        await worker.mappings.remember(SHOP)

        async def finish(unit_id: str) -> None:
            await set_status(worker, unit_id, "committed")

        async def newcomers() -> int:
            count: int = await worker.value("SELECT count(*) FROM coordinator.newcomers")
            return count

        await promise(Desk(worker.admission, finish, newcomers))


async def test_a_bounded_cancel_of_a_lost_partition_is_read_again(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        await admit(worker, arrival("u", insert("account", 1), offset=5))
        late = cancel("u", topics=["elsewhere"])
        found = await admit(worker, late, expected={0: 3})
        assert found.lost == {(TOPIC, 0)}
        assert found.forbidden == ()


async def test_a_unit_that_is_just_being_admitted_counts_by_its_topic(postgres_dsn: str) -> None:
    """Whose it is, is asked when no other admission can be under way."""
    async with a_worker(postgres_dsn) as worker, a_worker(postgres_dsn) as other:
        await admit(worker, arrival("before", insert("account", 1)))
        async with other.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtext('coordinator.admission'))"
            )
            cancelling = asyncio.create_task(
                admit(worker, cancel("u", partition=1, topics=["elsewhere"]))
            )
            waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
            await until(lambda: other.value(waits), "the cancel waits for its turn", 60)
            await connection.execute(
                "INSERT INTO coordinator.units (seq, id, digest, status, worker, mapping, plan,"
                ' stores, received_at, deadline_at, topic, partition, "offset")'
                " SELECT seq + 1, 'u', digest, status, $1, mapping, plan, stores, received_at,"
                ' deadline_at, topic, partition, "offset" + 1'
                " FROM coordinator.units WHERE id = 'before'",
                other.number,
            )
        found = await cancelling
        assert ([each.unit_id for each in found.forbidden], found.unknown) == (["u"], ())
        assert await other.duties.cancel_requests() == {}
