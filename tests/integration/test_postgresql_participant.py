"""`PostgresParticipant` on a real PostgreSQL: applied once, undone exactly, fenced for good."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from coordinator.domain.decide import decide_branch
from coordinator.domain.entity import Field, FieldType, ForeignWritePolicy, Mapping
from coordinator.domain.errors import (
    BatchRefused,
    ConfigurationInvalid,
    ErrorCode,
    Fenced,
    InvariantViolated,
    Problem,
    StoreBusy,
    StoreUnavailable,
)
from coordinator.domain.operation import Operation, Unit
from coordinator.domain.preview import Preview
from coordinator.engine.ports import Applied, Undone
from coordinator.participants.postgresql.participant import PostgresParticipant
from coordinator.postgres_pool import DRIVER_ERRORS, Pool, open_pool, transaction
from tests.live_columns import columns_of
from tests.units import check, delete, entity, equals, insert, mapping, undone_by, unit, update

pytestmark = pytest.mark.integration

STORE = "billing"
JOURNAL_ID = "journal-1"
WORKER = 7
LANE = 0

ACCOUNTS = """
CREATE TABLE public.accounts (
    id bigint PRIMARY KEY,
    balance numeric NOT NULL DEFAULT 0 CHECK (balance >= 0),
    points double precision,
    status text,
    note text,
    hidden json DEFAULT '{"a" : 1.0}',
    seen timestamptz DEFAULT 'infinity',
    shouted text GENERATED ALWAYS AS (upper(status)) STORED,
    version integer NOT NULL
);
INSERT INTO public.accounts (id, balance, points, status, version)
SELECT i, 100.00, 0.5, 'active', 7 FROM generate_series(1, 20) AS i;
"""
FIELDS: dict[str, FieldType | Field] = {
    "id": FieldType.INTEGER,
    "balance": Field("balance", FieldType.DECIMAL),
    "points": FieldType.FLOAT,
    "status": FieldType.STRING,
    "note": FieldType.STRING,
}


class Store:
    """A store with a participant of worker 7 and somebody else who writes to it."""

    def __init__(self, dsn: str, pool: Pool, outsider: Any) -> None:
        self.dsn = dsn
        self.pool = pool
        self.outsider = outsider
        self.participant = PostgresParticipant(STORE, pool, JOURNAL_ID)
        self.mapping: Mapping

    async def map(self, policy: ForeignWritePolicy = ForeignWritePolicy.PARK) -> Mapping:
        columns = await columns_of(await self._plain(), "accounts")
        self.mapping = mapping(
            entity(
                "account",
                FIELDS,
                store=STORE,
                table="accounts",
                columns=columns,
                on_foreign_write=policy,
            )
        )
        return self.mapping

    async def _plain(self) -> Any:
        await self.outsider.execute("SET search_path = pg_catalog")
        return self.outsider

    def unit(self, *operations: Operation) -> Unit:
        return unit(self.mapping, *operations)

    async def apply(self, *units: Unit) -> Applied:
        return await self.participant.apply(LANE, units)

    async def compensate(self, *units: Unit) -> dict[int, Undone]:
        return dict(await self.participant.compensate(LANE, units))

    async def row(self, key: int) -> dict[str, Any] | None:
        row = await self.outsider.fetchrow(
            "SELECT a::text, a.* FROM public.accounts AS a WHERE id = $1", key
        )
        return None if row is None else dict(row)

    async def states(self) -> dict[str, str]:
        rows = await self.outsider.fetch("SELECT unit_id, state FROM coordinator.undo")
        return {row[0]: row[1] for row in rows}


async def open_store_pool(dsn: str, name: str) -> Pool:
    return await open_pool(dsn, name, lock_timeout_seconds=0.3, max_size=6)


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[Store]:
    pool = await open_store_pool(postgres_dsn, "worker-7-sessions")
    outsider = await asyncpg.connect(postgres_dsn)
    store = Store(postgres_dsn, pool, outsider)
    await outsider.execute(ACCOUNTS)
    await store.map()
    await store.participant.enrol(WORKER, lanes=2)
    yield store
    outsider.terminate()
    pool.terminate()


# --- once ---------------------------------------------------------------------------------------


async def test_applying_twice_takes_the_record_of_the_first_time(store: Store) -> None:
    """I3, rule 7: its own write would make its `expect` fail the second time."""
    one = store.unit(
        update(
            "account",
            1,
            status="closed",
            increment={"balance": Decimal("-60.5")},
            expect=[equals("status", "active")],
        ),
        check("account", 2, equals("status", "active")),
    )
    first = await store.apply(one)
    await store.outsider.execute("UPDATE public.accounts SET note = 'later' WHERE id = 1")
    other = store.unit(update("account", 3, note="fresh"))
    second = await store.apply(one, other)
    assert second.done[one.seq] == first.done[one.seq]
    assert other.seq in second.done
    row = await store.row(1)
    assert row is not None
    assert (row["balance"], row["version"]) == (Decimal("39.50"), 8)


async def test_load_reads_without_locks(store: Store) -> None:
    """Ports: read only; a missing row is `None`."""
    await store.outsider.execute("BEGIN; UPDATE public.accounts SET note = 'x' WHERE id = 1")
    one = store.unit(update("account", 1, note="y"), update("account", 404, note="y"))
    images = (await store.participant.load([one])).images
    image = images["account", "1"]
    assert image is not None
    assert image["note"] is None
    assert images["account", "404"] is None


async def test_what_was_decided_on_a_preview_holds_only_for_rows_as_they_were(
    store: Store,
) -> None:
    """Each is decided on the row that is locked; images show it to the last digit."""
    await store.outsider.execute(
        "INSERT INTO public.accounts (id, balance, version) SELECT n, 10, 1"
        " FROM generate_series(120, 124) AS n"
    )
    less = {"balance": Decimal("-8")}
    units = [
        *(store.unit(update("account", n, increment=less)) for n in (120, 121, 122)),
        store.unit(insert("account", 130, balance=Decimal(1))),
        store.unit(insert("account", 131, balance=Decimal(1))),
    ]
    loaded = await store.participant.load(units)
    decided = {each.seq: decide_branch(each, STORE, loaded.images) for each in units}
    writes = {seq: each for seq, each in decided.items() if not isinstance(each, Problem)}
    assert len(writes) == len(units)
    await store.outsider.execute(
        "UPDATE public.accounts SET balance = 10.00 WHERE id = 121;"
        "DELETE FROM public.accounts WHERE id = 122;"
        "INSERT INTO public.accounts (id, balance, version) VALUES (131, 5, 1)"
    )
    preview = Preview(loaded.images, loaded.rows, writes)
    applied = await store.participant.apply(LANE, units, preview)
    assert {seq: each.code for seq, each in applied.refused.items()} == {
        units[2].seq: ErrorCode.NOT_FOUND,
        units[4].seq: ErrorCode.ALREADY_EXISTS,
    }
    befores = [json.loads(applied.done[each.seq][0].before or b"null") for each in units[:2]]
    assert [each["balance"] for each in befores] == ["10", "10.00"]
    rows = [await store.row(n) for n in (120, 121, 130, 131)]
    assert [row and row["balance"] for row in rows] == [
        Decimal(2), Decimal(2), Decimal(1), Decimal(5)
    ]  # fmt: skip


async def test_a_first_attempt_that_finds_a_tombstone_after_all_is_tried_again(
    store: Store,
) -> None:
    """Rule 1: a first attempt does not look for records, and is stopped by them all the same."""
    one = store.unit(update("account", 1, note="late"))
    other = store.unit(update("account", 2, note="in time"))
    loaded = await store.participant.load([one, other])
    writes = {
        each.seq: decided
        for each in (one, other)
        if not isinstance(decided := decide_branch(each, STORE, loaded.images), Problem)
    }
    preview = Preview(loaded.images, loaded.rows, writes)
    await store.compensate(one)
    with pytest.raises(StoreBusy) as busy:
        await store.participant.apply(LANE, [one, other], preview)
    assert busy.value.units == {one.seq}
    assert (await store.apply(one)).blocked == {one.seq}
    assert other.seq in (await store.participant.apply(LANE, [other], preview)).done


async def test_a_tombstone_blocks_a_late_apply(store: Store) -> None:
    """Rule 1: an absent undo record is no evidence; the tombstone concludes."""
    one = store.unit(update("account", 1, note="late"))
    assert await store.compensate(one) == {one.seq: Undone(wrote=False)}
    applied = await store.apply(one)
    assert applied.blocked == {one.seq}
    assert not applied.done
    assert await store.compensate(one) == {one.seq: Undone(wrote=False)}
    row = await store.row(1)
    assert row is not None
    assert row["note"] is None


async def test_a_compensation_waits_for_an_apply_on_its_way(store: Store) -> None:
    """Rule 1: the tombstone has the key of that one's record, so one of the two comes first."""
    one = store.unit(update("account", 1, note="on its way"))
    await store.outsider.execute(
        "BEGIN; INSERT INTO coordinator.undo (journal_id, unit_id, digest, state, record)"
        f" VALUES ('{JOURNAL_ID}', '{one.id}', '{one.digest}', 'applied',"
        """ '{"format": 1, "done": [], "tables": {}, "keys": []}')"""
    )
    with pytest.raises(StoreBusy):
        await store.compensate(one)
    await store.outsider.execute("COMMIT")
    assert await store.compensate(one) == {one.seq: Undone(wrote=False)}
    assert await store.states() == {one.id: "undone"}


async def test_a_record_of_another_content_is_left_alone(store: Store) -> None:
    """Rule 10: a unit that the journal lost is neither taken for another nor undone silently."""
    lost = store.unit(update("account", 1, note="lost"))
    await store.apply(lost)
    again = store.unit(update("account", 1, note="other"))._replace(id=lost.id)
    assert (await store.apply(again)).refused[again.seq].code is ErrorCode.ID_REUSED
    assert await store.compensate(again) == {again.seq: Undone(wrote=False)}
    assert await store.states() == {lost.id: "applied"}


async def test_refused_busy_and_done_in_one_batch(store: Store) -> None:
    """Rule 9, ports.Applied."""
    await store.outsider.execute("BEGIN; UPDATE public.accounts SET note = 'x' WHERE id = 2")
    done = store.unit(update("account", 1, note="y"))
    busy = store.unit(update("account", 2, note="y"), update("account", 3, note="y"))
    refused = store.unit(update("account", 404, note="y"))
    applied = await store.apply(done, busy, refused)
    assert (set(applied.done), set(applied.busy), set(applied.refused)) == (
        {done.seq},
        {busy.seq},
        {refused.seq},
    )
    assert await store.states() == {done.id: "applied"}


async def test_an_undo_record_beyond_the_bound_refuses_its_unit(store: Store) -> None:
    """I12: `too_large`, named, with nothing written by the batch."""
    participant = PostgresParticipant(STORE, store.pool, JOURNAL_ID, undo_bytes_max=2000)
    await participant.enrol(WORKER, lanes=2)
    big = store.unit(update("account", 1, note="x" * 3000))
    small = store.unit(update("account", 2, note="x"))
    with pytest.raises(BatchRefused) as caught:
        await participant.apply(LANE, [small, big])
    assert {seq: each.code for seq, each in caught.value.refusals.items()} == {
        big.seq: ErrorCode.TOO_LARGE
    }
    assert await store.states() == {}


# --- undo: what comes back ----------------------------------------------------------------------

WRITES: dict[str, Callable[[], list[Operation]]] = {
    "update": lambda: [update("account", 1, status="x", unset=["points"])],
    "increment": lambda: [
        update("account", 1, increment={"balance": Decimal("0.001"), "points": 0.1})
    ],
    "delete": lambda: [delete("account", 1)],
    "insert": lambda: [insert("account", 1000, balance=Decimal(1))],
    "chain": lambda: [
        update("account", 1, increment={"balance": Decimal("5")}),
        update("account", 1, status="y", increment={"balance": Decimal("1.50")}),
        delete("account", 1),
        insert("account", 1, balance=Decimal(3)),
    ],
    "made and deleted": lambda: [
        insert("account", 1000, balance=Decimal(1)),
        delete("account", 1000),
    ],
    "two rows": lambda: [delete("account", 1), update("account", 2, note="z")],
}


@pytest.mark.parametrize("name", WRITES)
async def test_undo_brings_the_very_rows_back(store: Store, name: str) -> None:
    """F27, F21: every column, mapped or not, and the version."""
    rows = "SELECT a::text FROM public.accounts AS a ORDER BY id"
    before = await store.outsider.fetch(rows)
    one = store.unit(*WRITES[name]())
    await store.apply(one)
    assert await store.compensate(one) == {one.seq: Undone(wrote=True)}
    assert await store.outsider.fetch(rows) == before
    # Twice is once (rule 1): nothing more happens, and the answer stays.
    await store.outsider.execute("UPDATE public.accounts SET note = 'later'")
    assert await store.compensate(one) == {one.seq: Undone(wrote=True)}
    assert await store.outsider.fetchval("SELECT DISTINCT note FROM public.accounts") == "later"
    assert (await store.apply(one)).blocked == {one.seq}


async def test_a_branch_that_wrote_nothing_is_undone_as_nothing(store: Store) -> None:
    """F6: `rejected`, not `compensated`."""
    one = store.unit(
        check("account", 1, equals("status", "active")),
        update("account", 404, note="x", ignore_missing=True),
    )
    await store.apply(one)
    assert await store.compensate(one) == {one.seq: Undone(wrote=False)}


async def test_undo_of_rows_that_refer_to_each_other(store: Store) -> None:
    """F13 backwards: rows that refer go first, and come back last."""
    await store.outsider.execute(
        "CREATE TABLE public.parents (id int PRIMARY KEY, version int);"
        "CREATE TABLE public.children (id int PRIMARY KEY, version int,"
        " parent int REFERENCES public.parents);"
        "INSERT INTO public.parents VALUES (1, 1); INSERT INTO public.children VALUES (1, 1, 1)"
    )
    units_mapping = mapping(
        entity(
            "parent",
            {"id": FieldType.INTEGER},
            store=STORE,
            table="parents",
            columns=await columns_of(store.outsider, "parents"),
        ),
        entity(
            "child",
            {"id": FieldType.INTEGER, "parent": FieldType.INTEGER},
            store=STORE,
            table="children",
            columns=await columns_of(store.outsider, "children"),
        ),
    )
    born = unit(units_mapping, insert("parent", 2), insert("child", 2, parent=2))
    gone = unit(units_mapping, delete("child", 1), delete("parent", 1))
    assert set((await store.apply(born, gone)).done) == {born.seq, gone.seq}
    assert await store.compensate(born, gone) == {
        born.seq: Undone(wrote=True),
        gone.seq: Undone(wrote=True),
    }
    assert await store.outsider.fetchval("SELECT array_agg(id) FROM public.children") == [1]
    assert await store.outsider.fetchval("SELECT array_agg(id) FROM public.parents") == [1]


async def test_undo_goes_by_the_names_in_the_record(store: Store) -> None:
    """Rule 8: the mapping of today may not know the entity any more."""
    one = store.unit(update("account", 1, note="x"))
    await store.apply(one)
    renamed = mapping(replace(store.mapping.entities["account"], table="nonsense", columns=()))
    assert await store.compensate(one._replace(mapping=renamed)) == {one.seq: Undone(wrote=True)}
    row = await store.row(1)
    assert row is not None
    assert (row["note"], row["version"]) == (None, 7)


async def test_undo_leaves_a_row_that_is_held_for_later(store: Store) -> None:
    """Rule 9: the unit is missing in the result, the others are undone."""
    busy = store.unit(update("account", 1, note="x"))
    free = store.unit(update("account", 2, note="x"))
    await store.apply(busy, free)
    await store.outsider.execute("BEGIN; UPDATE public.accounts SET points = 1 WHERE id = 1")
    assert await store.compensate(busy, free) == {free.seq: Undone(wrote=True)}
    assert await store.states() == {busy.id: "applied", free.id: "undone"}
    await store.outsider.execute("COMMIT")
    assert await store.compensate(busy) == {busy.seq: Undone(wrote=True)}
    row = await store.row(1)
    assert row is not None
    assert (row["note"], row["points"]) == (None, 1.0)


async def test_an_undo_that_the_store_refuses_undoes_nothing(store: Store) -> None:
    """F10 `undo_failed`: here the inverse delta would break a CHECK."""
    bad = store.unit(update("account", 1, increment={"balance": Decimal(50)}))
    good = store.unit(update("account", 2, note="x"))
    await store.apply(bad, good)
    await store.outsider.execute("UPDATE public.accounts SET balance = 10 WHERE id = 1")
    with pytest.raises(BatchRefused) as caught:
        await store.compensate(good, bad)
    assert caught.value.problem.code is ErrorCode.CONSTRAINT_VIOLATED
    assert set((await store.states()).values()) == {"applied"}


# --- undo: strangers (F28, F29) -----------------------------------------------------------------

STRANGERS = {
    "field": "UPDATE public.accounts SET status = 'theirs' WHERE id = 1",
    "unset field": "UPDATE public.accounts SET note = 'theirs' WHERE id = 1",
    "version": "UPDATE public.accounts SET version = version + 1 WHERE id = 1",
    "gone": "DELETE FROM public.accounts WHERE id = 1",
}


@pytest.mark.parametrize("name", STRANGERS)
async def test_park_leaves_the_whole_branch(store: Store, name: str) -> None:
    """F28, F29 `park`, I6: nothing of the branch is touched, the record stays `applied`."""
    await store.outsider.execute("UPDATE public.accounts SET note = 'old' WHERE id = 1")
    one = store.unit(
        update("account", 1, status="ours", unset=["note"], increment={"balance": Decimal("-1")}),
        update("account", 2, note="ours"),
    )
    other = store.unit(update("account", 3, note="ours"))
    await store.apply(one, other)
    await store.outsider.execute(STRANGERS[name])
    left = await store.row(1)
    result = await store.compensate(one, other)
    problem = result[one.seq].problem
    assert problem is not None
    assert problem.code is ErrorCode.FOREIGN_WRITE
    assert (problem.entity, problem.key) == ("account", 1)
    assert result[other.seq] == Undone(wrote=True)
    assert await store.row(1) == left
    second = await store.row(2)
    assert second is not None
    assert second["note"] == "ours"
    assert await store.states() == {one.id: "applied", other.id: "undone"}


async def test_a_stranger_beside_us_is_kept(store: Store) -> None:
    """F28: increments are never compared, other fields are the stranger's; no policy is asked."""
    one = store.unit(
        update("account", 1, status="ours", increment={"balance": Decimal("-10.5"), "points": 1.0})
    )
    await store.apply(one)
    await store.outsider.execute(
        "UPDATE public.accounts SET balance = balance + 1, note = 'theirs', hidden = 'null'"
        " WHERE id = 1"
    )
    assert await store.compensate(one) == {one.seq: Undone(wrote=True)}
    row = await store.row(1)
    assert row is not None
    assert (row["status"], row["balance"], row["points"]) == ("active", Decimal("101.00"), 0.5)
    assert (row["note"], row["hidden"], row["version"]) == ("theirs", "null", 7)


async def test_force_lets_our_before_values_win(store: Store) -> None:
    """F29 `force`: increments by delta, version plus one, others kept."""
    await store.map(ForeignWritePolicy.FORCE)
    one = store.unit(update("account", 1, status="ours", increment={"balance": Decimal("-10")}))
    await store.apply(one)
    await store.outsider.execute(
        "UPDATE public.accounts SET status = 'theirs', note = 'theirs', balance = balance + 3,"
        " version = 20 WHERE id = 1"
    )
    assert await store.compensate(one) == {one.seq: Undone(wrote=True)}
    row = await store.row(1)
    assert row is not None
    assert (row["status"], row["note"]) == ("active", "theirs")
    assert (row["balance"], row["version"]) == (Decimal("103.00"), 21)


async def test_force_brings_a_deleted_row_back(store: Store) -> None:
    """F29 `force`: with the values of before, unmapped ones too."""
    await store.map(ForeignWritePolicy.FORCE)
    before = await store.row(1)
    assert before is not None
    one = store.unit(update("account", 1, status="ours"))
    await store.apply(one)
    await store.outsider.execute("DELETE FROM public.accounts WHERE id = 1")
    assert await store.compensate(one) == {one.seq: Undone(wrote=True)}
    row = await store.row(1)
    assert row is not None
    assert row["version"] == 9
    assert (row["status"], row["hidden"], row["seen"]) == (
        before["status"],
        before["hidden"],
        before["seen"],
    )


async def test_force_takes_an_inserted_row_away_and_overwrites_one_that_came_back(
    store: Store,
) -> None:
    """F28, F29 `force`: undo of insert, undo of delete."""
    await store.map(ForeignWritePolicy.FORCE)
    inserted = store.unit(insert("account", 1000, balance=Decimal(1)))
    deleted = store.unit(delete("account", 2))
    await store.apply(inserted, deleted)
    await store.outsider.execute(
        "UPDATE public.accounts SET hidden = '[]' WHERE id = 1000;"
        "INSERT INTO public.accounts (id, status, version) VALUES (2, 'theirs', 41)"
    )
    assert await store.compensate(inserted, deleted) == {
        inserted.seq: Undone(wrote=True),
        deleted.seq: Undone(wrote=True),
    }
    assert await store.row(1000) is None
    row = await store.row(2)
    assert row is not None
    assert (row["status"], row["balance"], row["version"]) == ("active", Decimal("100.00"), 42)


@pytest.mark.parametrize("policy", [ForeignWritePolicy.PARK, ForeignWritePolicy.SKIP])
async def test_inserts_and_deletes_meet_strangers(store: Store, policy: ForeignWritePolicy) -> None:
    """F28: an inserted row that differs anywhere, a deleted row that is there again."""
    await store.map(policy)
    inserted = store.unit(insert("account", 1000, balance=Decimal(1)))
    deleted = store.unit(delete("account", 2))
    await store.apply(inserted, deleted)
    await store.outsider.execute(
        "UPDATE public.accounts SET hidden = '[]' WHERE id = 1000;"
        "INSERT INTO public.accounts (id, status, version) VALUES (2, 'theirs', 1)"
    )
    left = [await store.row(1000), await store.row(2)]
    result = await store.compensate(inserted, deleted)
    parked = policy is ForeignWritePolicy.PARK
    for undone in result.values():
        assert undone.wrote
        assert (undone.problem is not None) is parked
    assert [await store.row(1000), await store.row(2)] == left


async def test_skip_leaves_that_record_and_undoes_the_others(store: Store) -> None:
    """F29 `skip`: `compensated`, the row stays as the stranger left it."""
    await store.map(ForeignWritePolicy.SKIP)
    one = store.unit(update("account", 1, status="ours"), update("account", 2, status="ours"))
    await store.apply(one)
    await store.outsider.execute(STRANGERS["field"])
    left = await store.row(1)
    assert await store.compensate(one) == {one.seq: Undone(wrote=True)}
    assert await store.row(1) == left
    second = await store.row(2)
    assert second is not None
    assert second["status"] == "active"


async def test_an_inserted_row_that_a_stranger_deleted_needs_nothing(store: Store) -> None:
    """F28: nobody's write would be lost."""
    one = store.unit(insert("account", 1000, balance=Decimal(1)))
    await store.apply(one)
    await store.outsider.execute("DELETE FROM public.accounts WHERE id = 1000")
    assert await store.compensate(one) == {one.seq: Undone(wrote=True)}


# --- the sender's own undo (F25) ----------------------------------------------------------------


async def test_the_senders_own_undo_replaces_ours(store: Store) -> None:
    """F25: it acts on the current row and bumps the version."""
    one = store.unit(
        undone_by(
            insert("account", 1000, balance=Decimal(1)), update("account", 1000, status="void")
        ),
        undone_by(
            update("account", 1, increment={"balance": Decimal("-5")}),
            update("account", 1, note="refunded", increment={"balance": Decimal("5")}),
        ),
        update("account", 2, note="ours"),
    )
    await store.apply(one)
    await store.outsider.execute("UPDATE public.accounts SET balance = balance + 1 WHERE id = 1")
    assert await store.compensate(one) == {one.seq: Undone(wrote=True)}
    made, refunded, plain = [await store.row(key) for key in (1000, 1, 2)]
    assert made is not None
    assert refunded is not None
    assert plain is not None
    assert (made["status"], made["balance"], made["version"]) == ("void", Decimal(1), 2)
    assert (refunded["note"], refunded["balance"], refunded["version"]) == (
        "refunded",
        Decimal("101.00"),
        9,
    )
    assert (plain["note"], plain["version"]) == (None, 7)


async def test_the_senders_own_undo_is_not_used_where_nothing_was_applied(store: Store) -> None:
    """F25."""
    one = store.unit(undone_by(update("account", 1, note="x"), update("account", 1, note="void")))
    assert await store.compensate(one) == {one.seq: Undone(wrote=False)}
    row = await store.row(1)
    assert row is not None
    assert row["note"] is None


async def test_the_senders_own_undo_does_not_overwrite_a_stranger(store: Store) -> None:
    """I6 rules here as well: a field that it would set was changed after us."""
    one = store.unit(
        undone_by(update("account", 1, status="x"), update("account", 1, status="void"))
    )
    await store.apply(one)
    await store.outsider.execute(STRANGERS["field"])
    problem = (await store.compensate(one))[one.seq].problem
    assert problem is not None
    assert problem.code is ErrorCode.FOREIGN_WRITE


async def test_a_senders_own_undo_that_cannot_be_done_parks(store: Store) -> None:
    """F25: refused, so a person is needed; the branch is left alone."""
    one = store.unit(
        undone_by(delete("account", 1), update("account", 1, note="was never deleted")),
        update("account", 2, note="ours"),
    )
    await store.apply(one)
    undone = (await store.compensate(one))[one.seq]
    assert undone.problem is not None
    assert undone.problem.code is ErrorCode.UNDO_FAILED
    assert await store.states() == {one.id: "applied"}
    row = await store.row(2)
    assert row is not None
    assert row["note"] == "ours"


# --- fences -------------------------------------------------------------------------------------


@pytest.fixture
async def taker(store: Store) -> AsyncIterator[PostgresParticipant]:
    pool = await open_store_pool(store.dsn, "worker-8-sessions")
    taker = PostgresParticipant(STORE, pool, JOURNAL_ID)
    await taker.enrol(8, lanes=2)
    yield taker
    pool.terminate()


async def test_a_fenced_worker_changes_nothing(store: Store, taker: PostgresParticipant) -> None:
    """I9: not by applying, compensating, sweeping nor by enrolling again; its taker goes on."""
    one = store.unit(update("account", 1, note="x"))
    await taker.fence(WORKER)
    await taker.fence(WORKER)  # resumable (rule 6)
    with pytest.raises(Fenced):
        await store.apply(one)
    with pytest.raises(Fenced):
        await store.compensate(one)
    with pytest.raises(Fenced):
        await store.participant.sweep(["x"])
    with pytest.raises(Fenced):
        await store.participant.enrol(WORKER, lanes=4)
    assert one.seq in (await taker.apply(1, [one])).done


async def test_a_worker_that_was_never_here_is_fenced_before_it_comes(
    store: Store, taker: PostgresParticipant
) -> None:
    """I9: its enrolment may be on its way."""
    await taker.fence(99)
    late = PostgresParticipant(STORE, store.pool, JOURNAL_ID)
    with pytest.raises(Fenced):
        await late.enrol(99, lanes=1)


async def test_a_fence_ends_the_open_transactions_of_the_fenced(
    store: Store, taker: PostgresParticipant
) -> None:
    """Rule 5: a frozen worker does not hold the door, and its transaction is lost."""
    async with store.pool.acquire() as frozen:
        # The takeover ends it, not the server's patience with whoever idles in a transaction.
        await frozen.execute("SET idle_in_transaction_session_timeout = 0")
        await frozen.execute("BEGIN")
        await frozen.execute(
            "SELECT 1 FROM coordinator.fences WHERE worker = 7 AND lane = 0 FOR KEY SHARE"
        )
        await frozen.execute("UPDATE public.accounts SET note = 'zombie' WHERE id = 1")
        await taker.fence(WORKER)
        with pytest.raises(DRIVER_ERRORS):
            await frozen.execute("COMMIT")
    row = await store.row(1)
    assert row is not None
    assert row["note"] is None


async def test_a_transaction_holds_its_workers_fence(store: Store) -> None:
    """Rule 3: a fence that is only read is no fence, so nobody can lock it from under us."""
    fence = "SELECT 1 FROM coordinator.fences WHERE worker = 7 AND lane = 0 FOR UPDATE NOWAIT"
    await store.outsider.execute(fence)
    async with transaction(store.pool, STORE) as connection:
        await store.participant._fences.hold(connection, LANE)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await store.outsider.execute(fence)


async def test_a_fence_waits_for_a_transaction_that_it_cannot_end(
    store: Store, taker: PostgresParticipant
) -> None:
    """Rule 3: the fence is written, so it conflicts with whoever holds it."""
    await store.outsider.execute("SET application_name = 'not ours'; BEGIN")
    await store.outsider.execute(
        "SELECT 1 FROM coordinator.fences WHERE worker = 7 AND lane = 1 FOR KEY SHARE"
    )
    watcher = await asyncpg.connect(store.dsn)  # the pool's sessions are being ended
    fencing = asyncio.ensure_future(taker.fence(WORKER))
    waits = (
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE NOT granted AND datname = current_database()"
    )
    async with asyncio.timeout(10):
        while await watcher.fetchval(waits) == 0:
            assert not fencing.done()
    await watcher.close()
    await store.outsider.execute("COMMIT")
    await asyncio.wait_for(fencing, 10)
    with pytest.raises(Fenced):
        await store.participant.sweep([])


async def test_another_journals_worker_of_the_same_number_is_not_fenced(store: Store) -> None:
    """Two journals may share a store."""
    other = PostgresParticipant(STORE, store.pool, "journal-2")
    await other.enrol(WORKER, lanes=1)
    await other.fence(8)
    one = store.unit(update("account", 1, note="x"))
    assert one.seq in (await store.apply(one)).done
    assert await other.compensate(0, [one]) == {one.seq: Undone(wrote=False)}
    assert await store.compensate(one) == {one.seq: Undone(wrote=True)}


async def test_a_forgotten_worker_is_kept_out_by_its_absence(store: Store) -> None:
    """I9."""
    taker = PostgresParticipant(STORE, store.pool, JOURNAL_ID)
    await taker.enrol(8, lanes=1)
    await taker.fence(WORKER)
    await taker.forget_workers([WORKER, 3])
    await taker.forget_workers([2])
    query = "SELECT worker, lane FROM coordinator.fences WHERE worker < 8 AND journal_id = $1"
    assert [tuple(row) for row in await store.outsider.fetch(query, JOURNAL_ID)] == [(WORKER, -2)]
    late = PostgresParticipant(STORE, store.pool, JOURNAL_ID)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.participant.sweep(["u"]),
        lambda: store.participant.enrol(WORKER, 1),
        lambda: late.enrol(2, 1),
    ]
    for call in calls:
        with pytest.raises(Fenced):
            await call()
    assert [tuple(row) for row in await store.outsider.fetch(query, JOURNAL_ID)] == [(WORKER, -2)]
    await taker.forget_workers([8])  # it is not fenced
    await taker.sweep(["u"])


# --- duties -------------------------------------------------------------------------------------


async def test_sweep_forgets_records_and_tombstones(store: Store) -> None:
    """DESIGN 5, step 5."""
    one = store.unit(update("account", 1, note="x"))
    two = store.unit(update("account", 2, note="x"))
    await store.apply(one)
    await store.compensate(two)
    await store.participant.sweep([one.id, two.id, "unknown"])
    assert await store.states() == {}


async def test_bookkeeping_is_made_once_and_its_version_is_checked(store: Store) -> None:
    """F37, F35: also when two daemons start together; a newer version is not touched."""
    await store.outsider.execute("DROP SCHEMA coordinator CASCADE")
    others = [PostgresParticipant(STORE, store.pool, JOURNAL_ID) for _ in range(3)]
    await asyncio.gather(*(each.prepare() for each in others))
    await store.outsider.execute("UPDATE coordinator.bookkeeping SET version = 99")
    with pytest.raises(ConfigurationInvalid):
        await others[0].prepare()


async def test_a_transaction_before_enrolment_is_a_bug(store: Store) -> None:
    stranger = PostgresParticipant(STORE, store.pool, JOURNAL_ID)
    with pytest.raises(InvariantViolated):
        await stranger.apply(LANE, [])


async def test_ping_wants_a_server_that_takes_writes(store: Store) -> None:
    """F35: a standby is not ready."""
    await store.participant.ping()
    name = await store.outsider.fetchval("SELECT current_database()")
    await store.outsider.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    await store.pool.expire_connections()
    with pytest.raises(StoreUnavailable):
        await store.participant.ping()


async def test_a_session_that_the_server_ends_is_replaced(store: Store) -> None:
    """Reading/reliability 3.2: after a failover the pool must not keep dead sessions."""
    await store.participant.ping()
    await store.outsider.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'worker-7-sessions'"
    )
    one = store.unit(update("account", 1, note="x"))
    async with asyncio.timeout(10):
        while True:
            try:
                applied = await store.apply(one)
            except StoreUnavailable:
                continue
            break
    assert one.seq in applied.done


async def test_the_undo_record_is_json_that_a_dba_can_read(store: Store) -> None:
    """F37."""
    one = store.unit(update("account", 1, note="x"))
    await store.apply(one)
    record = json.loads(await store.outsider.fetchval("SELECT record FROM coordinator.undo"))
    (key,) = record["keys"]
    assert (key["entity"], key["key"]) == ("account", "1")
    assert record["tables"]["account"]["table"] == "accounts"
