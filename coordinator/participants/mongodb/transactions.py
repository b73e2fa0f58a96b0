"""Transactions of one worker, each of which writes its lane's fence first (rule 3, I9).

::

    _coordinator_fences    <journal>/<worker>/-1   the worker: stays, fenced, until it is forgotten
                           <journal>/<worker>/-2   nobody up to this number may enrol any more
                           <journal>/<worker>/0    lane 0: {fenced, n, sessions: [session id, ...]}

A fence that is only read is no fence: snapshots do not conflict on reads. So a transaction begins
with ``$inc`` on its lane's document where that is not fenced; whoever takes over writes the same
document, and one of the two fails. Lanes have documents of their own and so never collide.

A killed client's open transaction lives on in the server, for up to a minute, and holds what it
has written. So each lane keeps one session, and its id is in the fence document, committed, before
the first transaction is begun on it: a takeover kills it (rule 5), and so do we ourselves after a
lost answer, before we try again with a new one.

What can fail: anything before the commit is sent leaves nothing; a commit without an answer is
sent again, then `ResultUnknown` (I11).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from coordinator.domain.errors import (
    CoordinatorError,
    Fenced,
    InvariantViolated,
    ResultUnknown,
    StoreBusy,
    StoreUnavailable,
)
from coordinator.participants.mongodb.bookkeeping import FENCES
from coordinator.participants.mongodb.driver import (
    MAJORITY,
    Command,
    Driver,
    FoundTooMuch,
    Session,
    Step,
)
from coordinator.participants.mongodb.errors import (
    DRIVER_ERRORS,
    DUPLICATE_KEY,
    is_unknown,
    of_reply,
    translate,
    translate_commit,
)

WORKER_LANE: Final = -1
"""Stands for the worker: enrolment and sweeps."""

FORGOTTEN_LANE: Final = -2
"""Stands for all workers up to its number: they are forgotten and cannot enrol any more."""

_SESSIONS_MAX: Final = 8
"""How many session ids a lane remembers: the present one, and lost ones that may still be open."""


def too_much(store: str) -> StoreBusy:
    """Tell of a batch whose documents take too much memory: a smaller one may do."""
    return StoreBusy(store, "the documents of the batch have too many bytes")


class Transaction:
    """An open transaction: commands go through `later`, `run` and `find`, within its time.

    What is to be done later is sent together with the next command that somebody waits for, or
    with the commit: everything in its order, and nothing after what has failed.
    """

    def __init__(self, store: str, session: Session, ends_at: float) -> None:
        self._store = store
        self._session = session
        self._ends_at = ends_at
        self._steps: list[Step] = []

    def later(self, command: Command, took: Callable[[Mapping[str, Any]], None]) -> None:
        """Run a command in its turn; ``took`` gets its reply and may raise our errors."""
        self._steps.append(Step(lambda: self._bounded(command), took, self._failed))

    def later_call(self, act: Callable[[], None]) -> None:
        """Do something in its turn."""
        self._steps.append(Step(lambda: None, lambda _: act(), self._failed))

    async def run(self, command: Command) -> Mapping[str, Any]:
        """Run a command; the reply may tell of ``writeErrors``. Raises our errors."""
        replies: list[Mapping[str, Any]] = []
        self.later(command, replies.append)
        await finish(self._session.run(self.due()))
        return replies[0]

    async def find(
        self, collection: str, where: Mapping[str, Any], bytes_max: int | None = None
    ) -> list[bytes]:
        """Find documents, as they are stored; `StoreBusy` for more than ``bytes_max`` of them."""
        command = {"find": collection, "filter": where}
        try:
            found: list[bytes] = await finish(
                self._session.find(self.due(), lambda: self._bounded(command), bytes_max)
            )
        except FoundTooMuch as error:
            raise too_much(self._store) from error
        except DRIVER_ERRORS as error:
            raise self._failed(error) from error
        return found

    def due(self) -> Sequence[Step]:
        """Give what is to be done now, and forget it."""
        steps, self._steps = self._steps, []
        return steps

    def _bounded(self, command: Command) -> Command:
        """Give it the time left; raise `StoreBusy` when it is over (a smaller batch may do)."""
        left_ms = int((self._ends_at - time.monotonic()) * 1000)
        if left_ms <= 0:
            raise StoreBusy(self._store, "the transaction took longer than it may")
        return {**command, "maxTimeMS": left_ms}

    def _failed(self, error: Exception) -> Exception:
        return translate(self._store, error)


@dataclass(slots=True)
class _Lane:
    """A lane's session, and those it has lost."""

    fence: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    session: Session | None = None
    lost: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=_SESSIONS_MAX))


class Transactions:
    """The transactions of the worker that was enrolled here last."""

    def __init__(
        self, driver: Driver, store: str, journal_id: str, transaction_timeout_seconds: float
    ) -> None:
        self._driver = driver
        self._store = store
        self._journal_id = journal_id
        self._timeout_seconds = transaction_timeout_seconds
        self._worker: int | None = None
        self._lanes: dict[int, _Lane] = {}

    # --- enrolment ------------------------------------------------------------------------------

    async def enrol(self, worker: int, lanes: int) -> None:
        """Make the worker's fences; from now on `begin` is about them. Raises `Fenced`."""
        await self.close()
        self._worker = worker
        updates = [self._fence_update(worker, lane) for lane in range(WORKER_LANE, lanes)]
        session = await self._driver.start_session()
        try:
            async with self._in_session(session) as transaction:
                # One transaction: a takeover writes the worker's document, then looks for lanes.
                reply = await transaction.run({"update": FENCES, "updates": updates})
                self._check_enrolled(reply, worker)
                if await self._is_forgotten(transaction, worker):
                    raise Fenced(f"worker {worker} has been forgotten at {self._store}")
        finally:
            await session.end()

    def _fence_update(self, worker: int, lane: int) -> dict[str, Any]:
        return {
            "q": {"_id": fence_id(self._journal_id, worker, lane), "fenced": {"$ne": True}},
            "u": {
                "$setOnInsert": {
                    "journal": self._journal_id,
                    "worker": worker,
                    "lane": lane,
                    "fenced": False,
                    "sessions": [],
                },
                "$inc": {"n": 1},
            },
            "upsert": True,
        }

    def _check_enrolled(self, reply: Mapping[str, Any], worker: int) -> None:
        errors = reply.get("writeErrors")
        if errors and errors[0].get("code") == DUPLICATE_KEY:
            raise Fenced(f"worker {worker} has been fenced at {self._store}")
        if errors:
            raise of_reply(self._store, reply)

    # --- transactions ---------------------------------------------------------------------------

    @asynccontextmanager
    async def begin(self, lane: int) -> AsyncIterator[Transaction]:
        """Open a transaction and write the lane's fence; commit at the end, abort on any error.

        Durable when it ends without an error. Raises `Fenced`, what the body raises, and
        `ResultUnknown` when the commit got no answer; after any other error nothing was done.
        """
        at = self._lane(lane)
        async with at.lock:
            session = await self._session(at)
            fenced: list[Mapping[str, Any]] = []
            try:
                async with self._in_session(session) as transaction:
                    update = {"q": _unfenced(at.fence), "u": {"$inc": {"n": 1}}}
                    transaction.later({"update": FENCES, "updates": [update]}, fenced.append)
                    transaction.later_call(lambda: self._check_fenced(fenced[0]))
                    yield transaction
            except BaseException as error:
                if not _is_over(error):
                    await self._lose(at)
                elif isinstance(error, StoreBusy) and not fenced:
                    # Nobody but a takeover and our own lost transactions writes there.
                    await self._kill(at.lost)
                raise

    async def forget(self, workers: Collection[int]) -> None:
        """Delete what is left of fenced workers: without a document they are refused as well.

        In the same transaction their numbers are shut out from enrolling, which would make one.
        """
        ids = [fence_id(self._journal_id, worker, WORKER_LANE) for worker in workers]
        mark = {"journal": self._journal_id, "lane": FORGOTTEN_LANE}
        highest = max(workers)
        marked = {
            "q": {"_id": fence_id(self._journal_id, highest, FORGOTTEN_LANE)},
            "u": {"$set": {**mark, "worker": highest, "fenced": True}},
            "upsert": True,
        }
        gone = [{"_id": {"$in": ids}, "fenced": True}]
        async with self.begin(WORKER_LANE) as transaction:
            if not await self._is_forgotten(transaction, highest):
                await self._run_own(transaction, {"update": FENCES, "updates": [marked]})
                gone.append({**mark, "worker": {"$lt": highest}})
            deletes = [{"q": each, "limit": 0} for each in gone]
            await self._run_own(transaction, {"delete": FENCES, "deletes": deletes})

    async def _is_forgotten(self, transaction: Transaction, worker: int) -> bool:
        mark = {"journal": self._journal_id, "lane": FORGOTTEN_LANE, "worker": {"$gte": worker}}
        return bool(await transaction.find(FENCES, mark))

    async def _run_own(self, transaction: Transaction, command: Command) -> None:
        reply = await transaction.run(command)
        if reply.get("writeErrors"):
            raise of_reply(self._store, reply)

    def _check_fenced(self, reply: Mapping[str, Any]) -> None:
        if reply["n"] != 1:
            raise Fenced(f"worker {self._worker} has been fenced at {self._store}")

    @asynccontextmanager
    async def _in_session(self, session: Session) -> AsyncIterator[Transaction]:
        ends_at = time.monotonic() + self._timeout_seconds
        transaction = Transaction(self._store, session, ends_at)
        try:
            await session.start(int(self._timeout_seconds * 1000))
            yield transaction
        except BaseException:
            await finish(session.abort())
            raise
        await self._commit(session, transaction.due(), ends_at)

    async def _commit(self, session: Session, steps: Sequence[Step], ends_at: float) -> None:
        sent_before = False
        while True:
            try:
                await finish(session.commit(steps))
                return
            except DRIVER_ERRORS as error:
                if is_unknown(error) and time.monotonic() < ends_at:
                    sent_before = True
                    steps = ()
                    continue
                raise translate_commit(self._store, error, sent_before=sent_before) from error
            except CoordinatorError:
                # Of a step: the commit was not sent.
                await finish(session.abort())
                raise

    # --- sessions -------------------------------------------------------------------------------

    def _lane(self, lane: int) -> _Lane:
        if self._worker is None:
            raise InvariantViolated(f"{self._store}: a transaction before the worker was enrolled")
        at = self._lanes.get(lane)
        if at is None:
            at = self._lanes[lane] = _Lane(fence_id(self._journal_id, self._worker, lane))
        return at

    async def _session(self, at: _Lane) -> Session:
        if at.session is not None:
            return at.session
        # A lost transaction may still hold the fence's document, and nobody is served by that.
        await self._kill(at.lost)
        session = await self._driver.start_session()
        if session.id in at.lost:
            at.lost.remove(session.id)
        known = {"$each": [session.id, *at.lost], "$position": 0, "$slice": _SESSIONS_MAX}
        update = {"q": _unfenced(at.fence), "u": {"$push": {"sessions": known}}}
        timeout_ms = int(self._timeout_seconds * 1000)
        try:
            reply = await self._driver.run(
                {
                    "update": FENCES,
                    "updates": [update],
                    "writeConcern": {**MAJORITY, "wtimeout": timeout_ms},
                    "maxTimeMS": timeout_ms,
                }
            )
        except DRIVER_ERRORS as error:
            await session.end()
            raise translate(self._store, error) from error
        if reply.get("writeErrors") or reply.get("writeConcernError"):
            await session.end()
            raise of_reply(self._store, reply)
        if reply["n"] != 1:
            await session.end()
            raise Fenced(f"worker {self._worker} has been fenced at {self._store}")
        at.session = session
        return session

    async def _lose(self, at: _Lane) -> None:
        session, at.session = at.session, None
        if session is not None:
            at.lost.appendleft(session.id)
            with suppress(*DRIVER_ERRORS):
                await session.end()

    async def _kill(self, sessions: deque[Mapping[str, Any]]) -> None:
        if not sessions:
            return
        try:
            await self._driver.run_on_admin({"killSessions": list(sessions)})
        except DRIVER_ERRORS as error:
            raise translate(self._store, error) from error

    async def close(self) -> None:
        """Give all sessions back."""
        lanes, self._lanes = self._lanes, {}
        for at in lanes.values():
            if at.session is not None:
                await at.session.end()


def fence_id(journal_id: str, worker: int, lane: int) -> str:
    """Name the fence document of a lane."""
    return f"{journal_id}/{worker}/{lane}"


def _unfenced(fence: str) -> dict[str, Any]:
    return {"_id": fence, "fenced": {"$ne": True}}


def _is_over(error: BaseException) -> bool:
    """Whether the server has told that it ended the transaction, or was there to be told."""
    if isinstance(error, StoreUnavailable | ResultUnknown):
        return False
    return isinstance(error, CoordinatorError)


async def finish(work: Any) -> Any:
    """Let something come to its end, also when we are cancelled meanwhile: it has its time limit.

    A session takes one command at a time, and a thread cannot be called back.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise
