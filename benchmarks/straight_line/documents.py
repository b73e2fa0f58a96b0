"""What the straight line writes to MongoDB: one transaction for a batch.

By PyMongo's blocking client in threads of our own: a batch takes one hop to a thread and back,
where an asynchronous client takes one per command.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import bson
import pymongo
from bson import Decimal128, Int64
from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from benchmarks.dataset import WALLETS
from benchmarks.straight_line.units import Batch, Image, Unit

_UNDO: Final = "straight_undo"
_RAW: Final = bson.CodecOptions(document_class=RawBSONDocument)


class Documents:
    """The wallets, and an undo record per unit beside them."""

    def __init__(self, uri: str, database: str) -> None:
        self._client = pymongo.MongoClient[dict[str, Any]](
            uri, w="majority", journal=True, readConcernLevel="majority"
        )
        self._database = self._client[database]
        self._session: ClientSession = self._client.start_session()

    def prepare(self) -> None:
        """Make the collection of undo records."""
        self._database.create_collection(_UNDO)

    def load(self, units: Batch) -> None:
        """Read the wallets, and work out what they will be."""
        reply = self._database.command(
            {
                "find": WALLETS,
                "filter": {"_id": {"$in": [unit.wallet for unit in units]}},
                "batchSize": len(units) + 1,
            },
            codec_options=_RAW,
        )
        found: dict[int, bytes] = {}
        wallets: dict[int, dict[str, Any]] = {}
        for each in reply["cursor"]["firstBatch"]:
            wallet = bson.decode(each.raw)
            found[wallet["_id"]] = each.raw
            wallets[wallet["_id"]] = wallet
        for unit in units:
            wallet = wallets[unit.wallet]
            version = int(wallet["version"])
            balance = wallet["balance"].to_decimal()
            unit.wallet_raw = found[unit.wallet]
            unit.wallet_before = Image(str(balance), version)
            unit.wallet_after = Image(str(balance + Decimal(unit.amount)), version + 1)

    def apply(self, units: Batch) -> None:
        """Write the wallets and the undo records; durable on return."""
        session = self._session
        session.start_transaction(
            read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority", j=True)
        )
        try:
            reply = self._database.command(
                {"update": WALLETS, "updates": [_update(unit) for unit in units]}, session=session
            )
            if reply["nModified"] != len(units):
                raise RuntimeError(f"{reply['nModified']} of {len(units)} wallets were written")
            self._database.command(
                {"insert": _UNDO, "documents": [_undo_record(unit) for unit in units]},
                session=session,
            )
        except BaseException:
            session.abort_transaction()
            raise
        session.commit_transaction()

    def close(self) -> None:
        """Disconnect."""
        self._session.end_session()
        self._client.close()


def _update(unit: Unit) -> dict[str, Any]:
    after = unit.wallet_after
    values = {"balance": Decimal128(after.balance), "version": Int64(after.version)}
    return {"q": {"_id": unit.wallet}, "u": {"$set": values}}


def _undo_record(unit: Unit) -> dict[str, Any]:
    return {
        "_id": unit.id,
        "format": 1,
        "digest": unit.digest,
        "state": "applied",
        "created_at": unit.received_at,
        "key": unit.wallet,
        "collection": WALLETS,
        "before": RawBSONDocument(unit.wallet_raw),
        "written": ["balance", "version"],
        "deltas": {"balance": unit.amount},
        "version": Int64(unit.wallet_after.version),
    }
