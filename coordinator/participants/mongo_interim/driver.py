"""The MongoDB driver: the one module that knows motor from PyMongo's asynchronous API.

The two differ in what must be awaited, and in nothing else that we use. Time-outs are the
client's own (``timeoutMS``), because a call that is cancelled from outside goes on in motor's
thread. Compression stays off: a decompression fault of a server has been an attack before.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

import pymongo
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict,
    tz_aware=True,
    tzinfo=UTC,
    # UUIDs stay Binary of their subtype, and a date outside of Python's years is kept as a number.
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
"""How documents are decoded: nothing is changed by decoding and encoding again."""

_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
_MAJORITY = WriteConcern(w="majority", j=True)


async def _settled(result: Any) -> Any:
    """Await what only one of the two drivers gives as an awaitable."""
    return await result if inspect.isawaitable(result) else result


class Session:
    """One long-lived server session: one transaction after the other."""

    def __init__(self, session: Any) -> None:
        self.inner = session

    @property
    def lsid(self) -> Any:
        """The session's id at the server, for ``killSessions``."""
        return self.inner.session_id["id"]

    async def begin(self) -> None:
        """Start a transaction: snapshot reads, majority writes, journaled."""
        await _settled(
            self.inner.start_transaction(
                read_concern=ReadConcern("snapshot"),
                write_concern=_MAJORITY,
                read_preference=ReadPreference.PRIMARY,
            )
        )

    async def commit(self) -> None:
        """Send commitTransaction; may be sent again for the same transaction."""
        await self.inner.commit_transaction()

    async def abort(self) -> None:
        """Send abortTransaction, if a transaction is open."""
        if self.inner.in_transaction:
            await self.inner.abort_transaction()

    async def end(self) -> None:
        """Give the session back."""
        await self.inner.end_session()


class Driver:
    """A client of one database."""

    def __init__(self, client: Any, database: str) -> None:
        self._client = client
        self._database = client.get_database(
            database,
            codec_options=CODEC,
            read_concern=ReadConcern("majority"),
            write_concern=_MAJORITY,
            read_preference=ReadPreference.PRIMARY,
        )

    async def start_session(self) -> Session:
        """Start a session; it opens no connection by itself."""
        return Session(await _settled(self._client.start_session(causal_consistency=False)))

    async def find_raw(
        self, collection: str, keys: Sequence[Any], session: Session | None = None
    ) -> list[bytes]:
        """Read the documents of these ``_id``s, as bytes."""
        cursor = self._database.get_collection(collection, codec_options=_RAW).find(
            {"_id": {"$in": list(keys)}}, session=None if session is None else session.inner
        )
        return [document.raw for document in await cursor.to_list(None)]

    async def bulk_write(
        self, collection: str, writes: Sequence[Any], session: Session
    ) -> pymongo.results.BulkWriteResult:
        """Write in order, stopping at the first error."""
        result: pymongo.results.BulkWriteResult = await self._database[collection].bulk_write(
            list(writes), ordered=True, session=session.inner
        )
        return result

    async def delete_many(
        self, collection: str, query: Mapping[str, Any], session: Session
    ) -> None:
        """Delete what matches."""
        await self._database[collection].delete_many(query, session=session.inner)

    async def update_one(
        self,
        collection: str,
        query: Mapping[str, Any],
        update: Mapping[str, Any],
        *,
        upsert: bool = False,
        session: Session | None = None,
    ) -> int:
        """Update one document; how many matched or were made."""
        result = await self._database[collection].update_one(
            query, update, upsert=upsert, session=None if session is None else session.inner
        )
        return int(result.matched_count) + (0 if result.upserted_id is None else 1)

    async def find_by(self, collection: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Read bookkeeping documents."""
        found: list[dict[str, Any]] = await self._database[collection].find(query).to_list(None)
        return found

    async def command(self, name: str, value: Any = 1, *, admin: bool = False) -> dict[str, Any]:
        """Run a database command."""
        database = self._client.get_database("admin") if admin else self._database
        reply: dict[str, Any] = await database.command(name, value)
        return reply

    async def collections(self) -> frozenset[str]:
        """The names of the database's collections."""
        return frozenset(await self._database.list_collection_names())

    async def create_collection(self, name: str) -> None:
        """Make a collection; one that is there already is fine."""
        try:
            await self._database.create_collection(name)
        except pymongo.errors.CollectionInvalid:
            return
        except pymongo.errors.OperationFailure as error:
            if error.code != 48:  # NamespaceExists
                raise

    async def close(self) -> None:
        """Let the connections go."""
        await _settled(self._client.close())


def open_driver(
    uri: str,
    database: str,
    driver: str = "motor",
    *,
    timeout_seconds: float = 5.0,
    application_name: str = "coordinator",
) -> Driver:
    """Open a client of the named driver; nothing connects yet."""
    options: dict[str, Any] = {
        "appname": application_name,
        "timeoutMS": round(timeout_seconds * 1000),
        "serverSelectionTimeoutMS": round(timeout_seconds * 1000),
        "retryWrites": True,
        "retryReads": True,
        "maxPoolSize": 50,

    }
    if driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorClient

        return Driver(AsyncIOMotorClient(uri, **options), database)
    return Driver(pymongo.AsyncMongoClient(uri, **options), database)


class MongodbServerView:
    """What the mapping check asks of a server; implements `coordinator.mapping.MongodbServer`."""

    def __init__(self, driver: Driver, store: str) -> None:
        self._driver = driver
        self._store = store

    async def hello(self) -> dict[str, Any]:
        from coordinator.participants.mongo_interim.faults import DRIVER_ERRORS, translate

        try:
            return await self._driver.command("hello")
        except DRIVER_ERRORS as error:
            raise translate(self._store, error) from error

    async def list_collections(self) -> list[dict[str, Any]]:
        from coordinator.participants.mongo_interim.faults import DRIVER_ERRORS, translate

        try:
            cursor = await _settled(self._driver._database.list_collections())
            return [each async for each in cursor]
        except DRIVER_ERRORS as error:
            raise translate(self._store, error) from error
