"""`Tables` on a real PostgreSQL: what is written, what is told, and what is left alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from coordinator.domain.decide import Effect
from coordinator.domain.entity import Entity, Field, FieldType, Limits, Mapping
from coordinator.domain.errors import BatchRefused, ErrorCode, StoreBusy
from coordinator.domain.operation import Unit
from coordinator.domain.sharing import Line
from coordinator.domain.values import Alien, JsonText
from coordinator.participants.postgresql.row_rules import has_rules
from coordinator.participants.postgresql.statements import Table
from coordinator.participants.postgresql.tables import Tables, TableWork
from coordinator.postgres_pool import Pool, open_pool, transaction
from tests.live_columns import columns_of
from tests.units import (
    check,
    delete,
    entity,
    equals,
    insert,
    mapping,
    unit,
    update,
    upsert,
)

pytestmark = pytest.mark.integration

STORE = "ledger"
BALANCE = Field("balance", FieldType.DECIMAL, min=Decimal(0), limits=Limits(precision=12, scale=2))
ACCOUNT_FIELDS = {
    "id": FieldType.INTEGER,
    "balance": BALANCE,
    "status": FieldType.STRING,
    "note": FieldType.STRING,
}
ACCOUNTS = """
CREATE TABLE public.accounts (
    id bigint PRIMARY KEY,
    balance numeric(12,2) NOT NULL DEFAULT 0 CHECK (balance < 1000000),
    status text,
    note text DEFAULT 'none',
    version integer NOT NULL
);
INSERT INTO public.accounts SELECT i, 100, 'active', NULL, 1 FROM generate_series(1, 20) AS i;
"""


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    pool = await open_pool(postgres_dsn, "tables-test", lock_timeout_seconds=0.3, max_size=4)
    yield pool
    pool.terminate()


@pytest.fixture
async def outsider(postgres_dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    connection.terminate()


async def mapped(pool: Pool, name: str, fields: Any, **parts: Any) -> Entity:
    async with pool.acquire() as connection:
        table = parts.setdefault("table", name)
        columns = await columns_of(connection, table, parts.get("schema", "public"))
    return entity(name, fields, columns=columns, **parts)


async def accounts(pool: Pool, extra: str = "") -> Mapping:
    await pool.execute(ACCOUNTS + extra)
    return mapping(await mapped(pool, "account", ACCOUNT_FIELDS, table="accounts"))


async def apply(pool: Pool, units: Sequence[Unit], *, carefully: bool = False) -> TableWork:
    async with transaction(pool, STORE) as connection:
        return await Tables(STORE).apply(connection, units, carefully=carefully)


async def refusal_of(pool: Pool, *units: Unit) -> BatchRefused:
    with pytest.raises(BatchRefused) as caught:
        await apply(pool, units)
    return caught.value


def shown(text: bytes | None) -> Any:
    return None if text is None else json.loads(text)


async def test_each_kind_of_operation_writes_and_tells_its_images(pool: Pool) -> None:
    """F16–F19, F21, F34: one unit per kind, all in one batch."""
    units_mapping = await accounts(pool)
    units = [
        unit(units_mapping, insert("account", 50, balance=Decimal("7.5")), seq=1),
        unit(
            units_mapping,
            update(
                "account", 2, status="closed", unset=["note"], increment={"balance": Decimal("-1")}
            ),
            seq=2,
        ),
        unit(units_mapping, upsert("account", 3, note="x"), seq=3),
        unit(units_mapping, upsert("account", 51, balance=Decimal(1)), seq=4),
        unit(units_mapping, delete("account", 4), seq=5),
        unit(units_mapping, check("account", 5, equals("status", "active")), seq=6),
        unit(units_mapping, update("account", 99, status="x", ignore_missing=True), seq=7),
    ]
    work = await apply(pool, units)

    assert not work.refused
    assert not work.busy
    done = {seq: each[0] for seq, each in work.done.items()}
    assert [done[seq].effect.value for seq in range(1, 8)] == ["c", "u", "u", "c", "d", "-", "-"]
    assert shown(done[1].after) == {
        "id": 50, "balance": "7.50", "status": None, "note": "none", "version": 1
    }  # fmt: skip
    assert shown(done[2].before) == {
        "id": 2, "balance": "100.00", "status": "active", "note": None, "version": 1
    }  # fmt: skip
    assert shown(done[2].after) == {
        "id": 2, "balance": "99.00", "status": "closed", "note": None, "version": 2
    }  # fmt: skip
    assert done[5].after is None
    assert [done[seq].version for seq in range(1, 8)] == [1, 2, 2, 1, None, 1, None]
    rows = await pool.fetch("SELECT id, balance, note, version FROM public.accounts WHERE id > 20")
    assert sorted(map(tuple, rows)) == [
        (50, Decimal("7.50"), "none", 1),
        (51, Decimal("1.00"), "none", 1),
    ]
    assert await pool.fetchval("SELECT count(*) FROM public.accounts WHERE id = 4") == 0


async def test_operations_on_one_key_act_one_after_the_other(pool: Pool) -> None:
    """F14: images are chained, each bumps the version."""
    units_mapping = await accounts(pool)
    one = unit(
        units_mapping,
        insert("account", 70, balance=Decimal(1)),
        update("account", 70, increment={"balance": Decimal("0.5")}),
        check("account", 70, equals("balance", Decimal("1.50"))),
        update("account", 70, increment={"balance": Decimal("0.5")}),
        delete("account", 70),
        insert("account", 70, balance=Decimal(9)),
    )
    done = (await apply(pool, [one])).done[one.seq]
    assert [each.effect.value for each in done] == ["c", "u", "-", "u", "d", "c"]
    assert [each.version for each in done] == [1, 2, 2, 3, None, 1]
    chain = [each for each in done if each.effect is not Effect.NOTHING]
    for earlier, later in pairwise(chain):
        assert later.before == earlier.after


async def test_an_operation_sees_what_a_trigger_made_of_the_row_before(pool: Pool) -> None:
    """F14, F34: after-images are the store's truth, and later operations are decided on them."""
    units_mapping = await accounts(
        pool,
        """
        CREATE FUNCTION public.shout() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.note := upper(NEW.status); RETURN NEW; END $$;
        CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON public.accounts
        FOR EACH ROW EXECUTE FUNCTION public.shout();
        """,
    )
    doubtful = unit(
        units_mapping,
        update("account", 1, status="loud"),
        check("account", 1, equals("note", None)),  # true of the plan's prediction only
    )
    bystander = unit(units_mapping, update("account", 2, status="quiet"))
    refusal = await refusal_of(pool, doubtful, bystander)
    assert refusal.refusals.keys() == {doubtful.seq}
    assert refusal.refusals[doubtful.seq].code is ErrorCode.EXPECTATION_FAILED

    plain = unit(
        units_mapping,
        update("account", 1, status="loud"),
        update("account", 1, increment={"balance": Decimal(1)}),
    )
    done = (await apply(pool, [plain])).done[plain.seq]
    assert shown(done[0].after)["note"] == "LOUD"
    assert shown(done[1].before)["note"] == "LOUD"


async def test_refused_units_leave_the_rest(pool: Pool) -> None:
    """F16–F23: decisions under the lock; a refusal writes nothing and stops nobody."""
    units_mapping = await accounts(pool)
    exists = unit(units_mapping, insert("account", 1, balance=Decimal(1)))
    missing = unit(
        units_mapping, update("account", 2, note="gone"), update("account", 404, note="x")
    )
    poor = unit(units_mapping, update("account", 3, increment={"balance": Decimal("-100.01")}))
    unexpected = unit(units_mapping, delete("account", 4, expect=[equals("status", "closed")]))
    there = unit(units_mapping, check("account", 5, absent=True))
    good = unit(units_mapping, update("account", 6, note="good"))
    work = await apply(pool, [exists, missing, poor, unexpected, there, good])
    assert {seq: each.code for seq, each in work.refused.items()} == {
        exists.seq: ErrorCode.ALREADY_EXISTS,
        missing.seq: ErrorCode.NOT_FOUND,
        poor.seq: ErrorCode.OUT_OF_BOUNDS,
        unexpected.seq: ErrorCode.EXPECTATION_FAILED,
        there.seq: ErrorCode.ALREADY_EXISTS,
    }
    assert set(work.done) == {good.seq}
    notes = await pool.fetch("SELECT id FROM public.accounts WHERE note IS NOT NULL")
    assert [row[0] for row in notes] == [6]


async def test_the_order_in_which_fields_were_sent_makes_no_other_statement(pool: Pool) -> None:
    """A level takes one statement per set of columns, however it was written down."""
    units_mapping = await accounts(pool)
    one = unit(units_mapping, update("account", 1, status="a", note="b"))
    other = unit(units_mapping, update("account", 2, note="b", status="a"))
    work = await apply(pool, [one, other])
    assert shown(work.done[one.seq][0].after)["note"] == "b"
    assert shown(work.done[other.seq][0].after)["note"] == "b"


# --- strangers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "holding",
    [
        "UPDATE public.accounts SET note = 'held' WHERE id = 2",
        "DELETE FROM public.accounts WHERE id = 2",
        "SELECT 1 FROM public.accounts WHERE id = 2 FOR UPDATE",
    ],
)
async def test_a_row_that_an_outsider_holds_makes_only_its_unit_busy(
    pool: Pool, outsider: Any, holding: str
) -> None:
    """Rule 9: a skipped row is not a missing row, and nobody waits for it."""
    units_mapping = await accounts(pool)
    await outsider.execute("BEGIN")
    await outsider.execute(holding)
    units = [unit(units_mapping, update("account", at, note="ours")) for at in (1, 2, 3)]
    missing = unit(units_mapping, update("account", 404, note="ours"))
    work = await apply(pool, [*units, missing])
    assert work.busy == {units[1].seq}
    assert set(work.done) == {units[0].seq, units[2].seq}
    assert set(work.refused) == {missing.seq}

    await outsider.execute("COMMIT")
    again = await apply(pool, [units[1]])
    assert not again.busy


async def test_outsiders_may_share_what_we_only_read_or_refer_to(pool: Pool, outsider: Any) -> None:
    """A check shares the row with readers; an update leaves foreign keys of others alone."""
    units_mapping = await accounts(pool)
    await outsider.execute("BEGIN")
    await outsider.execute("SELECT 1 FROM public.accounts WHERE id = 1 FOR SHARE")
    await outsider.execute("SELECT 1 FROM public.accounts WHERE id = 2 FOR KEY SHARE")
    checked = unit(units_mapping, check("account", 1, equals("status", "active")))
    updated = unit(units_mapping, update("account", 2, note="ours"))
    deleted = unit(units_mapping, delete("account", 1), seq=10_001)
    assert set((await apply(pool, [checked, updated])).done) == {checked.seq, updated.seq}
    assert (await apply(pool, [deleted])).busy == {deleted.seq}


async def test_an_image_is_that_of_the_version_that_is_locked(pool: Pool, outsider: Any) -> None:
    """Rule 9: what was committed meanwhile counts, not what the statement's snapshot saw."""
    units_mapping = await accounts(pool)
    one = unit(units_mapping, update("account", 1, increment={"balance": Decimal("-60")}))
    async with transaction(pool, STORE) as connection:
        await connection.fetchval("SELECT count(*) FROM public.accounts")
        await outsider.execute("UPDATE public.accounts SET balance = 50 WHERE id = 1")
        work = await Tables(STORE).apply(connection, [one])
    assert work.refused[one.seq].code is ErrorCode.OUT_OF_BOUNDS


async def test_an_insert_that_waits_on_an_outsiders_is_busy_and_not_refused(
    pool: Pool, outsider: Any
) -> None:
    """Rule 9: bounded by lock_timeout; decided on what is there when the outsider has ended."""
    units_mapping = await accounts(pool)
    await outsider.execute("BEGIN")
    await outsider.execute("INSERT INTO public.accounts (id, version) VALUES (60, 1)")
    one = unit(units_mapping, insert("account", 60, balance=Decimal(1)))
    with pytest.raises(StoreBusy):
        await apply(pool, [one])
    await outsider.execute("COMMIT")
    assert (await apply(pool, [one])).refused[one.seq].code is ErrorCode.ALREADY_EXISTS


async def test_a_key_that_was_taken_since_we_looked_is_decided_again(
    pool: Pool, outsider: Any
) -> None:
    """F16: it will be `already_exists`, though the server speaks of a unique violation."""
    units_mapping = await accounts(
        pool,
        """
        CREATE FUNCTION public.overtake() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.note = 'ours' THEN
                INSERT INTO public.accounts (id, version, note) VALUES (NEW.id, 1, 'theirs');
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER overtake BEFORE INSERT ON public.accounts
        FOR EACH ROW EXECUTE FUNCTION public.overtake();
        """,
    )
    one = unit(units_mapping, insert("account", 61, balance=Decimal(1), note="ours"))
    with pytest.raises(StoreBusy) as caught:
        await apply(pool, [one])
    assert caught.value.units == {one.seq}


# --- what the store refuses ---------------------------------------------------------------------


async def test_a_refused_unit_is_named_only_when_it_is_alone(pool: Pool) -> None:
    """Rule 9, F33: CHECK violated; a neighbour might be the cause, so nobody is accused."""
    units_mapping = await accounts(pool)
    bad = unit(units_mapping, update("account", 1, increment={"balance": Decimal("1000000")}))
    good = unit(units_mapping, update("account", 2, increment={"balance": Decimal("1")}))
    together = await refusal_of(pool, bad, good)
    assert not together.refusals
    alone = await refusal_of(pool, bad)
    problem = alone.refusals[bad.seq]
    assert problem.code is ErrorCode.CONSTRAINT_VIOLATED
    assert (problem.entity, problem.key, problem.operation) == ("account", 1, 0)
    assert "accounts_balance_check" in problem.message
    assert "1000100" not in problem.message  # row values stay out of messages
    assert await pool.fetchval("SELECT sum(balance) FROM public.accounts") == 2000


async def test_carefully_only_what_is_refused_by_itself_is_left_out(
    pool: Pool, outsider: Any
) -> None:
    """Rule 9: in halves under savepoints, in the order of admission, and the rest is written."""
    units_mapping = await accounts(
        pool, "CREATE UNIQUE INDEX ON public.accounts (note) WHERE note LIKE 'only %'"
    )
    too_much = {"balance": Decimal("1000000")}
    units = [unit(units_mapping, update("account", n, note=f"n{n}"), seq=n) for n in range(1, 15)]
    units[2] = unit(units_mapping, update("account", 3, increment=too_much), seq=3)
    units[4] = unit(units_mapping, update("account", 5, note="only one"), seq=5)
    units[8] = unit(units_mapping, update("account", 9, note="only one"), seq=9)
    units[9] = unit(units_mapping, update("account", 99, note="nobody"), seq=10)
    units[10] = unit(
        units_mapping, update("account", 11, note="x"), update("account", 11, note="y"), seq=11
    )
    units[11] = unit(
        units_mapping, update("account", 12, note="z"), update("account", 20, increment=too_much),
        seq=12,
    )  # fmt: skip
    await outsider.execute("BEGIN; SELECT 1 FROM public.accounts WHERE id = 14 FOR UPDATE")
    work = await apply(pool, units, carefully=True)

    assert sorted(work.failing) == [3, 9, 12]
    assert work.failing[3].code is ErrorCode.CONSTRAINT_VIOLATED
    assert (work.failing[3].entity, work.failing[3].key) == ("account", 3)
    assert sorted(work.refused) == [10]
    assert work.busy == {14}
    assert sorted(work.done) == [1, 2, 4, 5, 6, 7, 8, 11, 13]
    assert [each.version for each in work.done[11]] == [2, 3]
    rows = await pool.fetch("SELECT id, note FROM public.accounts WHERE note IS NOT NULL")
    expected = {n: f"n{n}" for n in (1, 2, 4, 6, 7, 8, 13)} | {5: "only one", 11: "y"}
    assert dict(rows) == expected


async def test_carefully_every_part_may_violate_deferred_constraints_on_its_way(
    pool: Pool,
) -> None:
    await pool.execute(
        "CREATE TABLE public.shelves (id int PRIMARY KEY, version int,"
        " place int UNIQUE DEFERRABLE INITIALLY DEFERRED);"
        "INSERT INTO public.shelves SELECT n, 1, n FROM generate_series(1, 8) AS n"
    )
    fields = {"id": FieldType.INTEGER, "place": FieldType.INTEGER}
    units_mapping = mapping(await mapped(pool, "shelf", fields, table="shelves"))

    def swap(seq: int, one: int, other: int) -> Unit:
        return unit(
            units_mapping, update("shelf", one, place=other), update("shelf", other, place=one),
            seq=seq,
        )  # fmt: skip

    units = [
        swap(1, 1, 2),
        unit(units_mapping, update("shelf", 3, place=8), seq=2),
        swap(3, 4, 5),
        swap(4, 6, 7),
    ]
    work = await apply(pool, units, carefully=True)
    assert sorted(work.failing) == [2]
    assert sorted(work.done) == [1, 3, 4]
    places = await pool.fetch("SELECT id, place FROM public.shelves")
    assert dict(places) == {1: 2, 2: 1, 3: 3, 4: 5, 5: 4, 6: 7, 7: 6, 8: 8}


@pytest.mark.parametrize(
    ("ddl", "code"),
    [
        ("CREATE UNIQUE INDEX ON public.accounts (status) WHERE id > 18", "constraint_violated"),
        (
            "ALTER TABLE public.accounts ALTER status TYPE varchar(3) USING 'x'",
            "constraint_violated",
        ),
        ("ALTER TABLE public.accounts ALTER status TYPE integer USING 1", "store_refused"),
        ("ALTER TABLE public.accounts DROP COLUMN note", "store_refused"),
        (
            "CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'secret %', NEW.status; END $$;"
            "CREATE TRIGGER no BEFORE UPDATE ON public.accounts"
            " FOR EACH ROW EXECUTE FUNCTION public.no()",
            "constraint_violated",
        ),
        (
            "CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RETURN NULL; END $$;"
            "CREATE TRIGGER no BEFORE UPDATE ON public.accounts"
            " FOR EACH ROW EXECUTE FUNCTION public.no()",
            "constraint_violated",
        ),
    ],
    ids=["unique", "too-long", "other-type", "lost-column", "trigger-raises", "trigger-suppresses"],
)
async def test_what_the_store_refuses_becomes_a_problem(pool: Pool, ddl: str, code: str) -> None:
    """F33: after the mapping was made, the table has changed."""
    units_mapping = await accounts(pool)
    await pool.execute("UPDATE public.accounts SET status = NULL")
    await pool.execute("UPDATE public.accounts SET status = 'active' WHERE id = 20")
    await pool.execute(ddl)
    one = unit(units_mapping, update("account", 19, status="active"))
    problem = (await refusal_of(pool, one)).refusals[one.seq]
    assert problem.code.value == code
    assert "active" not in problem.message


async def test_a_missing_right_is_store_refused(pool: Pool, postgres_dsn: str) -> None:
    """F33."""
    units_mapping = await accounts(pool)
    role = "reader_" + postgres_dsn.rpartition("_")[2]
    await pool.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA public TO {role}")
    try:
        async with transaction(pool, STORE) as connection:
            await connection.execute(f"SET LOCAL ROLE {role}")
            one = unit(units_mapping, update("account", 1, note="x"))
            with pytest.raises(BatchRefused) as caught:
                await Tables(STORE).apply(connection, [one])
            await connection.execute("ROLLBACK; BEGIN")
        assert caught.value.refusals[one.seq].code is ErrorCode.STORE_REFUSED
    finally:
        await pool.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_rows_go_in_the_order_of_the_plan(pool: Pool) -> None:
    """F13: referred rows before those that refer, and the other way round for deletes."""
    await pool.execute(
        "CREATE TABLE public.parents (id int PRIMARY KEY, version int);"
        "CREATE TABLE public.children (id int PRIMARY KEY, version int,"
        " parent int REFERENCES public.parents)"
    )
    units_mapping = mapping(
        await mapped(pool, "parent", {"id": FieldType.INTEGER}, table="parents"),
        await mapped(
            pool,
            "child",
            {"id": FieldType.INTEGER, "parent": FieldType.INTEGER},
            table="children",
        ),
    )
    births = [
        unit(units_mapping, insert("parent", at), insert("child", at, parent=at)) for at in (1, 2)
    ]
    assert set((await apply(pool, births)).done) == {each.seq for each in births}
    orphan = unit(units_mapping, insert("child", 9, parent=9))
    problem = (await refusal_of(pool, orphan)).refusals[orphan.seq]
    assert problem.code is ErrorCode.CONSTRAINT_VIOLATED
    ends = [unit(units_mapping, delete("child", at), delete("parent", at)) for at in (1, 2)]
    assert set((await apply(pool, ends)).done) == {each.seq for each in ends}


async def test_deferred_constraints_may_be_violated_on_the_way_but_not_in_the_end(
    pool: Pool,
) -> None:
    """DESIGN 5, pivot: constraints are set immediate before anything is concluded."""
    await pool.execute(
        "CREATE TABLE public.nodes (id int PRIMARY KEY, version int,"
        " next int REFERENCES public.nodes DEFERRABLE INITIALLY DEFERRED)"
    )
    units_mapping = mapping(
        await mapped(
            pool, "node", {"id": FieldType.INTEGER, "next": FieldType.INTEGER}, table="nodes"
        )
    )
    ring = unit(units_mapping, insert("node", 1, next=2), insert("node", 2, next=1))
    assert ring.seq in (await apply(pool, [ring])).done
    broken = unit(units_mapping, insert("node", 3, next=4))
    problem = (await refusal_of(pool, broken)).refusals[broken.seq]
    assert problem.code is ErrorCode.CONSTRAINT_VIOLATED
    assert "nodes_next_fkey" in problem.message


# --- types and names ----------------------------------------------------------------------------

ALL_TYPES = """
CREATE TYPE public."odd Mood" AS ENUM ('sad', 'it''s "ok"');
CREATE DOMAIN public.percent AS numeric(5,2) CHECK (VALUE >= 0);
CREATE TABLE public.everything (
    id uuid PRIMARY KEY, version bigint,
    s text, v varchar(5), c char(4), i2 smallint, i8 bigint, big numeric(30,0), d numeric(10,3),
    free numeric, r real, f double precision, b boolean, t timestamptz, day date, u uuid,
    raw bytea, j json, jb jsonb, mood public."odd Mood", share public.percent
)
"""
ALL_FIELDS = {
    "id": FieldType.UUID, "s": FieldType.STRING, "v": FieldType.STRING, "c": FieldType.STRING,
    "i2": FieldType.INTEGER, "i8": FieldType.INTEGER, "big": FieldType.INTEGER,
    "d": FieldType.DECIMAL, "free": FieldType.DECIMAL, "r": FieldType.FLOAT,
    "f": FieldType.FLOAT, "b": FieldType.BOOLEAN, "t": FieldType.TIMESTAMP,
    "day": FieldType.DATE, "u": FieldType.UUID, "raw": FieldType.BINARY, "j": FieldType.JSON,
    "jb": FieldType.JSON, "mood": FieldType.STRING, "share": FieldType.DECIMAL,
}  # fmt: skip
ALL_VALUES: dict[str, Any] = {
    "s": "tab\t'quote' \\ {brace} \U0001f600", "v": "héllo", "c": "ab", "i2": -32768,
    "i8": 2**63 - 1, "big": 10**29 + 1, "d": Decimal("-0.120"),
    "free": Decimal("1e-20") + Decimal(10) ** 5, "r": 0.1, "f": 5e-324, "b": False,
    "t": datetime(1, 2, 3, 4, 5, 6, 7, tzinfo=UTC), "day": date(9999, 12, 31), "u": UUID(int=7),
    "raw": bytes(range(256)), "j": JsonText('{"b":1.10,"a":[1e400,null]}'),
    "jb": JsonText("null"), "mood": "it's \"ok\"", "share": Decimal("12.50"),
}  # fmt: skip


async def test_every_type_comes_back_as_it_was_written(pool: Pool) -> None:
    """The table "Values", F27, F32: through the server and back, nothing is lost."""
    await pool.execute(ALL_TYPES)
    units_mapping = mapping(await mapped(pool, "everything", ALL_FIELDS))
    key = UUID("0198c0de-0000-7000-8000-00000000abcd")
    one = unit(units_mapping, insert("everything", key, **ALL_VALUES))
    assert one.seq in (await apply(pool, [one])).done
    async with pool.acquire() as connection:
        images = (await Tables(STORE).load(connection, [one])).images
    image = images["everything", one.plan.operations[0].key_text]
    assert image == {"id": key, "version": 1, **ALL_VALUES}
    stored = await pool.fetchrow("SELECT j::text, jb::text, c::text FROM public.everything")
    assert tuple(stored) == ('{"b":1.10,"a":[1e400,null]}', "null", "ab")

    changed = unit(units_mapping, update("everything", key, **ALL_VALUES))
    assert changed.seq in (await apply(pool, [changed])).done
    emptied = unit(units_mapping, update("everything", key, unset=list(ALL_VALUES)))
    after = shown((await apply(pool, [emptied])).done[emptied.seq][0].after)
    assert all(after[name] is None for name in ALL_VALUES)


async def test_stored_values_beyond_the_declared_type_are_shown_and_not_compared(
    pool: Pool,
) -> None:
    """F33: such a row can still be read, and deleted."""
    await pool.execute(ALL_TYPES)
    await pool.execute(
        "INSERT INTO public.everything (id, version, free, f, t, day)"
        " VALUES ($1, 1, 'NaN', '-Infinity', 'infinity', '0044-03-15 BC')",
        UUID(int=1),
    )
    units_mapping = mapping(await mapped(pool, "everything", ALL_FIELDS))
    one = unit(units_mapping, check("everything", UUID(int=1)))
    async with pool.acquire() as connection:
        ((_, image),) = (await Tables(STORE).load(connection, [one])).images.items()
    assert image is not None
    assert (image["free"], image["t"]) == (Alien("NaN"), Alien("infinity"))
    assert image["f"] == float("-inf")
    gone = unit(units_mapping, delete("everything", UUID(int=1)))
    before = shown((await apply(pool, [gone])).done[gone.seq][0].before)
    assert before["free"] == "NaN"
    assert before["t"] == "infinity"
    assert before["day"] == "0044-03-15 BC"


async def test_identity_and_generated_columns(pool: Pool) -> None:
    """F30: identity columns are overridden, generated ones are the server's."""
    await pool.execute(
        "CREATE TABLE public.lines (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " price int, twice int GENERATED ALWAYS AS (price * 2) STORED, version int)"
    )
    fields = {
        "id": FieldType.INTEGER,
        "price": FieldType.INTEGER,
        "twice": Field("twice", FieldType.INTEGER, read_only=True, nullable=True),
    }
    units_mapping = mapping(await mapped(pool, "line", fields, table="lines"))
    one = unit(units_mapping, insert("line", 5, price=4), update("line", 5, price=6))
    first, second = (await apply(pool, [one])).done[one.seq]
    assert shown(first.after) == {"id": 5, "price": 4, "twice": 8, "version": 1}
    assert shown(second.after) == {"id": 5, "price": 6, "twice": 12, "version": 2}


async def test_names_are_quoted_whatever_is_in_them(pool: Pool) -> None:
    """I10: a hostile name is a name."""
    await pool.execute(
        'CREATE SCHEMA "S; DROP"; CREATE TABLE "S; DROP"."we""ird Table"'
        ' ("Key; --" text PRIMARY KEY, "select" int, "a`b" text, "$1" int)'
    )
    units_mapping = mapping(
        await mapped(
            pool,
            "odd",
            {
                "Key; --": FieldType.STRING,
                "select": FieldType.INTEGER,
                "a`b": FieldType.STRING,
            },
            schema="S; DROP",
            table='we"ird Table',
            key="Key; --",
            version="$1",
        )
    )
    key = "'); DROP TABLE x; --"
    changed: dict[str, Any] = {"a`b": '{,}"\\', "select": 2}
    one = unit(
        units_mapping,
        insert("odd", key, select=1),
        update("odd", key, **changed),
    )
    assert one.seq in (await apply(pool, [one])).done
    row = await pool.fetchrow('SELECT * FROM "S; DROP"."we""ird Table"')
    assert tuple(row) == (key, 2, '{,}"\\', 2)


@pytest.mark.parametrize(
    ("type_name", "field_type", "key"),
    [
        ("character(4)", FieldType.STRING, "ab"),
        ("numeric(20,0)", FieldType.INTEGER, 42),
        ("numeric", FieldType.DECIMAL, Decimal("1.50")),
        ("timestamptz", FieldType.TIMESTAMP, datetime(2026, 1, 2, tzinfo=UTC)),
        ("date", FieldType.DATE, date(2026, 1, 2)),
        ("uuid", FieldType.UUID, UUID(int=5)),
        ("bytea", FieldType.BINARY, b"\x00\xff"),
    ],
)
async def test_keys_of_every_type_find_their_rows(
    pool: Pool, type_name: str, field_type: FieldType, key: Any
) -> None:
    await pool.execute(f"CREATE TABLE public.keyed (id {type_name} PRIMARY KEY, version int)")
    units_mapping = mapping(await mapped(pool, "keyed", {"id": field_type}))
    born = unit(units_mapping, insert("keyed", key))
    assert born.seq in (await apply(pool, [born])).done
    touched = unit(units_mapping, upsert("keyed", key), check("keyed", key))
    assert [each.version for each in (await apply(pool, [touched])).done[touched.seq]] == [2, 2]
    assert (await apply(pool, [born])).refused[born.seq].code is ErrorCode.ALREADY_EXISTS
    gone = unit(units_mapping, delete("keyed", key))
    assert gone.seq in (await apply(pool, [gone])).done
    assert await pool.fetchval("SELECT count(*) FROM public.keyed") == 0


async def test_a_table_without_version_and_an_upsert_that_sets_nothing(pool: Pool) -> None:
    """F18, F34: an event, though there is nothing to write."""
    await pool.execute(
        "CREATE TABLE public.bare (id int PRIMARY KEY); INSERT INTO public.bare VALUES (1)"
    )
    units_mapping = mapping(await mapped(pool, "bare", {"id": FieldType.INTEGER}, version=None))
    one = unit(units_mapping, upsert("bare", 1), upsert("bare", 2))
    first, second = (await apply(pool, [one])).done[one.seq]
    assert (first.effect, second.effect) == (Effect.UPDATED, Effect.CREATED)
    assert shown(first.after) == {"id": 1}


async def test_units_of_two_mappings_in_one_batch(pool: Pool) -> None:
    """Rule 8: after a restart with another mapping each unit goes by its own."""
    old = await accounts(pool)
    new = mapping(
        await mapped(
            pool, "account", {**ACCOUNT_FIELDS, "version": FieldType.INTEGER}, table="accounts"
        )
    )
    assert old.fingerprint != new.fingerprint
    one = unit(old, update("account", 1, note="old"))
    other = unit(new, update("account", 2, note="new"))
    work = await apply(pool, [one, other])
    assert shown(work.done[one.seq][0].after)["note"] == "old"
    assert shown(work.done[other.seq][0].after)["note"] == "new"


# --- shared rows ---------------------------------------------------------------------------------


async def apply_shared(
    pool: Pool, tables: Tables, units: Sequence[Unit], harmless: Collection[int] = ()
) -> TableWork:
    async def go(*, carefully: bool) -> TableWork:
        async with transaction(pool, STORE) as connection:
            line = Line.of(units)
            assert line is not None
            line.harmless = frozenset(harmless)
            return await tables.apply(connection, units, carefully=carefully, line=line)

    try:
        return await go(carefully=False)
    except BatchRefused:
        return await go(carefully=True)


def told(work: TableWork, seq: int) -> list[tuple[Any, Any, int | None]]:
    return [
        (shown(each.before)["balance"], shown(each.after)["balance"], each.version)
        for each in work.done[seq]
    ]


@pytest.mark.parametrize(
    "extra",
    [
        "",
        "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " NEW.note := coalesce(NEW.note, '') || '+'; RETURN NEW; END $$;"
        " CREATE TRIGGER noted BEFORE UPDATE ON accounts"
        " FOR EACH ROW EXECUTE FUNCTION noted();",
    ],
    ids=["plain", "with a trigger"],
)
async def test_sharers_of_a_row_are_told_one_after_the_other(pool: Pool, extra: str) -> None:
    """F14, F23, F34: one is refused in the middle and the rest is as if it had never been."""
    shop = await accounts(pool, extra)
    await pool.execute("UPDATE accounts SET balance = 10, note = '', version = 1 WHERE id = 2")
    amounts = ("5", "-14.5", "-3", "4.25")
    units = [
        unit(shop, update("account", 2, increment={"balance": Decimal(amount)}), seq=seq)
        for seq, amount in enumerate(amounts, 1)
    ]
    # A refusal that ends a unit stops nobody behind it.
    work = await apply_shared(pool, Tables(STORE), units, harmless={3})
    assert set(work.refused) == {3}
    assert work.refused[3].code == "out_of_bounds"
    assert [told(work, seq) for seq in (1, 2, 4)] == [
        [("10.00", "15.00", 2)],
        [("15.00", "0.50", 3)],
        [("0.50", "4.75", 4)],
    ]
    row = await pool.fetchrow("SELECT balance, version FROM accounts WHERE id = 2")
    assert tuple(row) == (Decimal("4.75"), 4)
    notes = [shown(work.done[seq][0].after)["note"] for seq in (1, 2, 4)]
    assert notes == (["++", "+++", "++++"] if extra else [""] * 3)


async def test_sharers_stay_behind_one_whose_write_is_refused(pool: Pool) -> None:
    """Rule 9: it is the first that the store does not take; nobody goes past it."""
    shop = await accounts(pool, "ALTER TABLE accounts ADD CHECK (balance <= 15) NOT VALID;")
    await pool.execute("UPDATE accounts SET balance = 10, version = 1 WHERE id = 2")
    units = [
        unit(shop, update("account", 2, increment={"balance": Decimal(amount)}), seq=seq)
        for seq, amount in enumerate((5, 2, 1000000), 1)
    ]
    work = await apply_shared(pool, Tables(STORE), units)
    assert (set(work.done), set(work.failing), set(work.behind)) == ({1}, {2}, {3})
    row = await pool.fetchrow("SELECT balance, version FROM accounts WHERE id = 2")
    assert tuple(row) == (Decimal(15), 2)


@pytest.mark.parametrize(
    "rule",
    [
        "ALTER TABLE accounts ADD CHECK (balance <= 15) NOT VALID;",
        "ALTER TABLE accounts ADD CHECK (balance <> 16) NOT VALID;",
        "INSERT INTO accounts (id, balance, version) VALUES (77, 16, 99);"
        "CREATE UNIQUE INDEX ON accounts (balance) WHERE balance BETWEEN 15.5 AND 17;",
        "CREATE FUNCTION judged() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.balance = 16 THEN RAISE 'not that' USING ERRCODE = '23514'; END IF;"
        " RETURN NEW; END $$;"
        "CREATE TRIGGER judged AFTER UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION judged();",
    ],
    ids=["check", "one value", "unique", "trigger"],
)
async def test_what_stands_between_sharers_is_judged_by_the_tables_rules(
    pool: Pool, rule: str
) -> None:
    """The sum of all three would do; but one after the other, the second is refused."""
    shop = await accounts(pool, rule)
    await pool.execute("UPDATE accounts SET balance = 10, version = 1 WHERE id = 2")
    units = [
        unit(shop, update("account", 2, increment={"balance": Decimal(amount)}), seq=seq)
        for seq, amount in enumerate((4, 2, -5), 1)
    ]
    work = await apply_shared(pool, Tables(STORE), units)
    assert (set(work.done), set(work.failing), set(work.behind)) == ({1}, {2}, {3})
    row = await pool.fetchrow("SELECT balance, version FROM accounts WHERE id = 2")
    assert tuple(row) == (Decimal(14), 2)


@pytest.mark.parametrize(
    ("rule", "judged"),
    [
        ("", False),
        ("ALTER TABLE plain ADD CHECK (a <> 'x');", True),
        ("CREATE UNIQUE INDEX ON plain (n);", True),
        ("CREATE UNIQUE INDEX ON plain (a);", False),
        ("CREATE UNIQUE INDEX ON plain ((n + 1));", True),
        ("ALTER TABLE plain ADD FOREIGN KEY (n) REFERENCES other (id);", True),
        ("ALTER TABLE plain ENABLE ROW LEVEL SECURITY;", True),
        ("CREATE DOMAIN few AS integer; ALTER TABLE plain ALTER n TYPE few;", True),
        ("ALTER TABLE plain ADD EXCLUDE USING btree (a WITH =);", True),
        ("CREATE RULE quiet AS ON UPDATE TO plain DO ALSO SELECT 1;", True),
    ],
)
async def test_which_tables_have_rules_of_their_own(pool: Pool, rule: str, judged: bool) -> None:
    await pool.execute(
        "CREATE TABLE other (id integer PRIMARY KEY);"
        "CREATE TABLE plain (id integer PRIMARY KEY, n integer NOT NULL, a text);" + rule
    )
    async with pool.acquire() as connection:
        table = Table("public", "plain", "id", ())
        assert await has_rules(connection, table, {"n", "version"}) is judged
