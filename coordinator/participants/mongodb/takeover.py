"""Fencing another worker: after it, no transaction of that worker can commit here (I9, rule 5).

Two writes and a kill, repeated until they win. The worker's document is written first, so that an
enrolment on its way either has made all lanes that we are about to find, or fails. A transaction
that has passed its fence holds the lane's document; killing its session ends that at once, and its
commit is refused. Without the right to kill other users' sessions we wait: the server itself ends
a transaction after a minute.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import bson

from coordinator.domain.errors import BatchRefused, StoreBusy, StoreUnavailable
from coordinator.participants.mongodb.bookkeeping import FENCES
from coordinator.participants.mongodb.driver import MAJORITY, Command, Driver
from coordinator.participants.mongodb.elements import EXACT
from coordinator.participants.mongodb.errors import (
    DRIVER_ERRORS,
    DUPLICATE_KEY,
    of_reply,
    translate,
)
from coordinator.participants.mongodb.transactions import WORKER_LANE, fence_id

_FENCE_TIMEOUT_SECONDS: Final = 75.0
_STATEMENT_TIMEOUT_MS: Final = 1_000
_CONCERN: Final = {**MAJORITY, "wtimeout": 5_000}


class Takeover:
    """Fences workers of one journal in one database."""

    def __init__(self, driver: Driver, store: str, journal_id: str) -> None:
        self._driver = driver
        self._store = store
        self._journal_id = journal_id

    async def fence(self, worker: int) -> None:
        """Fence a worker. Idempotent.

        Raises `StoreUnavailable` when the store is away, or when a transaction of the worker held
        out for longer than a server lets it; then nothing is sure, and it is to be called again.
        """
        ends_at = time.monotonic() + _FENCE_TIMEOUT_SECONDS
        while time.monotonic() < ends_at:
            with suppress(StoreBusy):
                await self._fence_once(worker)
                return
        raise StoreUnavailable(
            self._store, f"worker {worker} still has an open transaction and cannot be fenced yet"
        )

    async def _fence_once(self, worker: int) -> None:
        await self._kill_sessions(worker)
        await self._run({"update": FENCES, "updates": [self._fence_worker(worker)]})
        await self._kill_sessions(worker)
        # Without a fence of its own no lane passes; the worker's stays, so that none comes back.
        lanes = {"journal": self._journal_id, "worker": worker, "lane": {"$gt": WORKER_LANE}}
        await self._run({"delete": FENCES, "deletes": [{"q": lanes, "limit": 0}]})

    def _fence_worker(self, worker: int) -> dict[str, Any]:
        identity = {"journal": self._journal_id, "worker": worker, "lane": WORKER_LANE}
        return {
            "q": {"_id": fence_id(self._journal_id, worker, WORKER_LANE)},
            "u": {"$set": {"fenced": True}, "$setOnInsert": identity},
            "upsert": True,
        }

    async def _kill_sessions(self, worker: int) -> None:
        where = {"journal": self._journal_id, "worker": worker}
        command = {
            "find": FENCES,
            "filter": where,
            "readConcern": {"level": "majority"},
            "maxTimeMS": _STATEMENT_TIMEOUT_MS,
        }
        try:
            fences = [bson.decode(raw, EXACT) for raw in await self._driver.find(command)]
        except DRIVER_ERRORS as error:
            raise translate(self._store, error) from error
        sessions = [each for fence in fences for each in fence.get("sessions", ())]
        if not sessions:
            return
        with suppress(BatchRefused):
            try:
                await self._driver.run_on_admin({"killSessions": sessions})
            except DRIVER_ERRORS as error:
                raise translate(self._store, error) from error

    async def _run(self, command: Command) -> Mapping[str, Any]:
        bounded = {**command, "writeConcern": _CONCERN, "maxTimeMS": _STATEMENT_TIMEOUT_MS}
        try:
            reply = await self._driver.run(bounded)
        except DRIVER_ERRORS as error:
            raise translate(self._store, error) from error
        errors = reply.get("writeErrors")
        if errors and errors[0].get("code") == DUPLICATE_KEY:
            raise StoreBusy(self._store, "the worker is being enrolled at the same time")
        if errors or reply.get("writeConcernError"):
            raise of_reply(self._store, reply)
        return reply
