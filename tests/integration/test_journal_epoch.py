"""An admission whose answer was lost concludes (rule 1), and a configuration that lacks a store."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest

from coordinator.bootstrap.journal import check_open_units
from coordinator.domain.errors import ConfigurationInvalid, StoreBusy
from coordinator.journal.admission import JournalAdmission
from coordinator.journal.epoch import Epoch
from coordinator.settings import Settings
from tests.admissions import SHOP, arrival, batch
from tests.journal_worker import a_worker
from tests.units import insert

pytestmark = pytest.mark.integration


def settings(pivot: str | None, *stores: str) -> Settings:
    shape: dict[str, Any] = {
        "journal": SimpleNamespace(store=pivot),
        "stores": dict.fromkeys(stores),
    }
    return cast(Settings, SimpleNamespace(**shape))


async def test_a_late_admission_does_nothing_once_we_have_looked(postgres_dsn: str) -> None:
    """I7, I11: or its units would be ours without anybody knowing."""
    async with a_worker(postgres_dsn) as worker:
        await worker.mappings.remember(SHOP)
        late = JournalAdmission(worker.pool, worker.number, "ledger", Epoch(worker.epoch.number))
        assert await worker.workers.ours() == []
        one = batch(arrival("u-1", insert("account", 1)), expected={0: None})
        with pytest.raises(StoreBusy):
            await late.admit(one, SHOP)
        assert await worker.admission.positions([("units", 0)]) == {}
        assert await worker.value("SELECT count(*) FROM coordinator.units") == 0
        assert len((await worker.admission.admit(one, SHOP)).units) == 1


async def test_many_open_units_are_read_and_taken_over_in_turns(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I12, rule 6."""
    monkeypatch.setattr("coordinator.journal.workers._UNITS_AT_A_TIME", 2)
    async with a_worker(postgres_dsn) as dead, a_worker(postgres_dsn) as heir:
        await dead.mappings.remember(SHOP)
        records = [arrival(f"u-{number}", insert("account", number)) for number in range(5)]
        await dead.admission.admit(batch(*records, expected={0: None}), SHOP)
        assert len(await dead.workers.ours()) == 5
        await dead.workers.leave()
        assert await heir.workers.fence(dead.number)
        came: list[int] = []
        while units := await heir.workers.take_over(dead.number, {"ledger"}):
            assert len(units) <= 2
            came += sorted(each.unit.seq for each in units)
        assert came == sorted(came)
        assert len(came) == 5


async def test_a_store_that_open_units_need_must_be_configured(postgres_dsn: str) -> None:
    """Rule 8: exit code 2 at start, not a crash later."""
    async with a_worker(postgres_dsn) as worker:
        connection = await asyncpg.connect(postgres_dsn)
        try:
            await check_open_units(connection, settings("ledger", "ledger", "catalog"))
            await worker.mappings.remember(SHOP)
            one = arrival("u-1", insert("order", "o-1"))
            await worker.admission.admit(batch(one, expected={0: None}), SHOP)
            await check_open_units(connection, settings("ledger", "ledger", "catalog"))
            for wrong in (
                settings("ledger", "ledger"),
                settings("catalog", "ledger", "catalog"),
                settings(None, "ledger", "catalog"),
            ):
                with pytest.raises(ConfigurationInvalid):
                    await check_open_units(connection, wrong)
            await worker.value(
                "UPDATE coordinator.units SET status = 'rejected', finished_at = now()"
                " RETURNING true"
            )
            await check_open_units(connection, settings("ledger", "ledger"))
        finally:
            await connection.close()
