"""The outbox on a real journal: claimed by being there, deleted on purpose, one relay at a time."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from coordinator.domain.errors import StoreBusy
from coordinator.domain.publishing import Message
from coordinator.journal import outbox
from coordinator.journal.outbox import Unpublished
from coordinator.journal.packing import pack
from tests.journal_worker import a_worker

pytestmark = pytest.mark.integration


def message(topic: str, number: int) -> Message:
    return Message(topic, b"k", b"%d" % number, (("ce_id", b"%d" % number), ("none", None)))


async def test_rows_are_claimed_in_order_as_they_were_put(postgres_dsn: str) -> None:
    tombstone = Message("a", None, None, ())
    async with a_worker(postgres_dsn) as worker:
        first = await worker.put(message("a", 1), message("b", 2), tombstone)
        second = await worker.put(message("a", 3))
        assert await worker.outbox.claim(10) == [
            (first, [message("a", 1), message("b", 2), tombstone]),
            (second, [message("a", 3)]),
        ]
        assert [row for row, _ in await worker.outbox.claim(1)] == [first]


async def test_a_claim_takes_nothing_away_and_skips_only_what_it_is_told(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        assert await worker.outbox.hold_lease()
        rows = [await worker.put(message("a", number)) for number in range(4)]
        assert [row for row, _ in await worker.outbox.claim(10, skip=rows[1:3])] == [
            rows[0],
            rows[3],
        ]
        await worker.outbox.delete([rows[0], rows[2]])
        assert [row for row, _ in await worker.outbox.claim(10)] == [rows[1], rows[3]]


async def test_what_is_unpublished_is_counted_with_the_age_of_the_oldest(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_worker(postgres_dsn) as worker:
        assert await worker.outbox.hold_lease()
        assert await worker.outbox.unpublished() == Unpublished(0, 0.0)
        rows = [await worker.put(message("a", number)) for number in range(4)]
        await worker.rows(
            "UPDATE coordinator.outbox SET created_at = created_at - interval '1 hour'"
            " WHERE id = $1",
            rows[0],
        )
        found = await worker.outbox.unpublished()
        assert found.rows == 4
        assert 3600 <= found.oldest_age_seconds < 7200
        await worker.outbox.delete(rows[:1])
        found = await worker.outbox.unpublished()
        assert found.rows == 3
        assert 0 < found.oldest_age_seconds < 3600
        monkeypatch.setattr(outbox, "ROWS_COUNTED_MAX", 2)
        assert (await worker.outbox.unpublished()).rows == 2


async def test_what_this_worker_has_just_committed_is_not_read_again(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        assert await worker.outbox.hold_lease()
        rows = [await worker.put(message("a", number)) for number in range(3)]
        kept = [message("a", 1)]
        worker.fresh_rows.keep(rows[1], kept, 10)
        claimed = await worker.outbox.claim(10)
        assert claimed == [(row, [message("a", number)]) for number, row in enumerate(rows)]
        assert claimed[1][1] is kept, "it came from memory"
        assert [row for row, _ in await worker.outbox.claim(10, skip=rows[1:2])] == rows[::2]
        await worker.outbox.delete(rows[1:2])
        assert worker.fresh_rows.known() == {}


async def test_a_kept_row_that_is_not_there_is_not_claimed(postgres_dsn: str) -> None:
    """Whoever relayed before us may have published it: the journal alone says what is there."""
    async with a_worker(postgres_dsn) as worker:
        assert await worker.outbox.hold_lease()
        row = await worker.put(message("a", 1))
        worker.fresh_rows.keep(row + 1, [message("a", 2)], 10)
        assert await worker.outbox.claim(10) == [(row, [message("a", 1)])]


async def test_a_row_that_is_committed_late_is_claimed_before_higher_ones(
    postgres_dsn: str,
) -> None:
    """Following "greater than the last" would lose it (H21)."""
    async with a_worker(postgres_dsn) as worker, worker.pool.acquire() as late:
        transaction = late.transaction()
        await transaction.start()
        early_id = await late.fetchval(
            "INSERT INTO coordinator.outbox (messages) VALUES ($1) RETURNING id",
            pack([message("a", 1)]),
        )
        later_id = await worker.put(message("a", 2))
        assert [row for row, _ in await worker.outbox.claim(10)] == [later_id]
        await transaction.commit()
        assert await worker.outbox.claim(10, skip=[later_id]) == [(early_id, [message("a", 1)])]


async def test_setting_a_topic_aside_keeps_the_row_and_what_it_holds_for_others(
    postgres_dsn: str,
) -> None:
    """The messages of other topics in that row may not be acknowledged yet (I8)."""
    async with a_worker(postgres_dsn) as worker:
        assert await worker.outbox.hold_lease()
        row = await worker.put(message("bad", 1), message("good", 2), message("bad", 3))
        await worker.outbox.set_aside("bad", [message("bad", 1), message("bad", 3)])
        [(claimed, content)] = await worker.outbox.claim(10)
        assert claimed == row
        assert message("good", 2) in content


async def test_what_is_aside_comes_back_in_order_and_by_topic(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        outbox = worker.outbox
        assert await outbox.hold_lease()
        assert await outbox.topics_aside() == frozenset()
        await outbox.set_aside("bad", [message("bad", number) for number in range(3)])
        await outbox.set_aside("worse", [message("worse", 9)])
        await outbox.set_aside("bad", [message("bad", 3)])
        assert await outbox.topics_aside() == {"bad", "worse"}
        queue = await outbox.claim_aside("bad", 10)
        assert [each for _, each in queue] == [message("bad", number) for number in range(4)]
        assert await outbox.claim_aside("bad", 2) == queue[:2]
        await outbox.delete_aside([queue[0][0], queue[2][0]])
        assert await outbox.claim_aside("bad", 10) == [queue[1], queue[3]]
        assert [each for _, each in await outbox.claim_aside("worse", 10)] == [message("worse", 9)]
        await outbox.delete_aside([queue[1][0], queue[3][0]])
        assert await outbox.topics_aside() == {"worse"}


async def test_one_relay_at_a_time_and_the_next_at_once_when_it_is_given_back(
    postgres_dsn: str,
) -> None:
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        assert await one.outbox.hold_lease()
        assert await one.outbox.hold_lease()
        assert not await other.outbox.hold_lease()
        await other.outbox.release_lease()  # not its own: nothing happens
        assert not await other.outbox.hold_lease()
        await one.outbox.release_lease()
        assert await other.outbox.hold_lease()
        assert not await one.outbox.hold_lease()


async def test_of_two_relays_that_ask_together_one_gets_it(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        for _ in range(10):
            got = await asyncio.gather(one.outbox.hold_lease(), other.outbox.hold_lease())
            assert sorted(got) == [False, True]
            await (one if got[0] else other).outbox.release_lease()


async def test_a_lease_that_has_run_out_or_whose_worker_is_buried_is_taken(
    postgres_dsn: str,
) -> None:
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        assert await one.outbox.hold_lease()
        await one.value("UPDATE coordinator.relay SET expires_at = clock_timestamp()")
        assert await other.outbox.hold_lease()
        await one.expire()
        assert await other.workers.fence(one.number)
        assert await other.workers.bury(one.number)
        await one.value(
            "UPDATE coordinator.relay SET worker = $1, expires_at = clock_timestamp() + '1 h'",
            one.number,
        )
        assert await other.outbox.hold_lease()


async def test_a_fenced_worker_does_not_get_the_lease(postgres_dsn: str) -> None:
    """I9."""
    async with a_worker(postgres_dsn) as zombie, a_worker(postgres_dsn) as other:
        assert await zombie.outbox.hold_lease()
        await zombie.expire()
        assert await other.workers.fence(zombie.number)
        assert not await zombie.outbox.hold_lease()


async def test_a_relay_that_has_lost_its_lease_changes_nothing(postgres_dsn: str) -> None:
    """I8: the next one may have published newer messages of the topic meanwhile."""
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        row = await one.put(message("bad", 1))
        assert await one.outbox.hold_lease()
        await one.outbox.set_aside("bad", [message("bad", 1)])
        [(aside, _)] = await one.outbox.claim_aside("bad", 10)
        await one.value("UPDATE coordinator.relay SET expires_at = clock_timestamp()")
        await one.outbox.delete([])  # run out, but nobody else has it
        assert await other.outbox.hold_lease()
        changes = (
            partial(one.outbox.delete, [row]),
            partial(one.outbox.set_aside, "bad", [message("bad", 2)]),
            partial(one.outbox.delete_aside, [aside]),
        )
        for change in changes:
            with pytest.raises(StoreBusy):
                await change()
        assert [number for number, _ in await other.outbox.claim(10)] == [row]
        assert await other.outbox.claim_aside("bad", 10) == [(aside, message("bad", 1))]
        await other.outbox.delete([row])
        await other.outbox.delete_aside([aside])
        assert await other.outbox.claim(10) == []
        assert await other.outbox.topics_aside() == frozenset()


async def test_a_change_that_waits_for_the_lease_to_be_taken_does_nothing(
    postgres_dsn: str,
) -> None:
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        row = await one.put(message("a", 1))
        assert await one.outbox.hold_lease()
        async with other.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("UPDATE coordinator.relay SET worker = $1", other.number)
            deleting = asyncio.create_task(one.outbox.delete([row]))
            waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
            while not await connection.fetchval(waits) and not deleting.done():  # noqa: ASYNC110 - a server
                await asyncio.sleep(0)
            await transaction.commit()
        with pytest.raises(StoreBusy, match="Another worker"):
            await deleting
        assert [number for number, _ in await other.outbox.claim(10)] == [row]
