"""The pivot on a real journal: each unit ends once, and everything of it or nothing (I7)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import pytest

from coordinator.domain.announce import Announcer
from coordinator.domain.decide import Effect, decide_branch
from coordinator.domain.entity import FieldType, StoreKind
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import BatchRefused, ErrorCode, Problem
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Operation, Unit
from coordinator.domain.preview import NOTHING_SEEN, Preview
from coordinator.domain.publishing import Done
from coordinator.engine.ports import Candidate, Concluded, Ending, Refusal
from coordinator.participants.postgresql.tables import Tables
from tests.admissions import arrival, batch
from tests.journal_worker import OUTCOMES, JournalWorker, a_worker, refused_as_fenced
from tests.live_columns import columns_of
from tests.units import entity, equals, insert, mapping, update

pytestmark = pytest.mark.integration

CAUSE = Problem(ErrorCode.EXPECTATION_FAILED, "It was not as expected.", operation=0)
FOREIGN = Problem(ErrorCode.FOREIGN_WRITE, "Somebody else wrote.", entity="order")
ACCOUNTS = """
CREATE TABLE public.accounts (
    id bigint PRIMARY KEY, balance bigint CHECK (balance < 1000), version integer NOT NULL
);
INSERT INTO public.accounts SELECT i, 100, 1 FROM generate_series(1, 9) AS i;
"""


@dataclass
class Shop:
    """A worker, its mapping, and what is admitted by it."""

    worker: JournalWorker
    mapping: EntityMapping
    dsn: str
    previewed: bool = False

    async def admit(self, unit_id: str, *operations: Operation, **parts: Any) -> Unit:
        record = arrival(unit_id, *operations, on=self.mapping, **parts)
        moves = batch(record)
        held = await self.worker.admission.positions([moves.moves[0].partition])
        expected = {number: at for (_, number), at in held.items()}
        admitted = await self.worker.admission.admit(batch(record, expected=expected), self.mapping)
        return admitted.units[0]

    async def conclude(self, *candidates: Candidate | Refusal) -> Concluded:
        units = [each.unit for each in candidates if isinstance(each, Candidate)]
        return await self.worker.pivot.conclude(
            [each for each in candidates if isinstance(each, Candidate)],
            [each for each in candidates if isinstance(each, Refusal)],
            await self.preview(units) if self.previewed else NOTHING_SEEN,
        )

    async def preview(self, units: Sequence[Unit]) -> Preview:
        """What the engine decides on an unlocked read."""
        images, rows = await self.worker.pivot.load(units)
        decided = {unit.seq: decide_branch(unit, "ledger", images) for unit in units}
        writes = {seq: each for seq, each in decided.items() if not isinstance(each, Problem)}
        return Preview(images, rows, writes)

    async def statuses(self) -> dict[str, str]:
        rows = await self.worker.rows("SELECT id, status FROM coordinator.units ORDER BY seq")
        return {unit_id: status for unit_id, status in rows}

    async def claims(self) -> int:
        count: int = await self.worker.value("SELECT count(*) FROM coordinator.locks")
        return count

    async def balance(self, account: int) -> tuple[Any, ...]:
        [row] = await self.worker.rows(
            "SELECT balance, version FROM public.accounts WHERE id = $1", account
        )
        return row

    async def outcomes(self) -> list[tuple[str, Any]]:
        """(`ce_id`, value) of every outcome in the outbox."""
        return [
            (dict(each.headers)["ce_id"].decode(), json.loads(each.value or b""))  # type: ignore[union-attr]
            for each in await self.worker.published()
            if each.topic == OUTCOMES
        ]


@pytest.fixture(params=[False, True], ids=["step-by-step", "foretold"])
async def shop(postgres_dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    """A journal and its accounts; the second time with a preview, so that pivots are foretold."""
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute(ACCOUNTS)
    columns = await columns_of(connection, "accounts")
    await connection.close()
    made = mapping(
        entity(
            "account",
            {"id": FieldType.INTEGER, "balance": FieldType.INTEGER},
            table="accounts",
            columns=columns,
        ),
        entity(
            "order",
            {"_id": FieldType.STRING},
            store="catalog",
            kind=StoreKind.MONGODB,
            key="_id",
            version=None,
        ),
    )
    async with a_worker(postgres_dsn, tables=Tables("ledger")) as worker:
        await worker.mappings.remember(made)
        yield Shop(worker, made, postgres_dsn, request.param)


def applied(unit: Unit) -> Candidate:
    """The unit's order has been inserted in MongoDB."""
    done = Done(unit.plan.branches["catalog"][0], Effect.CREATED, None, b'{"_id":"o"}', None)
    return Candidate(unit, (done,), in_doubt=True)


def here(unit: Unit) -> Candidate:
    return Candidate(unit, (), in_doubt=False)


# --- forward --------------------------------------------------------------------------------------


async def test_a_commit_is_data_status_outcome_events_and_locks_at_once(shop: Shop) -> None:
    unit = await shop.admit(
        "u", update("account", 1, increment={"balance": -5}), insert("order", "o")
    )
    concluded = await shop.conclude(applied(unit))
    assert concluded == Concluded(ended={unit.seq: (Status.COMMITTED, None)})
    assert await shop.balance(1) == (95, 2)
    assert await shop.claims() == 0
    messages = await shop.worker.published()
    assert [each.topic for each in messages] == [
        "test.changes.account",
        "test.changes.order",
        OUTCOMES,
    ]
    [(ce_id, outcome)] = await shop.outcomes()
    assert (ce_id, outcome["status"], outcome["error"]) == ("u/outcome", "committed", None)
    assert [each["entity"] for each in outcome["operations"]] == ["account", "order"]
    view = await shop.worker.operators.show("u")
    assert view is not None
    assert view["outcome"] == outcome
    assert not await shop.worker.value("SELECT swept FROM coordinator.units"), (
        "MongoDB has a record"
    )


async def test_a_unit_of_the_journals_store_alone_has_nothing_to_be_swept(shop: Shop) -> None:
    unit = await shop.admit("u", update("account", 1, balance=1))
    await shop.conclude(here(unit))
    assert await shop.worker.value("SELECT swept FROM coordinator.units")
    assert await shop.worker.duties.unswept(-60, 10, ["catalog"]) == []


async def test_a_lost_reply_is_settled_by_asking_again(shop: Shop) -> None:
    """I11, I3: what is concluded stays, and nothing is written or published twice."""
    one = await shop.admit("one", update("account", 1, increment={"balance": 1}))
    two = await shop.admit("two", insert("order", "o"))
    first = await shop.conclude(here(one), Refusal(two, CAUSE, in_doubt=True))
    again = await shop.conclude(here(one), applied(two))
    assert again.ended == first.ended == {one.seq: (Status.COMMITTED, None)}
    assert again.compensating == first.compensating == {two.seq: CAUSE}
    assert await shop.balance(1) == (101, 2)
    assert len(await shop.outcomes()) == 1


async def test_refused_before_anything_was_sent_is_rejected_and_after_it_compensating(
    shop: Shop,
) -> None:
    """Rule 1."""
    plain = await shop.admit("plain", insert("order", "o"))
    doubt = await shop.admit("doubt", insert("order", "p"))
    problem = replace(CAUSE, also=(replace(CAUSE, operation=1),))
    concluded = await shop.conclude(
        Refusal(plain, problem, in_doubt=False), Refusal(doubt, problem, in_doubt=True)
    )
    assert concluded.ended == {plain.seq: (Status.REJECTED, problem)}
    assert concluded.compensating == {doubt.seq: problem}
    assert await shop.statuses() == {"plain": "rejected", "doubt": "compensating"}
    assert await shop.claims() == 1, "what is being undone keeps its locks"
    [(_, outcome)] = await shop.outcomes()
    assert (outcome["status"], outcome["operations"]) == ("rejected", [])
    assert [each["operation"] for each in outcome["error"]["details"]] == [0, 1]


async def test_what_the_data_refuses_under_the_lock_is_refused_alone(shop: Shop) -> None:
    bad = await shop.admit("bad", update("account", 1, balance=5, expect=[equals("balance", 99)]))
    good = await shop.admit("good", update("account", 2, balance=5))
    both = await shop.admit(
        "both", insert("order", "o"), update("account", 3, balance=5, expect=[equals("version", 9)])
    )
    concluded = await shop.conclude(here(bad), here(good), applied(both))
    assert concluded.ended[good.seq] == (Status.COMMITTED, None)
    status, problem = concluded.ended[bad.seq]
    assert (status, problem and problem.code) == (Status.REJECTED, ErrorCode.EXPECTATION_FAILED)
    assert list(concluded.compensating) == [both.seq]
    assert [await shop.balance(n) for n in (1, 2, 3)] == [(100, 1), (5, 2), (100, 1)]


@pytest.mark.parametrize("in_doubt", [False, True])
async def test_a_cancel_or_a_deadline_that_came_first_stops_the_commit(
    shop: Shop, in_doubt: bool
) -> None:
    """F7, F8: judged on the row, by the journal's clock."""
    gone = await shop.admit("gone", insert("order", "o"), update("account", 1, balance=0))
    late = await shop.admit("late", insert("order", "p"), update("account", 2, balance=0))
    await shop.worker.operators.cancel("gone", "changed my mind")
    await shop.worker.value(
        "UPDATE coordinator.units SET deadline_at = clock_timestamp() WHERE id = 'late'"
    )
    concluded = await shop.conclude(
        *(applied(unit)._replace(in_doubt=in_doubt) for unit in (gone, late))
    )
    found = (
        dict(concluded.compensating)
        if in_doubt
        else {seq: problem for seq, (_, problem) in concluded.ended.items()}
    )
    problems = [found[unit.seq] for unit in (gone, late)]
    assert [problem and problem.code for problem in problems] == ["cancelled", "deadline_exceeded"]
    assert problems[0] is not None
    assert "changed my mind" in problems[0].message
    assert [await shop.balance(n) for n in (1, 2)] == [(100, 1), (100, 1)]


async def test_a_unit_that_the_store_refuses_is_named_and_the_rest_commits(shop: Shop) -> None:
    """Rule 9: it is untouched, so that it can be refused when nothing earlier is open."""
    units = [await shop.admit(f"u{n}", update("account", n, balance=n)) for n in (1, 2)]
    bad = await shop.admit("bad", update("account", 3, balance=5000))
    concluded = await shop.conclude(*map(here, [units[0], bad, units[1]]))
    assert concluded.ended == {each.seq: (Status.COMMITTED, None) for each in units}
    assert list(concluded.failing) == [bad.seq]
    assert concluded.failing[bad.seq].code is ErrorCode.CONSTRAINT_VIOLATED
    assert await shop.statuses() == {"u1": "committed", "u2": "committed", "bad": "accepted"}
    assert [await shop.balance(n) for n in (1, 2, 3)] == [(1, 2), (2, 2), (100, 1)]
    assert len(await shop.outcomes()) == 2


async def test_a_unit_that_is_refused_alone_leaves_nothing(shop: Shop) -> None:
    bad = await shop.admit("bad", update("account", 2, balance=5000))
    with pytest.raises(BatchRefused) as caught:
        await shop.conclude(here(bad))
    assert list(caught.value.refusals) == [bad.seq]
    assert await shop.statuses() == {"bad": "accepted"}
    assert await shop.balance(2) == (100, 1)
    assert await shop.worker.published() == []


async def test_what_no_topic_could_take_is_told_by_unit_and_leaves_nothing(shop: Shop) -> None:
    """F26."""
    small = Announcer("test", "1", OUTCOMES, "test.changes.{entity}", limits_bytes={OUTCOMES: 2000})
    worker = replace(shop.worker, announcer=small)
    good = await shop.admit("good", update("account", 1, balance=5))
    big = await shop.admit(
        "big", update("account", 2, balance=5), metadata=b'"' + b"m" * 3000 + b'"'
    )
    with pytest.raises(BatchRefused) as caught:
        await worker.pivot.conclude([here(good), here(big)], [])
    assert {seq: each.code for seq, each in caught.value.refusals.items()} == {
        big.seq: ErrorCode.TOO_LARGE
    }
    assert await shop.balance(1) == (100, 1)
    await worker.pivot.conclude([], [Refusal(big, caught.value.problem, in_doubt=False)])
    [(_, outcome)] = await shop.outcomes()
    assert (outcome["status"], outcome["metadata"]) == ("rejected", None)


async def test_a_row_that_an_outsider_holds_sets_its_unit_aside_and_no_other(shop: Shop) -> None:
    """Rule 9."""
    held = await shop.admit("held", update("account", 1, balance=5))
    free = await shop.admit("free", update("account", 2, balance=5))
    outsider = await asyncpg.connect(shop.dsn)
    try:
        await outsider.execute("BEGIN; SELECT 1 FROM public.accounts WHERE id = 1 FOR UPDATE")
        concluded = await shop.conclude(here(held), here(free))
        assert concluded.busy == {held.seq}
        assert list(concluded.ended) == [free.seq]
        await outsider.execute("ROLLBACK")
    finally:
        await outsider.close()
    assert list((await shop.conclude(here(held))).ended) == [held.seq]


async def test_a_unit_that_is_another_workers_by_now_is_lost_not_touched(shop: Shop) -> None:
    """Rule 2."""
    unit = await shop.admit("u", update("account", 1, balance=5))
    async with a_worker(shop.dsn, tables=Tables("ledger")) as other:
        concluded = await other.pivot.conclude([here(unit)], [])
        assert concluded == Concluded(lost=frozenset({unit.seq}))
    assert await shop.balance(1) == (100, 1)
    assert await shop.statuses() == {"u": "accepted"}


async def test_a_status_changes_by_compare_and_set_only(shop: Shop) -> None:
    """Rule 2: only its owner changes it, and only from what it was."""
    unit = await shop.admit("u", update("account", 1, balance=5))
    own = shop.worker.number
    for worker, before, changed in ((own, "compensating", 0), (own + 1, "accepted", 0)):
        assert changed == await shop.worker.value(
            "SELECT * FROM"
            " coordinator.conclude($1, $2, $3, $4, $5, $6, $7, clock_timestamp(), NULL)",
            worker,
            [unit.seq],
            [before],
            ["committed"],
            [None],
            [None],
            [None],
        )
    assert await shop.statuses() == {"u": "accepted"}


async def test_a_fenced_worker_concludes_nothing(shop: Shop) -> None:
    """I9."""
    unit = await shop.admit("u", update("account", 1, balance=5))
    async with a_worker(shop.dsn) as other:
        await shop.worker.expire()
        assert await other.workers.fence(shop.worker.number)
        await refused_as_fenced(lambda: shop.conclude(here(unit)))
        endings = [Ending(unit, CAUSE, wrote=False)]
        await refused_as_fenced(lambda: shop.worker.pivot.finish(endings))
        assert await other.rows("SELECT balance FROM public.accounts WHERE id = 1") == [(100,)]
        assert await other.rows("SELECT status FROM coordinator.units") == [("accepted",)]


# --- backward -------------------------------------------------------------------------------------


async def compensating(shop: Shop, unit_id: str) -> Unit:
    unit = await shop.admit(unit_id, insert("order", unit_id))
    await shop.conclude(Refusal(unit, CAUSE, in_doubt=True))
    return unit


async def test_compensations_end_by_what_they_found(shop: Shop) -> None:
    """F6, F11."""
    undone, nothing, stuck = [await compensating(shop, name) for name in ("a", "b", "c")]
    concluded = await shop.worker.pivot.finish(
        [
            Ending(undone, CAUSE, wrote=True),
            Ending(nothing, CAUSE, wrote=False),
            Ending(stuck, CAUSE, wrote=True, problem=FOREIGN),
        ]
    )
    assert concluded.ended == {
        undone.seq: (Status.COMPENSATED, CAUSE),
        nothing.seq: (Status.REJECTED, CAUSE),
    }
    assert list(concluded.parked) == [stuck.seq]
    assert await shop.statuses() == {"a": "compensated", "b": "rejected", "c": "parked"}
    assert await shop.worker.rows("SELECT seq FROM coordinator.locks") == [(stuck.seq,)]
    told = {ce_id: outcome for ce_id, outcome in await shop.outcomes()}
    assert list(told) == ["a/outcome", "b/outcome", "c/parked"]
    assert told["a/outcome"]["error"]["code"] == "expectation_failed"
    assert told["c/parked"]["error"]["code"] == "foreign_write"
    assert CAUSE.message in told["c/parked"]["error"]["message"]


async def test_an_end_whose_reply_was_lost_is_found_again(shop: Shop) -> None:
    one, two = await compensating(shop, "a"), await compensating(shop, "b")
    endings = [Ending(one, CAUSE, wrote=True), Ending(two, CAUSE, wrote=True, problem=FOREIGN)]
    first = await shop.worker.pivot.finish(endings)
    again = await shop.worker.pivot.finish([replace(each, wrote=False) for each in endings])
    assert (again.ended, again.parked) == (first.ended, first.parked)
    assert len(await shop.outcomes()) == 2
    late = await shop.conclude(applied(one))
    assert late.ended == {one.seq: (Status.COMPENSATED, CAUSE)}, "nothing turns back (I4)"
