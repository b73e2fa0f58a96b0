"""The one module that names MongoDB's client classes, and hides how the two of them differ.

Motor and PyMongo's own async client speak the same commands; a few of their methods are plain in
the one and coroutines in the other. What the rest of the package sees is `Driver` and `Session`:
commands as documents, replies as documents. Commands cost less Python per write than the bulk
API, and each can carry its own ``maxTimeMS``, which a Motor call cannot be given otherwise.

Owns the settings that durability rests on: majority and journal, primary only, every wait bounded
inside the driver. Refuses to translate errors (see `errors`) and to retry.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

import pymongo
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from coordinator.domain.errors import ConfigurationInvalid
from coordinator.participants.mongodb.elements import EXACT

Command: TypeAlias = dict[str, Any]

MAJORITY: Final[Mapping[str, Any]] = {"w": "majority", "j": True}
"""The write concern of commands outside transactions, without its time limit."""

_POOL_SIZE_MAX: Final = 50
_GRACE_SECONDS: Final = 2.0
"""How much longer the driver waits for an answer than the server may take for a statement."""

_RAW: Final[CodecOptions[RawBSONDocument]] = CodecOptions(document_class=RawBSONDocument)


class Session(Protocol):
    """A server session: one transaction at a time, and an id by which it can be killed."""

    @property
    def id(self) -> Mapping[str, Any]:
        """The session id, as ``killSessions`` takes it."""

    async def start(self, commit_time_ms: int) -> None:
        """Begin a transaction: snapshot, majority, journal; nothing is sent yet."""

    async def commit(self) -> None:
        """Commit, or commit again after a lost answer."""

    async def abort(self) -> None:
        """Abort; errors of the server are swallowed by the driver."""

    async def end(self) -> None:
        """Give the session back."""


class Driver(Protocol):
    """What the participant needs of a client, on one database."""

    async def start_session(self) -> Session:
        """Make a session; nothing is sent."""

    async def run(self, command: Command, session: Session | None = None) -> Mapping[str, Any]:
        """Run a command; return its reply, decoded as `elements.EXACT` does."""

    async def find(self, command: Command, session: Session | None = None) -> list[bytes]:
        """Run a ``find`` to its end; return the documents as they are stored."""

    async def run_on_admin(self, command: Command) -> Mapping[str, Any]:
        """Run a command on the database ``admin``."""

    async def list_collections(self) -> list[Mapping[str, Any]]:
        """Give the documents of ``listCollections``."""

    async def close(self) -> None:
        """Close all connections."""


def open_driver(
    uri: str,
    database: str,
    driver: str = "motor",
    *,
    statement_timeout_seconds: float = 5.0,
    selection_timeout_seconds: float = 5.0,
) -> Driver:
    """Make a driver; it connects at its first use, so the server may be away.

    ``driver`` is ``"motor"`` or ``"pymongo"``. ``selection_timeout_seconds`` bounds each wait for
    a primary, for a connection of the pool, and for connecting. Raises `ConfigurationInvalid` when
    the URI cannot be used; its text is not quoted, because it may hold a password (F39).
    """
    if driver not in ("motor", "pymongo"):
        raise ConfigurationInvalid([f'the driver {driver!r} is neither "motor" nor "pymongo"'])
    options = _options(statement_timeout_seconds, selection_timeout_seconds)
    try:
        client: Any = (
            AsyncIOMotorClient(uri, **options)
            if driver == "motor"
            else pymongo.AsyncMongoClient(uri, **options)
        )
        return _ClientDriver(client, database)
    except (PyMongoError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationInvalid(
            [f"the MongoDB URI or the database name cannot be used ({type(error).__name__})"]
        ) from None


def _options(statement_timeout_seconds: float, selection_timeout_seconds: float) -> dict[str, Any]:
    answer_timeout_seconds = statement_timeout_seconds + _GRACE_SECONDS
    selection_timeout_ms = int(selection_timeout_seconds * 1000)
    return {
        "w": "majority",
        "journal": True,
        "readConcernLevel": "majority",
        "readPreference": "primary",
        "retryWrites": True,
        "retryReads": True,
        "serverSelectionTimeoutMS": selection_timeout_ms,
        "connectTimeoutMS": selection_timeout_ms,
        "socketTimeoutMS": int(answer_timeout_seconds * 1000),
        "waitQueueTimeoutMS": selection_timeout_ms,
        "maxPoolSize": _POOL_SIZE_MAX,
        # A server's zlib has leaked memory to clients; nothing here is worth compressing.
        "compressors": [],
        "tz_aware": True,
        "uuidRepresentation": "unspecified",
        "datetime_conversion": "DATETIME_MS",
        "appname": "coordinator",
    }


async def _settled(result: Any) -> Any:
    """Await what is a coroutine in one of the two clients and a plain call in the other."""
    return await result if inspect.isawaitable(result) else result


class _ClientSession:
    def __init__(self, session: Any) -> None:
        self.inner = session

    @property
    def id(self) -> Mapping[str, Any]:
        session_id: Mapping[str, Any] = self.inner.session_id
        return dict(session_id)

    async def start(self, commit_time_ms: int) -> None:
        started = self.inner.start_transaction(
            read_concern=ReadConcern("snapshot"),
            write_concern=WriteConcern("majority", j=True),
            read_preference=ReadPreference.PRIMARY,
            max_commit_time_ms=commit_time_ms,
        )
        if inspect.iscoroutine(started):
            await started

    async def commit(self) -> None:
        await self.inner.commit_transaction()

    async def abort(self) -> None:
        await self.inner.abort_transaction()

    async def end(self) -> None:
        await self.inner.end_session()


class _ClientDriver:
    def __init__(self, client: Any, database: str) -> None:
        self._client = client
        self._database = client[database]
        self._admin = client["admin"]

    async def start_session(self) -> Session:
        return _ClientSession(await _settled(self._client.start_session()))

    async def run(self, command: Command, session: Session | None = None) -> Mapping[str, Any]:
        reply: Mapping[str, Any] = await self._database.command(
            command, codec_options=EXACT, session=_inner(session)
        )
        return reply

    async def find(self, command: Command, session: Session | None = None) -> list[bytes]:
        inner = _inner(session)
        # Several cursors' worth of documents may come in one reply, up to 16 MB.
        reply = await self._database.command(
            {**command, "batchSize": _BATCH_SIZE}, codec_options=_RAW, session=inner
        )
        cursor = reply["cursor"]
        found = _raw(cursor["firstBatch"])
        while cursor["id"]:
            more = {
                "getMore": cursor["id"],
                "collection": command["find"],
                "batchSize": _BATCH_SIZE,
            }
            reply = await self._database.command(more, codec_options=_RAW, session=inner)
            cursor = reply["cursor"]
            found += _raw(cursor["nextBatch"])
        return found

    async def run_on_admin(self, command: Command) -> Mapping[str, Any]:
        reply: Mapping[str, Any] = await self._admin.command(command, codec_options=EXACT)
        return reply

    async def list_collections(self) -> list[Mapping[str, Any]]:
        cursor = await _settled(self._database.list_collections())
        return [each async for each in cursor]

    async def close(self) -> None:
        await _settled(self._client.close())


_BATCH_SIZE: Final = 100_000
"""A reply ends at 16 MB anyway."""


def _inner(session: Session | None) -> Any:
    return session.inner if isinstance(session, _ClientSession) else None


def _raw(documents: Sequence[RawBSONDocument]) -> list[bytes]:
    return [bytes(document.raw) for document in documents]
