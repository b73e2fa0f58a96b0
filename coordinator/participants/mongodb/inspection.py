"""What ``coordinator verify`` reads of our bookkeeping in a MongoDB store; nothing is locked.

Majority reads at the primary: what a failover could take back is not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import bson

from coordinator.domain.discrepancies import FenceFacts, RecordFacts
from coordinator.engine.verification import Place
from coordinator.participants.mongodb.bookkeeping import FENCES, UNDO
from coordinator.participants.mongodb.driver import Driver
from coordinator.participants.mongodb.elements import EXACT
from coordinator.participants.mongodb.errors import DRIVER_ERRORS, translate
from coordinator.participants.mongodb.undo_record import record_id

_TIMEOUT_MS: Final = 5_000
_RECORD: Final = {"_id": 1, "unit": 1, "digest": 1, "state": 1}
_FENCE: Final = {"_id": 1, "worker": 1, "lane": 1, "fenced": 1}


class MongodbReader:
    """One journal's bookkeeping in one database."""

    def __init__(self, driver: Driver, store: str, journal_id: str) -> None:
        self._driver = driver
        self._store = store
        self._journal_id = journal_id

    @property
    def store(self) -> str:
        """The store's name in the configuration."""
        return self._store

    async def records(
        self, after: Place | None, limit: int
    ) -> tuple[Sequence[RecordFacts], Place | None]:
        """Read a page of undo records and tombstones, by their ``_id``."""
        first = record_id(self._journal_id, "") if after is None else after[0]
        # All ids of this journal, and no other's: "0" is what comes after "/".
        found = await self._find(
            UNDO,
            {"_id": {"$gt": first, "$lt": f"{self._journal_id}0"}},
            _RECORD,
            {"sort": {"_id": 1}, "limit": limit},
        )
        last = (found[-1]["_id"],) if len(found) == limit else None
        return [_record(each) for each in found], last

    async def records_of(self, ids: Collection[str]) -> Mapping[str, RecordFacts]:
        """Read the records of these units."""
        wanted = [record_id(self._journal_id, each) for each in ids]
        found = await self._find(UNDO, {"_id": {"$in": wanted}}, _RECORD, {})
        return {each["unit"]: _record(each) for each in found}

    async def fences(self) -> Sequence[FenceFacts]:
        """Read the fences of the journal's workers here."""
        found = await self._find(FENCES, {"journal": self._journal_id}, _FENCE, {})
        return [
            FenceFacts(int(each["worker"]), int(each["lane"]), each.get("fenced") is True)
            for each in found
        ]

    async def _find(
        self,
        collection: str,
        condition: Mapping[str, Any],
        projection: Mapping[str, Any],
        more: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        command = {
            "find": collection,
            "filter": condition,
            "projection": projection,
            "readConcern": {"level": "majority"},
            "maxTimeMS": _TIMEOUT_MS,
            **more,
        }
        try:
            return [bson.decode(raw, EXACT) for raw in await self._driver.find(command)]
        except DRIVER_ERRORS as error:
            raise translate(self._store, error) from error


def _record(document: Mapping[str, Any]) -> RecordFacts:
    return RecordFacts(document["unit"], document["digest"], document["state"])
