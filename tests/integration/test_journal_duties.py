"""What comes after: answers to duplicates, sweeps, forgetting, and what persons do (F4, F11)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from coordinator.domain.errors import ErrorCode, Problem, StoreBusy
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Unit
from coordinator.domain.publishing import Message
from coordinator.engine.ports import Arrival, CancelArrival, Ending, OpenUnit, Refusal
from coordinator.engine.units_api import ActionRefused, UnitUnknown
from tests.admissions import SHOP, TOPIC, arrival, batch, cancel
from tests.journal_worker import JournalWorker, a_worker, refused_as_fenced
from tests.units import insert

pytestmark = pytest.mark.integration

CAUSE = Problem(ErrorCode.CANCELLED, "It was cancelled.")
FOREIGN = Problem(ErrorCode.FOREIGN_WRITE, "Somebody else wrote.")


async def admit(worker: JournalWorker, *records: Arrival | CancelArrival) -> tuple[Unit, ...]:
    await worker.mappings.remember(SHOP)
    numbers = {each.origin.partition for each in records}
    held = await worker.admission.positions([(TOPIC, number) for number in numbers])
    expected = {number: at for (_, number), at in held.items()}
    return (await worker.admission.admit(batch(*records, expected=expected), SHOP)).units


async def finish(worker: JournalWorker, *units: Unit) -> None:
    """Reject the units."""
    await worker.pivot.conclude([], [Refusal(each, CAUSE, in_doubt=False) for each in units])


async def park(worker: JournalWorker, unit: Unit) -> None:
    await worker.pivot.conclude([], [Refusal(unit, CAUSE, in_doubt=True)])
    await worker.pivot.finish([Ending(unit, CAUSE, wrote=True, problem=FOREIGN)])


async def drain(worker: JournalWorker) -> list[tuple[str, str, Any]]:
    """Take everything out of the outbox as (topic, ce_id, value)."""
    assert await worker.outbox.hold_lease()
    rows = await worker.outbox.claim(1000)
    await worker.outbox.delete([row for row, _ in rows])
    return [shown(message) for _, content in rows for message in content]


def shown(message: Message) -> tuple[str, str, Any]:
    return (
        message.topic,
        (dict(message.headers)["ce_id"] or b"").decode(),
        json.loads(message.value or b"null"),
    )


# --- newcomers (F4, F5, F8) -----------------------------------------------------------------------


async def test_a_duplicate_is_answered_once_its_unit_is_final(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        again = arrival("u", insert("account", 1), reply_to="mine", partition=2, offset=55)
        [unit] = await admit(worker, arrival("u", insert("account", 1)), again)
        assert await worker.duties.answer_newcomers(10) == 0
        assert await drain(worker) == []
        await finish(worker, unit)
        [(_, ce_id, outcome)] = await drain(worker)
        assert (ce_id, outcome["duplicate"]) == ("u/outcome", False)
        assert await worker.duties.answer_newcomers(10) == 1
        answers = await drain(worker)
        assert answers == [
            (topic, f"u/duplicate/{TOPIC}-2-55", {**outcome, "duplicate": True})
            for topic in ("test.outcomes", "mine")
        ]
        assert await worker.duties.answer_newcomers(10) == 0


async def test_an_id_reused_for_other_content_is_answered_at_once(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        await admit(
            worker,
            arrival("u", insert("account", 1), digest="first"),
            arrival("u", insert("account", 2), digest="other", metadata=b'{"m":1}'),
        )
        assert await worker.duties.answer_newcomers(10) == 1
        [(_, ce_id, outcome)] = await drain(worker)
        assert ce_id.startswith(f"u/duplicate/{TOPIC}-0-")
        assert (outcome["status"], outcome["duplicate"], outcome["digest"]) == (
            "rejected",
            True,
            "other",
        )
        assert (outcome["error"]["code"], outcome["error"]["retryable"]) == ("id_reused", False)
        assert (outcome["metadata"], outcome["operations"]) == ({"m": 1}, [])
        assert await worker.rows("SELECT status FROM coordinator.units") == [("accepted",)]


async def test_a_cancel_of_a_final_unit_is_answered_with_its_outcome(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        [unit] = await admit(worker, arrival("u", insert("account", 1)))
        await finish(worker, unit)
        [(_, _, outcome)] = await drain(worker)
        await admit(worker, cancel("u", reply_to="mine"))
        assert await worker.duties.answer_newcomers(10) == 1
        assert [(topic, value) for topic, _, value in await drain(worker)] == [
            ("test.outcomes", {**outcome, "duplicate": True}),
            ("mine", {**outcome, "duplicate": True}),
        ]


async def test_a_parked_unit_is_not_final_and_its_duplicates_wait(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        given = arrival("u", insert("order", "o"), digest="d")
        [unit] = await admit(worker, given, arrival("u", insert("order", "o"), digest="d"))
        await park(worker, unit)
        assert await worker.duties.answer_newcomers(10) == 0
        await worker.operators.resolve("u", "compensated", "done by hand")
        assert await worker.duties.answer_newcomers(10) == 1
        assert (await drain(worker))[-1][2]["status"] == "compensated"


async def test_workers_that_answer_together_answer_each_newcomer_once(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as one, a_worker(postgres_dsn) as other:
        copies = [arrival("u", insert("account", 1)) for _ in range(21)]
        [unit] = await admit(one, *copies)
        await finish(one, unit)
        await drain(one)
        counts = [0]
        while sum(counts) < 20:
            counts += await asyncio.gather(
                *(worker.duties.answer_newcomers(3) for worker in (one, other))
            )
        assert max(counts) <= 3, "bounded (I12)"
        ce_ids = [ce_id for _, ce_id, _ in await drain(one)]
        assert sorted(ce_ids) == sorted(
            f"u/duplicate/{TOPIC}-0-{each.origin.offset}" for each in copies[1:]
        )


# --- sweep and retention --------------------------------------------------------------------------


async def age(worker: JournalWorker, unit_id: str, interval: str) -> None:
    await worker.value(
        "UPDATE coordinator.units SET finished_at = clock_timestamp() - $2::text::interval"
        " WHERE id = $1",
        unit_id,
        interval,
    )


async def test_undo_records_are_swept_ten_minutes_after_the_end_and_the_row_goes_last(
    postgres_dsn: str,
) -> None:
    async with a_worker(postgres_dsn) as worker:
        old, young, here, _ = await admit(
            worker,
            arrival("old", insert("order", "a")),
            arrival("young", insert("order", "b")),
            arrival("here", insert("account", 1)),
            arrival("open", insert("order", "c")),
        )
        await finish(worker, old, young, here)
        for unit_id in ("old", "here"):
            await age(worker, unit_id, "11 minutes")
        assert await worker.duties.unswept(600, 10, ["catalog"]) == [("old", ("catalog",))]
        assert await worker.duties.unswept(600, 0, ["catalog"]) == []
        await age(worker, "old", "8 days")
        await age(worker, "here", "8 days")
        assert await worker.duties.forget(7, 10) == 1, "`old` has undo records still"
        await worker.duties.swept(["old", "open"])
        assert await worker.duties.unswept(600, 10, ["catalog"]) == []
        assert await worker.duties.forget(7, 10) == 1
        assert await worker.rows("SELECT id, swept FROM coordinator.units ORDER BY seq") == [
            ("young", False),
            ("open", False),
        ]


async def test_an_id_is_remembered_for_the_retention_and_while_somebody_waits_for_an_answer(
    postgres_dsn: str,
) -> None:
    """F4."""
    async with a_worker(postgres_dsn) as worker:
        units = await admit(worker, *(arrival(f"u{n}", insert("account", n)) for n in range(5)))
        await finish(worker, *units)
        for n in range(5):
            await age(worker, f"u{n}", "7 days 1 minute" if n else "6 days 23 hours")
        await admit(worker, arrival("u1", insert("account", 1)))
        assert await worker.duties.forget(7, 2) == 2
        assert await worker.duties.forget(7, 10) == 1
        assert await worker.rows("SELECT id FROM coordinator.units ORDER BY seq") == [
            ("u0",),
            ("u1",),
        ]
        await worker.duties.answer_newcomers(10)
        assert await worker.duties.forget(7, 10) == 1
        [again] = await admit(worker, arrival("u2", insert("account", 99)))
        assert again.id == "u2", "a forgotten id is a new one"


async def test_an_admission_and_forgetting_take_turns(postgres_dsn: str) -> None:
    """F4: a duplicate must not become the newcomer of a unit that goes away at that moment."""
    async with a_worker(postgres_dsn) as worker, a_worker(postgres_dsn) as other:
        [unit] = await admit(worker, arrival("u", insert("account", 1)))
        await finish(worker, unit)
        await age(worker, "u", "8 days")
        async with other.pool.acquire() as connection, connection.transaction():
            # An admission: it holds its lock, and its newcomer cannot be seen yet.
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtext('coordinator.admission'))"
            )
            await connection.execute(
                'INSERT INTO coordinator.newcomers (seq, digest, topic, partition, "offset",'
                " received_at) SELECT seq, digest, 'units', 0, 7, now() FROM coordinator.units"
            )
            with pytest.raises(StoreBusy):
                await worker.duties.forget(7, 10)
        assert await worker.duties.forget(7, 10) == 0
        assert await worker.duties.answer_newcomers(10) == 1
        assert await worker.duties.forget(7, 10) == 1


async def test_units_of_other_stores_do_not_stand_before_those_that_can_be_swept(
    postgres_dsn: str,
) -> None:
    async with a_worker(postgres_dsn) as worker:
        [one, _] = units = await admit(
            worker, arrival("first", insert("order", "a")), arrival("second", insert("order", "b"))
        )
        await finish(worker, *units)
        for unit_id in ("first", "second"):
            await age(worker, unit_id, "11 minutes")
        await worker.value("UPDATE coordinator.units SET stores = '{gone}' WHERE seq = $1", one.seq)
        assert await worker.duties.unswept(600, 1, ["catalog"]) == [("second", ("catalog",))]
        assert await worker.duties.unswept(600, 9, []) == []


async def test_workers_mappings_and_verbs_are_forgotten_when_nobody_needs_them(
    postgres_dsn: str,
) -> None:
    async with a_worker(postgres_dsn) as dead, a_worker(postgres_dsn) as alive:
        [unit] = await admit(alive, arrival("u", insert("order", "o")))
        await park(alive, unit)
        await alive.operators.retry("u", "put right")
        await dead.expire()
        assert await alive.workers.fence(dead.number)
        await alive.workers.record_fenced(dead.number, "catalog")
        assert await alive.workers.bury(dead.number)
        assert await alive.duties.buried(1, 10) == []
        for table, column in (("workers", "fenced_at"), ("mappings", "created_at")):
            await alive.value(
                f"UPDATE coordinator.{table} SET {column} = {column} - interval '9 days'"
            )
        await alive.value("UPDATE coordinator.audit SET at = at - interval '9 days'")
        assert await alive.duties.buried(1, 10) == [dead.number]
        await alive.duties.forget_workers([dead.number, alive.number])
        rows = await alive.rows("SELECT id FROM coordinator.workers")
        assert rows == [(alive.number,)], "a worker that lives stays, whoever asks"
        assert await alive.rows("SELECT 1 FROM coordinator.takeovers") == []
        await refused_as_fenced(lambda: dead.duties.forget_history(7, 10))
        await refused_as_fenced(dead.workers.beat)

        await alive.value("INSERT INTO coordinator.mappings VALUES ('old', '', '2000-01-01')")
        await alive.duties.forget_history(7, 10)
        assert await alive.rows("SELECT 1 FROM coordinator.audit") == []
        kept = await alive.rows("SELECT fingerprint FROM coordinator.mappings")
        assert kept == [(SHOP.fingerprint,)], "a unit and a worker need it"
        await alive.value("UPDATE coordinator.units SET mapping = 'none'")
        await alive.duties.forget_history(7, 10)
        assert await alive.rows("SELECT fingerprint FROM coordinator.mappings") == kept


# --- persons (F11, F38, F41) ----------------------------------------------------------------------


async def test_a_parked_unit_is_retried_and_its_owner_sees_it(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        [unit] = await admit(worker, arrival("u", insert("order", "o")))
        await park(worker, unit)
        assert await worker.duties.reopened([unit.seq]) == []
        view = await worker.operators.retry("u", "it is put right")
        assert (view["status"], view["outcome"], view["problem"]) == ("compensating", None, None)
        [reopened] = await worker.duties.reopened([unit.seq])
        assert isinstance(reopened, OpenUnit)
        same = unit._replace(size_bytes=reopened.unit.size_bytes)
        assert reopened == OpenUnit(same, Status.COMPENSATING, CAUSE, None)
        await worker.pivot.finish([Ending(unit, CAUSE, wrote=True)])
        told = [(ce_id, value["status"]) for _, ce_id, value in await drain(worker)]
        assert told == [("u/parked", "parked"), ("u/outcome", "compensated")]
        assert await worker.rows("SELECT who, action, unit, reason FROM coordinator.audit") == [
            ("tester", "retry", "u", "it is put right")
        ]


async def test_a_parked_unit_is_resolved_by_hand(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        given = arrival("u", insert("order", "o"), reply_to="mine", metadata=b"[1]")
        [unit] = await admit(worker, given)
        await park(worker, unit)
        await drain(worker)
        view = await worker.operators.resolve("u", "compensated", "undone by hand")
        assert (view["status"], view["is_final"]) == ("compensated", True)
        (topic, ce_id, outcome), (copy, _, _) = await drain(worker)
        assert (topic, copy, ce_id) == ("test.outcomes", "mine", "u/outcome")
        assert (outcome["status"], outcome["error"]["code"]) == ("compensated", "cancelled")
        assert (outcome["metadata"], outcome["operations"]) == ([1], [])
        assert await worker.rows("SELECT 1 FROM coordinator.locks") == []
        assert await worker.duties.reopened([unit.seq]) == [unit.seq]
        late = await worker.pivot.finish([Ending(unit, CAUSE, wrote=True)])
        assert late.ended == {unit.seq: (Status.COMPENSATED, CAUSE)}


async def test_of_two_persons_one_resolves(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        [unit] = await admit(worker, arrival("u", insert("order", "o")))
        await park(worker, unit)
        await drain(worker)
        results = await asyncio.gather(
            *(worker.operators.resolve("u", "compensated", "mine") for _ in range(4)),
            return_exceptions=True,
        )
        assert sum(isinstance(each, ActionRefused) for each in results) == 3
        assert len(await drain(worker)) == 1


async def test_a_cancel_by_a_person_is_for_an_accepted_unit(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        [unit] = await admit(worker, arrival("u", insert("order", "o")))
        view = await worker.operators.cancel("u", "mistake")
        assert (view["status"], view["cancel_requested"]) == ("accepted", "mistake")
        assert await worker.duties.cancel_requests() == {unit.seq: "mistake"}
        await finish(worker, unit)
        assert await worker.duties.cancel_requests() == {}


async def test_verbs_refuse_what_a_status_does_not_allow(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        operators = worker.operators
        [unit] = await admit(worker, arrival("u", insert("account", 1)))
        refused: list[Callable[[], Awaitable[object]]] = [
            lambda: operators.retry("u", None),
            lambda: operators.resolve("u", "compensated", "why"),
            lambda: operators.resolve("u", "committed", "why"),
        ]
        for act in refused:
            with pytest.raises(ActionRefused):
                await act()
        await finish(worker, unit)
        for act in [*refused, lambda: operators.cancel("u", None)]:
            with pytest.raises(ActionRefused):
                await act()
        for unknown in (
            operators.retry("nobody", None),
            operators.cancel("nobody", None),
            operators.resolve("nobody", "compensated", "why"),
        ):
            with pytest.raises(UnitUnknown):
                await unknown
        assert await worker.rows("SELECT 1 FROM coordinator.audit") == []


async def test_units_are_listed_the_oldest_first_by_status_and_bounded(postgres_dsn: str) -> None:
    async with a_worker(postgres_dsn) as worker:
        units = await admit(worker, *(arrival(f"u{n}", insert("account", n)) for n in range(4)))
        await finish(worker, units[1])
        listed = await worker.operators.list(None, 3)
        assert [each["unit"] for each in listed] == ["u0", "u1", "u2"]
        assert [each["unit"] for each in await worker.operators.list("rejected", 10)] == ["u1"]
        assert await worker.operators.list("parked", 10) == []
        assert await worker.operators.show("nobody") is None
