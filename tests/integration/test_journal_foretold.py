"""A pivot in one statement: the same as step by step if it comes true, and nothing if it does not.

That it does the same at all is shown by ``test_journal_pivot``, which runs both ways.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from coordinator.domain.decide import Effect, decide_branch
from coordinator.domain.entity import FieldType
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import Problem
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Operation, Unit
from coordinator.domain.preview import NOTHING_SEEN, Preview
from coordinator.domain.publishing import Done
from coordinator.domain.sharing import Line
from coordinator.domain.values import JsonText
from coordinator.engine.forecast import Forecast
from coordinator.engine.ports import Candidate, Concluded
from coordinator.participants.postgresql.tables import Tables
from tests.admissions import SHOP, arrival, batch
from tests.journal_worker import JournalWorker, a_worker
from tests.live_columns import columns_of
from tests.units import entity, insert, mapping, update

pytestmark = pytest.mark.integration

THINGS = """
CREATE TABLE public.things (
    id bigint PRIMARY KEY,
    name text DEFAULT 'n', code varchar(9) DEFAULT 'c', padded char(4) DEFAULT 'p',
    small smallint DEFAULT 1, plain numeric DEFAULT 1, money numeric(12,2) DEFAULT 100,
    ratio double precision DEFAULT 0.5, short real DEFAULT 0.5, is_new boolean DEFAULT true,
    at timestamptz DEFAULT '2026-01-02 03:04:05.678+00', day date DEFAULT '2026-01-02',
    tag uuid DEFAULT '00000000-0000-0000-0000-000000000001', raw bytea DEFAULT '\\x00',
    notes jsonb DEFAULT '{}', unmapped text DEFAULT 'u', doubled numeric
        GENERATED ALWAYS AS (money * 2) STORED,
    version integer NOT NULL DEFAULT 1
);
INSERT INTO public.things (id) SELECT i FROM generate_series(1, 9) AS i;
"""
FIELDS = {
    "id": FieldType.INTEGER,
    "name": FieldType.STRING,
    "code": FieldType.STRING,
    "padded": FieldType.STRING,
    "small": FieldType.INTEGER,
    "plain": FieldType.DECIMAL,
    "money": FieldType.DECIMAL,
    "ratio": FieldType.FLOAT,
    "short": FieldType.FLOAT,
    "is_new": FieldType.BOOLEAN,
    "at": FieldType.TIMESTAMP,
    "day": FieldType.DATE,
    "tag": FieldType.UUID,
    "raw": FieldType.BINARY,
    "notes": FieldType.JSON,
}


class CountedTables(Tables):
    """Tables that count how often the rows were written step by step."""

    steps = 0

    async def apply(self, *arguments: Any, **named: Any) -> Any:
        self.steps += 1
        return await super().apply(*arguments, **named)


@dataclass
class Place:
    """A worker with its table; ``connection`` is a stranger's."""

    worker: JournalWorker
    mapping: EntityMapping
    tables: CountedTables
    connection: asyncpg.Connection

    async def admit(self, unit_id: str, *operations: Operation) -> Unit:
        record = arrival(unit_id, *operations, on=self.mapping)
        moves = batch(record)
        held = await self.worker.admission.positions([moves.moves[0].partition])
        expected = {number: at for (_, number), at in held.items()}
        admitted = await self.worker.admission.admit(batch(record, expected=expected), self.mapping)
        return admitted.units[0]

    async def preview(self, *units: Unit) -> Preview:
        images, rows = await self.worker.pivot.load(units)
        decided = {unit.seq: decide_branch(unit, "ledger", images) for unit in units}
        writes = {seq: each for seq, each in decided.items() if not isinstance(each, Problem)}
        return Preview(images, rows, writes)

    async def conclude(self, units: Sequence[Unit], preview: Preview) -> Concluded:
        candidates = [Candidate(unit, (), in_doubt=False) for unit in units]
        return await self.worker.pivot.conclude(candidates, [], preview)

    async def run(self, unit: Unit) -> Concluded:
        return await self.conclude([unit], await self.preview(unit))

    async def events(self) -> list[Any]:
        """The change events so far, without what is of the moment."""
        values = [
            json.loads(each.value or b"")
            for each in await self.worker.published()
            if each.topic.startswith("test.changes")
        ]
        return [(each["op"], each["before"], each["after"]) for each in values]

    async def row(self, number: int) -> tuple[Any, ...]:
        return tuple(
            await self.connection.fetchrow(
                "SELECT money, version, unmapped FROM public.things WHERE id = $1", number
            )
        )


@asynccontextmanager
async def a_place(dsn: str) -> AsyncIterator[Place]:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(THINGS)
        columns = await columns_of(connection, "things")
        made = mapping(entity("thing", FIELDS, table="things", columns=columns))
        tables = CountedTables("ledger")
        async with a_worker(dsn, tables=tables) as worker:
            await worker.mappings.remember(made)
            yield Place(worker, made, tables, connection)
    finally:
        await connection.close()


@pytest.fixture
async def place(postgres_dsn: str) -> AsyncIterator[Place]:
    async with a_place(postgres_dsn) as opened:
        yield opened


@pytest.mark.parametrize(
    "assigned",
    [
        {"name": "it's \\ ü"},
        {"name": None, "code": "  "},
        {"small": -7, "plain": Decimal("1E+3")},
        {"plain": Decimal("-0.000100")},
        {"money": Decimal("7")},
        {"money": Decimal("0.5"), "is_new": False},
        {"ratio": 1.0},
        {"ratio": -1.5e300},
        {"ratio": 1e-7},
        {"at": datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)},
        {"at": datetime(2026, 3, 4, 5, 6, 7, 120_000, tzinfo=UTC)},
        {"day": date(1, 2, 3), "tag": UUID(int=255), "raw": b"\x00\xff"},
    ],
    ids=str,
)
async def test_what_a_column_shows_is_foretold(place: Place, assigned: dict[str, Any]) -> None:
    one = await place.admit("one", update("thing", 1, **assigned))
    two = await place.admit("two", update("thing", 2, **assigned))
    assert (await place.run(one)).ended == {one.seq: (Status.COMMITTED, None)}
    assert place.tables.steps == 0, "one statement has done it"
    await place.conclude([two], NOTHING_SEEN)
    assert place.tables.steps == 1
    first, second = await place.events()
    for image in (*first[1:], *second[1:]):
        image.pop("id")
    assert first == second


@pytest.mark.parametrize(
    "assigned", [{"padded": "x"}, {"short": 0.1}, {"notes": JsonText('{"b":1}')}]
)
async def test_what_a_column_shows_in_its_own_way_is_not_foretold(
    place: Place, assigned: dict[str, Any]
) -> None:
    unit = await place.admit("u", update("thing", 1, **assigned))
    assert list((await place.run(unit)).ended) == [unit.seq]
    assert place.tables.steps == 1


async def test_a_row_that_a_stranger_has_changed_is_read_again(place: Place) -> None:
    """Also a change of a column that we do not know, or to the very same values."""
    for number, change in ((1, "money = 50"), (2, "unmapped = 'x'"), (3, "money = money")):
        unit = await place.admit(f"u{number}", update("thing", number, increment={"money": -1}))
        preview = await place.preview(unit)
        await place.connection.execute(f"UPDATE public.things SET {change} WHERE id = {number}")
        assert list((await place.conclude([unit], preview)).ended) == [unit.seq]
        assert place.tables.steps == number
    assert [await place.row(n) for n in (1, 2, 3)] == [(49, 2, "u"), (99, 2, "x"), (99, 2, "u")]
    [(_, before, after), *_] = await place.events()
    assert (before["money"], after["money"]) == ("50.00", "49.00")


async def test_a_stranger_who_holds_a_row_is_not_waited_for(place: Place) -> None:
    """Rule 9."""
    units = [
        await place.admit(f"u{n}", update("thing", n, increment={"money": -1})) for n in (1, 2)
    ]
    preview = await place.preview(*units)
    async with place.connection.transaction():
        await place.connection.execute("SELECT 1 FROM public.things WHERE id = 1 FOR UPDATE")
        concluded = await place.conclude(units, preview)
    assert concluded.busy == {units[0].seq}
    assert list(concluded.ended) == [units[1].seq]
    assert [await place.row(n) for n in (1, 2)] == [(100, 1, "u"), (99, 2, "u")]


async def test_what_a_trigger_makes_of_a_row_is_announced_and_then_no_more_foretold(
    place: Place,
) -> None:
    await place.connection.execute(
        "CREATE FUNCTION public.less() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.money := NEW.money / 2; RETURN NEW; END $$;"
        "CREATE TRIGGER less BEFORE UPDATE ON public.things FOR EACH ROW"
        " EXECUTE FUNCTION public.less()"
    )
    statements = []
    for number in range(1, 6):
        unit = await place.admit(f"u{number}", update("thing", number, increment={"money": -10}))
        preview = await place.preview(unit)
        statements.append(place.tables.foretell([unit], preview) is not None)
        assert list((await place.conclude([unit], preview)).ended) == [unit.seq]
    assert statements == [True, True, True, False, False]
    assert {after["money"] for _, _, after in await place.events()} == {"45.00"}
    assert await place.row(1) == (45, 2, "u")


async def test_an_unmapped_column_that_a_trigger_writes_is_noticed_as_well(place: Place) -> None:
    await place.connection.execute(
        "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.unmapped := 'seen'; RETURN NEW; END $$;"
        "CREATE TRIGGER note BEFORE UPDATE ON public.things FOR EACH ROW"
        " EXECUTE FUNCTION public.note()"
    )
    unit = await place.admit("u", update("thing", 1, increment={"money": -10}))
    assert list((await place.run(unit)).ended) == [unit.seq]
    assert (place.tables.steps, await place.row(1)) == (1, (90, 2, "seen"))


async def test_a_cancel_that_comes_after_the_read_stops_it(place: Place) -> None:
    """F8; the other unit of the batch goes on."""
    units = [
        await place.admit(f"u{n}", update("thing", n, increment={"money": -1})) for n in (1, 2)
    ]
    preview = await place.preview(*units)
    await place.worker.operators.cancel("u1", "no more")
    concluded = await place.conclude(units, preview)
    status, problem = concluded.ended[units[0].seq]
    assert (status, problem and problem.code) == (Status.REJECTED, "cancelled")
    assert concluded.ended[units[1].seq] == (Status.COMMITTED, None)
    assert [await place.row(n) for n in (1, 2)] == [(100, 1, "u"), (99, 2, "u")]


async def test_a_lost_answer_is_settled_step_by_step(place: Place) -> None:
    """I11: done is done, and it is not done again."""
    unit = await place.admit("u", update("thing", 1, increment={"money": -1}))
    preview = await place.preview(unit)
    first = await place.conclude([unit], preview)
    assert (await place.conclude([unit], preview)).ended == first.ended
    assert await place.row(1) == (99, 2, "u")
    assert len(await place.events()) == 1


async def test_a_deferred_constraint_refuses_its_unit_only(place: Place) -> None:
    await place.connection.execute(
        "UPDATE public.things SET small = NULL;"
        "ALTER TABLE public.things ADD UNIQUE (small) DEFERRABLE INITIALLY DEFERRED"
    )
    units = [
        await place.admit(f"u{n}", update("thing", n, small=small))
        for n, small in ((1, 5), (2, 6), (3, 6))
    ]
    concluded = await place.conclude(units, await place.preview(*units))
    assert list(concluded.failing) == [units[2].seq]
    assert list(concluded.ended) == [units[0].seq, units[1].seq]


async def test_sharers_of_a_row_are_not_foretold(place: Place) -> None:
    """A rule of the table may judge what stands in between; each is told as if it were alone."""
    amounts = ("1.5", "2", "-3.25")
    units = [
        await place.admit(
            f"share-{amount}", update("thing", 1, increment={"money": Decimal(amount)})
        )
        for amount in amounts
    ]
    images, rows = await place.worker.pivot.load(units)
    forecast = Forecast(Line.of(units), "ledger")
    writes = forecast.decide("ledger", units, images)
    assert set(writes.values()) == {None}
    preview = Preview(images, rows, writes, chained=forecast.chained)
    # The second has stayed behind: what was forecast of the third does not hold.
    concluded = await place.conclude([units[0], units[2]], preview)
    assert set(concluded.ended) == {units[0].seq, units[2].seq}
    assert place.tables.steps == 1
    more = [
        await place.admit(
            f"more-{amount}", update("thing", 1, increment={"money": Decimal(amount)})
        )
        for amount in amounts
    ]
    images, rows = await place.worker.pivot.load(more)
    forecast = Forecast(Line.of(more), "ledger")
    preview = Preview(
        images, rows, forecast.decide("ledger", more, images), chained=forecast.chained
    )
    concluded = await place.conclude(more, preview)
    assert set(concluded.ended) == {each.seq for each in more}
    assert place.tables.steps == 2
    told = [(before["money"], after["money"]) for _, before, after in await place.events()]
    assert told == [
        ("100.00", "101.50"),
        ("101.50", "98.25"),
        ("98.25", "99.75"),
        ("99.75", "101.75"),
        ("101.75", "98.50"),
    ]
    row = await place.connection.fetchrow("SELECT money, version FROM things WHERE id = 1")
    assert tuple(row) == (Decimal("98.50"), 6)


async def test_a_journal_of_its_own_concludes_in_one_statement(postgres_dsn: str) -> None:
    """Without tables of users beside it there is nothing that could come otherwise."""
    async with a_worker(postgres_dsn, pivot_store=None, tables=None) as worker:
        await worker.mappings.remember(SHOP)
        records = [arrival(name, insert("order", name), on=SHOP) for name in ("one", "two")]
        admitted = await worker.admission.admit(batch(*records, expected={0: None}), SHOP)
        done = Done(0, Effect.CREATED, None, b'{"_id":"o"}', None)
        candidates = [Candidate(unit, (done,), in_doubt=True) for unit in admitted.units]
        await worker.operators.cancel("two", "no more")
        concluded = await worker.pivot.conclude(candidates[:1], [])
        assert list(concluded.ended) == [candidates[0].unit.seq]
        # A cancel is not foreseen: this one goes step by step.
        stopped = await worker.pivot.conclude(candidates[1:], [])
        assert list(stopped.compensating) == [candidates[1].unit.seq]
        assert [each.topic for each in await worker.published()] == [
            "test.changes.order",
            "test.outcomes",
        ]
