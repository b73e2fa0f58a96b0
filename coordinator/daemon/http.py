"""The HTTP port: health, metrics, and units for whoever asks or operates.

Owns the routes and their shapes. On loopback unless configured otherwise; what changes a unit is
taken from loopback only, and never from a browser's page. It starts before any server is reached,
so that ``/livez`` and ``/readyz`` answer while the daemon waits (F35).
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import unquote

import orjson
from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from coordinator.daemon.health import Health
from coordinator.daemon.metrics import Metrics
from coordinator.domain.errors import ConfigurationInvalid, StoreError
from coordinator.domain.lifecycle import Status
from coordinator.engine.units_api import ActionRefused, UnitsApi, UnitUnknown, UnitView
from coordinator.log_events import LogEvent
from coordinator.logs import get_log

log = get_log()

UNITS_PATH: Final = "/v1/units"
LIST_LIMIT_DEFAULT: Final = 100
LIST_LIMIT_MAX: Final = 1000
BODY_BYTES_MAX: Final = 65_536
REASON_CHARACTERS_MAX: Final = 1000
_CLOSE_SECONDS: Final = 1.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpServer:
    """The daemon's HTTP port. ``units`` may be set later, once the journal is there."""

    def __init__(
        self,
        listen: str,
        health: Health,
        metrics: Metrics,
        *,
        redact: Callable[[str], str] = str,
    ) -> None:
        """``listen`` is ``host:port``; port 0 takes a free one."""
        self._listen = listen
        self._health = health
        self._metrics = metrics
        self._redact = redact
        self._runner: web.AppRunner | None = None
        self.units: UnitsApi | None = None
        self.port = 0

    async def start(self) -> None:
        """Bind and serve. Raises `ConfigurationInvalid` when the address cannot be taken."""
        host, _, port = self._listen.rpartition(":")
        app = web.Application(middlewares=[self._answer_faults], client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get(UNITS_PATH, self._list_units)
        # The id is taken from the raw path below: it may hold an encoded slash.
        app.router.add_get(UNITS_PATH + "/{id:.+}", self._show_unit)
        app.router.add_post(UNITS_PATH + "/{id:.+}", self._change_unit)
        logging.getLogger("aiohttp.access").disabled = True
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host.strip("[]") or None, int(port))
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigurationInvalid(
                [f"http.listen: cannot listen on {self._listen}: {error.strerror or error}"]
            ) from error
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop serving, in bounded time."""
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _answer_faults(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return self._fault(error.status, error.reason.lower().replace(" ", "_"), error.reason)
        except UnitUnknown as error:
            return self._fault(404, "not_found", str(error))
        except ActionRefused as error:
            return self._fault(409, "refused", str(error))
        except StoreError as error:
            return self._fault(503, "unavailable", str(error))
        except Exception as error:
            log.error(
                LogEvent.HTTP_FAILED, "A request failed.", path=request.path[:200], error=error
            )
            return self._fault(500, "internal", "The request failed; the log has the reason.")

    def _fault(self, status: int, code: str, message: str) -> web.Response:
        return _json({"error": {"code": code, "message": self._redact(message)}}, status)

    async def _livez(self, _request: web.Request) -> web.Response:
        body = self._health.liveness()
        return _json(body, 200 if body["alive"] else 503)

    async def _readyz(self, _request: web.Request) -> web.Response:
        body = self._health.readiness()
        return _json(body, 200 if body["ready"] else 503)

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        self._metrics.event_loop_lag.set(self._health.loop_lag_seconds)
        text = generate_latest(self._metrics.registry)
        return web.Response(body=text, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _list_units(self, request: web.Request) -> web.Response:
        status = request.query.get("status")
        if status is not None and status not in set(Status):
            return self._fault(400, "invalid", f"status must be one of: {', '.join(Status)}.")
        limit = request.query.get("limit", str(LIST_LIMIT_DEFAULT))
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= LIST_LIMIT_MAX):
            return self._fault(400, "invalid", f"limit must be from 1 to {LIST_LIMIT_MAX}.")
        views = await self._api().list(status, int(limit))
        return _json({"units": [dict(view) for view in views]})

    async def _show_unit(self, request: web.Request) -> web.Response:
        unit_id = unquote(_raw_tail(request))
        view = await self._api().show(unit_id) if is_unit_id(unit_id) else None
        if view is None:
            raise UnitUnknown(unit_id)
        return _json(_as_promised(view))

    async def _change_unit(self, request: web.Request) -> web.Response:
        if not is_loopback(request.remote) or "Origin" in request.headers:
            return self._fault(403, "forbidden", "Units are changed from this machine only.")
        raw_id, _, action = _raw_tail(request).rpartition("/")
        unit_id = unquote(raw_id)
        if action not in ("retry", "resolve", "cancel"):
            return self._fault(404, "not_found", "There is retry, resolve and cancel.")
        if not is_unit_id(unit_id):
            raise UnitUnknown(unit_id)
        body = await _read_object(request)
        reason = body.get("reason")
        if reason is not None and not (
            isinstance(reason, str) and 0 < len(reason) <= REASON_CHARACTERS_MAX
        ):
            return self._fault(400, "invalid", "reason must be a string of 1 to 1000 characters.")
        if action == "resolve" and (body.get("as") != Status.COMPENSATED or reason is None):
            return self._fault(400, "invalid", 'resolve takes {"as": "compensated", "reason": …}.')
        view = await self._do(action, unit_id, reason)
        log.warning(
            LogEvent.OPERATOR_ACTION,
            "A person has changed a unit over HTTP.",
            unit=unit_id,
            action=action,
            reason=reason,
        )
        return _json(_as_promised(view), 202 if action == "cancel" else 200)

    async def _do(self, action: str, unit_id: str, reason: str | None) -> UnitView:
        api = self._api()
        match action:
            case "retry":
                return await api.retry(unit_id, reason)
            case "cancel":
                return await api.cancel(unit_id, reason)
            case _:
                return await api.resolve(unit_id, Status.COMPENSATED, reason or "")

    def _api(self) -> UnitsApi:
        if self.units is None:
            raise StoreError("journal", "The daemon is starting; the journal is not there yet.")
        return self.units


def is_unit_id(text: str) -> bool:
    """Whether ``text`` can be a unit's id: 1 to 128 characters of 0x21 to 0x7E (F1)."""
    return 1 <= len(text) <= 128 and all("!" <= character <= "~" for character in text)


def _raw_tail(request: web.Request) -> str:
    """Give what follows ``/v1/units/`` as it was sent, so that ``%2F`` is told from ``/``."""
    path = request.raw_path.partition("?")[0]
    return path.partition(UNITS_PATH + "/")[2]


def _as_promised(view: UnitView) -> dict[str, Any]:
    """Give the three members of F38."""
    return {"unit": view["unit"], "status": view["status"], "outcome": view.get("outcome")}


def is_loopback(remote: str | None) -> bool:
    """Whether a peer's address is of this machine; a proxy's word on whom it serves is not read."""
    try:
        address = ipaddress.ip_address(remote or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


async def _read_object(request: web.Request) -> dict[str, Any]:
    raw = await request.read()
    if not raw.strip():
        return {}
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(reason="The body must be a JSON object")
    return body


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(body, default=str, option=orjson.OPT_APPEND_NEWLINE),
        status=status,
        content_type="application/json",
    )
