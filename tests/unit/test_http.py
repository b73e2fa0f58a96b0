"""The HTTP port on a loopback port, asked by a real client."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from coordinator.daemon.health import Health
from coordinator.daemon.http import HttpServer, is_loopback
from coordinator.daemon.metrics import Metrics
from coordinator.domain.errors import ConfigurationInvalid, StoreUnavailable
from coordinator.engine.units_api import ActionRefused, UnitUnknown

ODD_ID = "a/b%2F?#..;+~!\"'<>\\{|}"
SECRET = "hunter2"


class Units:
    """Units in memory: a `UnitsApi` whose ``done`` tells what was asked of it."""

    def __init__(self) -> None:
        self.views: dict[str, dict[str, Any]] = {}
        self.done: list[tuple[object, ...]] = []
        self.away = False

    def hold(self, unit_id: str, status: str, outcome: object = None) -> None:
        view = {"unit": unit_id, "status": status, "outcome": outcome, "worker": "w"}
        self.views[unit_id] = view

    async def show(self, unit_id: str) -> Mapping[str, Any] | None:
        if self.away:
            raise StoreUnavailable("journal", f"no route, password {SECRET}")
        return self.views.get(unit_id)

    async def list(self, status: str | None, limit: int) -> list[Mapping[str, Any]]:
        found = [view for view in self.views.values() if status in (None, view["status"])]
        return list(found[:limit])

    async def retry(self, unit_id: str, reason: str | None) -> Mapping[str, Any]:
        return self._change("retry", unit_id, "compensating", reason)

    async def resolve(self, unit_id: str, as_status: str, reason: str) -> Mapping[str, Any]:
        return self._change("resolve", unit_id, as_status, reason)

    async def cancel(self, unit_id: str, reason: str | None) -> Mapping[str, Any]:
        return self._change("cancel", unit_id, "compensating", reason)

    def _change(
        self, action: str, unit_id: str, status: str, reason: str | None
    ) -> Mapping[str, Any]:
        view = self.views.get(unit_id)
        if view is None:
            raise UnitUnknown(unit_id)
        if view["status"] != "parked":
            raise ActionRefused(f"Unit {unit_id} is {view['status']}.")
        self.done.append((action, unit_id, reason))
        return {**view, "status": status}


class Port:
    """A running port and a client of it."""

    def __init__(self, server: HttpServer, session: aiohttp.ClientSession) -> None:
        self.server, self._session = server, session

    async def ask(self, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
        url = URL(f"http://127.0.0.1:{self.server.port}{path}", encoded=True)
        async with self._session.request(method, url, **options) as response:
            if response.content_type == "application/json":
                return response.status, await response.json()
            return response.status, await response.text()


@pytest.fixture
def health() -> Health:
    return Health(redact=lambda text: text.replace(SECRET, "***"))


@pytest.fixture
def units() -> Units:
    return Units()


@pytest.fixture
async def port(health: Health, units: Units) -> AsyncIterator[Port]:
    metrics = Metrics()
    server = HttpServer(
        "127.0.0.1:0", health, metrics, redact=lambda text: text.replace(SECRET, "***")
    )
    server.units = units
    await server.start()
    async with aiohttp.ClientSession() as session:
        yield Port(server, session)
    await server.close()


async def test_readiness_follows_what_is_told(port: Port, health: Health) -> None:
    assert (await port.ask("/readyz"))[0] == 503
    health.ready()
    assert await port.ask("/readyz") == (
        200,
        {"ready": True, "state": "running", "away": [], "reasons": {}},
    )
    assert health.away("catalog", f"refused by {SECRET}")
    assert not health.away("catalog", "still refused by ***")
    status, body = await port.ask("/readyz")
    assert (status, body["ready"], body["away"]) == (503, False, ["catalog"])
    assert body["reasons"] == {"catalog": "still refused by ***"}
    assert health.back("catalog") is not None
    assert health.back("catalog") is None
    assert (await port.ask("/readyz"))[0] == 200
    health.draining()
    status, body = await port.ask("/readyz")
    assert (status, body["state"]) == (503, "draining")


async def test_no_secret_in_readiness(port: Port, health: Health) -> None:
    health.away("ledger", f"password {SECRET}")
    assert SECRET not in str(await port.ask("/readyz"))


async def test_liveness_minds_tasks_and_not_servers(port: Port, health: Health) -> None:
    health.away("catalog", "gone")
    assert (await port.ask("/livez"))[0] == 200
    health.dead_tasks = lambda: ("relay",)
    status, body = await port.ask("/livez")
    assert (status, body["dead"]) == (503, ["relay"])


@pytest.mark.parametrize("unit_id", ["u-1", ODD_ID, "a/b", "..", "~" * 128])
async def test_a_unit_is_shown_by_any_valid_id(port: Port, units: Units, unit_id: str) -> None:
    units.hold(unit_id, "committed", {"unit": unit_id})
    assert await port.ask("/v1/units/" + quote(unit_id, safe="")) == (
        200,
        {"unit": unit_id, "status": "committed", "outcome": {"unit": unit_id}},
    )


@pytest.mark.parametrize("raw_id", ["absent", "%FF", "a%20b", "x" * 129, "%00", "%0A"])
async def test_an_unknown_or_impossible_id_is_not_found(port: Port, raw_id: str) -> None:
    status, body = await port.ask("/v1/units/" + raw_id)
    assert (status, body["error"]["code"]) == (404, "not_found")


async def test_units_are_listed(port: Port, units: Units) -> None:
    for number in range(3):
        units.hold(f"p-{number}", "parked")
    units.hold("c", "committed")
    status, body = await port.ask("/v1/units?status=parked&limit=2")
    assert (status, [view["unit"] for view in body["units"]]) == (200, ["p-0", "p-1"])
    assert len((await port.ask("/v1/units"))[1]["units"]) == 4
    for query in ("status=lost", "limit=0", "limit=x", "limit=1001", "limit=٣"):
        assert (await port.ask("/v1/units?" + quote(query, safe="=")))[0] == 400


async def test_a_parked_unit_is_retried_and_resolved(port: Port, units: Units) -> None:
    units.hold(ODD_ID, "parked")
    path = "/v1/units/" + quote(ODD_ID, safe="")
    status, body = await port.ask(path + "/retry", "POST")
    assert (status, body["status"]) == (200, "compensating")
    resolve = {"as": "compensated", "reason": "by hand"}
    assert (await port.ask(path + "/resolve", "POST", json=resolve))[1]["status"] == "compensated"
    assert (await port.ask(path + "/cancel", "POST", json={"reason": "enough"}))[0] == 202
    assert units.done == [
        ("retry", ODD_ID, None),
        ("resolve", ODD_ID, "by hand"),
        ("cancel", ODD_ID, "enough"),
    ]


@pytest.mark.parametrize(
    ("path", "options", "expected"),
    [
        ("absent/retry", {}, 404),
        ("c/retry", {}, 409),
        ("p/resolve", {}, 400),
        ("p/resolve", {"json": {"as": "committed", "reason": "x"}}, 400),
        ("p/resolve", {"json": {"as": "compensated"}}, 400),
        ("p/retry", {"data": b"[1]"}, 400),
        ("p/retry", {"data": b"{"}, 400),
        ("p/retry", {"json": {"reason": 5}}, 400),
        ("p/retry", {"data": b"x" * 70_000}, 413),
        ("p/erase", {}, 404),
        ("p/retry", {"headers": {"Origin": "http://evil.example"}}, 403),
    ],
)
async def test_what_may_not_be_done_is_refused(
    port: Port, units: Units, path: str, options: dict[str, Any], expected: int
) -> None:
    units.hold("p", "parked")
    units.hold("c", "committed")
    assert (await port.ask("/v1/units/" + path, "POST", **options))[0] == expected
    assert units.done == []


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        (None, False),
        ("", False),
    ],
)
def test_only_this_machine_counts_as_loopback(remote: str | None, expected: bool) -> None:
    assert is_loopback(remote) == expected


async def test_a_journal_that_is_away_is_said_without_secrets(port: Port, units: Units) -> None:
    units.away = True
    status, body = await port.ask("/v1/units/u")
    assert (status, body["error"]["code"]) == (503, "unavailable")
    assert SECRET not in str(body)


async def test_before_the_journal_is_there_units_are_unavailable(port: Port) -> None:
    port.server.units = None
    assert (await port.ask("/v1/units/u"))[0] == 503


async def test_our_own_fault_is_an_answer_too(port: Port, units: Units) -> None:
    units.views["u"] = {}
    status, body = await port.ask("/v1/units/u")
    assert (status, body["error"]["code"]) == (500, "internal")


async def test_other_paths_and_methods(port: Port) -> None:
    assert (await port.ask("/"))[0] == 404
    assert (await port.ask("/livez", "POST"))[0] == 405


async def test_metrics_show_what_was_counted(health: Health) -> None:
    metrics = Metrics()
    server = HttpServer("127.0.0.1:0", health, metrics)
    metrics.finished("committed", [0.001, 0.03, 400.0])
    metrics.units_refused.labels("not_found").inc(2)
    metrics.dependency_changed("catalog", False)
    await server.start()
    async with aiohttp.ClientSession() as session:
        _, text = await Port(server, session).ask("/metrics")
    await server.close()
    for line in (
        'coordinator_units_finished_total{status="committed"} 3.0',
        'coordinator_unit_duration_seconds_bucket{le="0.002",status="committed"} 1.0',
        'coordinator_unit_duration_seconds_bucket{le="300.0",status="committed"} 2.0',
        'coordinator_unit_duration_seconds_bucket{le="+Inf",status="committed"} 3.0',
        'coordinator_unit_duration_seconds_count{status="committed"} 3.0',
        'coordinator_units_refused_total{code="not_found"} 2.0',
        'coordinator_dependency_up{name="catalog"} 0.0',
    ):
        assert line in text.splitlines()


async def test_a_taken_address_is_a_mistake_in_the_configuration(port: Port) -> None:
    taken = HttpServer(f"127.0.0.1:{port.server.port}", Health(), Metrics())
    with pytest.raises(ConfigurationInvalid, match=r"http\.listen"):
        await taken.start()


def test_every_metric_is_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/http.md").read_text()
    names = [family.name for family in Metrics().registry.collect()]
    ours = [name.removeprefix("coordinator_") for name in names if name.startswith("coordinator_")]
    assert len(ours) > 20
    assert [name for name in ours if f"`{name}" not in page] == []
