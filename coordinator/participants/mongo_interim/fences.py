"""The fences of this store: who may still write as which worker (rule 3).

One document per worker and lane. Every transaction of a worker writes its lane's document first,
and only where it is not fenced; a takeover ends the worker's sessions and then marks all its
lanes. So a transaction that is still open loses, and a later one matches nothing. Lanes that were
never made are marked too: a worker that enrols late finds itself fenced.
"""

from __future__ import annotations

import time

from pymongo.errors import PyMongoError

from coordinator.domain.errors import Fenced, StoreUnavailable
from coordinator.participants.mongo_interim.driver import Driver, Session
from coordinator.participants.mongo_interim.faults import DRIVER_ERRORS, translate

FENCES = "_coordinator_fences"
LANES_MAX = 16
"""Lanes of the engine, and one for the sweep."""

_FENCE_SECONDS_MAX = 20.0


class Fences:
    """The fences of one journal's workers at one store."""

    def __init__(self, driver: Driver, store: str, journal_id: str) -> None:
        self._driver = driver
        self._store = store
        self._journal = journal_id

    def _id(self, worker: int, lane: int) -> str:
        return f"{self._journal}/{worker}/{lane}"

    async def enrol(self, worker: int, lane: int, session: Session) -> None:
        """Make the fence of a lane, with its session's id; `Fenced` if it is fenced already."""
        try:
            matched = await self._driver.update_one(
                FENCES,
                {"_id": self._id(worker, lane), "fenced": {"$ne": True}},
                {
                    "$set": {"fenced": False, "lsid": session.lsid},
                    "$setOnInsert": {"journal": self._journal, "worker": worker, "lane": lane},
                },
                upsert=True,
            )
        except PyMongoError as error:
            if getattr(error, "code", None) == 11000:
                raise Fenced(f"this worker is fenced at {self._store}") from error
            raise translate(self._store, error) from error
        if not matched:
            raise Fenced(f"this worker is fenced at {self._store}")

    async def write(self, worker: int, lane: int, session: Session) -> None:
        """Write the lane's fence inside its transaction; raise `Fenced` where it does not match."""
        matched = await self._driver.update_one(
            FENCES,
            {"_id": self._id(worker, lane), "fenced": {"$ne": True}},
            {"$inc": {"n": 1}},
            session=session,
        )
        if not matched:
            raise Fenced(f"this worker is fenced at {self._store}")

    async def fence(self, worker: int) -> None:
        """End the worker's sessions and mark its lanes; on return nothing of it can commit."""
        until = time.monotonic() + _FENCE_SECONDS_MAX
        while True:
            try:
                await self._end_sessions(worker)
                for lane in range(LANES_MAX):
                    await self._mark(worker, lane)
            except DRIVER_ERRORS as error:
                failure = translate(self._store, error)
                if isinstance(failure, StoreUnavailable) or time.monotonic() > until:
                    raise StoreUnavailable(self._store, failure.message) from error
                continue
            return

    async def _end_sessions(self, worker: int) -> None:
        found = await self._driver.find_by(
            FENCES, {"journal": self._journal, "worker": worker, "fenced": {"$ne": True}}
        )
        sessions = [{"id": each["lsid"]} for each in found if each.get("lsid") is not None]
        if sessions:
            await self._driver.command("killSessions", sessions, admin=True)

    async def _mark(self, worker: int, lane: int) -> None:
        await self._driver.update_one(
            FENCES,
            {"_id": self._id(worker, lane)},
            {
                "$set": {"fenced": True},
                "$setOnInsert": {"journal": self._journal, "worker": worker, "lane": lane},
            },
            upsert=True,
        )
