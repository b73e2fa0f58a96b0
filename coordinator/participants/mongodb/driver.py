"""The one module that names MongoDB's client classes, and hides how the two of them differ.

Motor and PyMongo's own async client speak the same commands; a few of their methods are plain in
the one and coroutines in the other. What the rest of the package sees is `Driver` and `Session`:
commands as documents, replies as documents. Commands cost less Python per write than the bulk
API, and each can carry its own ``maxTimeMS``, which a Motor call cannot be given otherwise.

Commands of one transaction that need no decision between them go to the driver together, as
`Step` after `Step`. With Motor, which does its work in threads, that is one change of threads for
all of them, and each costs as much as a command; with PyMongo it is merely as good.

Owns the settings that durability rests on: majority and journal, primary only, every wait bounded
inside the driver. Refuses to translate errors (see `errors`) and to retry.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

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
from coordinator.participants.mongodb.errors import DRIVER_ERRORS

Command: TypeAlias = dict[str, Any]

MAJORITY: Final[Mapping[str, Any]] = {"w": "majority", "j": True}
"""The write concern of commands outside transactions, without its time limit."""

_POOL_SIZE_MAX: Final = 50
_GRACE_SECONDS: Final = 2.0
"""How much longer the driver waits for an answer than the server may take for a statement."""

_RAW: Final[CodecOptions[RawBSONDocument]] = CodecOptions(document_class=RawBSONDocument)


class FoundTooMuch(Exception):
    """What a ``find`` gives takes more memory than it may; a smaller batch will do."""


class Step(NamedTuple):
    """A command of a transaction, or (where ``prepare`` gives ``None``) only something to do.

    ``took`` gets the reply and raises to end the transaction there. ``failed`` gives our error for
    the driver's. All are called in a thread of the driver's, it may be: they touch nothing that
    anybody else touches meanwhile.
    """

    prepare: Callable[[], Command | None]
    took: Callable[[Mapping[str, Any]], None]
    failed: Callable[[Exception], Exception]


class Session(Protocol):
    """A server session: one transaction at a time, and an id by which it can be killed.

    ``steps`` come first, in their order; they raise our errors only.
    """

    @property
    def id(self) -> Mapping[str, Any]:
        """The session id, as ``killSessions`` takes it."""

    async def start(self, commit_time_ms: int) -> None:
        """Begin a transaction: snapshot, majority, journal; nothing is sent yet."""

    async def run(self, steps: Sequence[Step]) -> None:
        """Run steps."""

    async def find(
        self, steps: Sequence[Step], command: Callable[[], Command], bytes_max: int | None = None
    ) -> list[bytes]:
        """Run steps and a ``find`` to its end; return the documents as they are stored.

        Raises `FoundTooMuch` when they take more than ``bytes_max`` together.
        """

    async def commit(self, steps: Sequence[Step] = ()) -> None:
        """Run steps and commit; without any, commit, or commit again after a lost answer."""

    async def abort(self) -> None:
        """Abort; errors of the server are swallowed by the driver."""

    async def end(self) -> None:
        """Give the session back."""


class Driver(Protocol):
    """What the participant needs of a client, on one database."""

    async def start_session(self) -> Session:
        """Make a session; nothing is sent."""

    async def run(self, command: Command) -> Mapping[str, Any]:
        """Run a command; return its reply, decoded as `elements.EXACT` does."""

    async def find(self, command: Command, bytes_max: int | None = None) -> list[bytes]:
        """Run a ``find`` to its end; see `Session.find`."""

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
        if driver == "motor":
            return _MotorDriver(AsyncIOMotorClient(uri, **options), database)
        return _ClientDriver(pymongo.AsyncMongoClient(uri, **options), database)
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


class _ClientDriver:
    def __init__(self, client: Any, database: str) -> None:
        self._client = client
        self._name = database
        self._database = client[database]
        self._admin = client["admin"]

    async def start_session(self) -> Session:
        return _PymongoSession(await _settled(self._client.start_session()), self._database)

    async def run(self, command: Command) -> Mapping[str, Any]:
        reply: Mapping[str, Any] = await self._database.command(command, codec_options=EXACT)
        return reply

    async def find(self, command: Command, bytes_max: int | None = None) -> list[bytes]:
        return await _find(partial(self._database.command, codec_options=_RAW), command, bytes_max)

    async def run_on_admin(self, command: Command) -> Mapping[str, Any]:
        reply: Mapping[str, Any] = await self._admin.command(command, codec_options=EXACT)
        return reply

    async def list_collections(self) -> list[Mapping[str, Any]]:
        cursor = await _settled(self._database.list_collections())
        return [each async for each in cursor]

    async def close(self) -> None:
        await _settled(self._client.close())


class _MotorDriver(_ClientDriver):
    """Motor, with transactions on PyMongo's own client underneath it, in threads of ours."""

    def __init__(self, client: Any, database: str) -> None:
        super().__init__(client, database)
        self._threads = ThreadPoolExecutor(_POOL_SIZE_MAX, thread_name_prefix="mongodb")

    async def start_session(self) -> Session:
        session = await self._client.start_session()
        return _MotorSession(session, self._client.delegate[self._name], self._threads)

    async def close(self) -> None:
        await super().close()
        self._threads.shutdown(wait=False)


class _PymongoSession:
    def __init__(self, session: Any, database: Any) -> None:
        self._session = session
        self._run = partial(database.command, codec_options=EXACT, session=session)
        self._read = partial(database.command, codec_options=_RAW, session=session)

    @property
    def id(self) -> Mapping[str, Any]:
        session_id: Mapping[str, Any] = self._session.session_id
        return dict(session_id)

    async def start(self, commit_time_ms: int) -> None:
        await _settled(self._session.start_transaction(**_transaction_options(commit_time_ms)))

    async def run(self, steps: Sequence[Step]) -> None:
        for step in steps:
            command, reply = step.prepare(), _NO_REPLY
            try:
                if command is not None:
                    reply = await self._run(command)
            except DRIVER_ERRORS as error:
                raise step.failed(error) from error
            step.took(reply)

    async def find(
        self, steps: Sequence[Step], command: Callable[[], Command], bytes_max: int | None = None
    ) -> list[bytes]:
        await self.run(steps)
        return await _find(self._read, command(), bytes_max)

    async def commit(self, steps: Sequence[Step] = ()) -> None:
        await self.run(steps)
        await self._session.commit_transaction()

    async def abort(self) -> None:
        await self._session.abort_transaction()

    async def end(self) -> None:
        await self._session.end_session()


class _MotorSession(_PymongoSession):
    """The same in a thread, from the first step to the last in one go."""

    def __init__(self, session: Any, database: Any, threads: ThreadPoolExecutor) -> None:
        super().__init__(session, database)
        self._plain = session.delegate
        self._plain_run = partial(database.command, codec_options=EXACT, session=self._plain)
        self._plain_read = partial(database.command, codec_options=_RAW, session=self._plain)
        self._threads = threads

    async def run(self, steps: Sequence[Step]) -> None:
        await self._in_thread(self._run_steps, steps)

    async def find(
        self, steps: Sequence[Step], command: Callable[[], Command], bytes_max: int | None = None
    ) -> list[bytes]:
        def find() -> list[bytes]:
            self._run_steps(steps)
            return _find_plainly(self._plain_read, command(), bytes_max)

        found: list[bytes] = await self._in_thread(find)
        return found

    async def commit(self, steps: Sequence[Step] = ()) -> None:
        def commit() -> None:
            self._run_steps(steps)
            self._plain.commit_transaction()

        await self._in_thread(commit)

    def _run_steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            command, reply = step.prepare(), _NO_REPLY
            try:
                if command is not None:
                    reply = self._plain_run(command)
            except DRIVER_ERRORS as error:
                raise step.failed(error) from error
            step.took(reply)

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


_NO_REPLY: Final[Mapping[str, Any]] = {}
_BATCH_SIZE: Final = 100_000
"""Several cursors' worth of documents may come in one reply; it ends at 16 MB anyway."""


def _transaction_options(commit_time_ms: int) -> dict[str, Any]:
    return {
        "read_concern": ReadConcern("snapshot"),
        "write_concern": WriteConcern("majority", j=True),
        "read_preference": ReadPreference.PRIMARY,
        "max_commit_time_ms": commit_time_ms,
    }


async def _find(
    read: Callable[[Command], Awaitable[Any]], command: Command, bytes_max: int | None
) -> list[bytes]:
    reading = _Reading(command, bytes_max)
    while (more := reading.next) is not None:
        reading.take(await read(more))
    if reading.is_too_much:
        raise FoundTooMuch
    return reading.found


def _find_plainly(
    read: Callable[[Command], Any], command: Command, bytes_max: int | None
) -> list[bytes]:
    reading = _Reading(command, bytes_max)
    while (more := reading.next) is not None:
        reading.take(read(more))
    if reading.is_too_much:
        raise FoundTooMuch
    return reading.found


class _Reading:
    """A cursor being read: the ``next`` command, until there is none, and what was ``found``.

    One that gives too much is closed with the last command, or it would stay open in the server.
    """

    def __init__(self, command: Command, bytes_max: int | None) -> None:
        self.next: Command | None = {**command, "batchSize": _BATCH_SIZE}
        self.found: list[bytes] = []
        self.is_too_much = False
        self._collection = command["find"]
        self._bytes_left = bytes_max

    def take(self, reply: Mapping[str, Any]) -> None:
        if self.is_too_much:
            self.next = None
            return
        cursor = reply["cursor"]
        documents = cursor["firstBatch"] if "firstBatch" in cursor else cursor["nextBatch"]
        came = [bytes(document.raw) for document in documents]
        self.found += came
        self.next = None
        if not cursor["id"]:
            return
        self.next = {
            "getMore": cursor["id"],
            "collection": self._collection,
            "batchSize": _BATCH_SIZE,
        }
        if self._bytes_left is not None:  # a reply alone is bounded by the server
            self._bytes_left -= sum(map(len, came))
            if self._bytes_left < 0:
                self.is_too_much = True
                self.found.clear()
                self.next = {"killCursors": self._collection, "cursors": [cursor["id"]]}
