"""The participant of a MongoDB store.

One method is one transaction; each begins by writing the lane's fence (rule 3). `apply` writes the
branches and, beside them, one undo record per unit; `compensate` undoes from those records or
plants tombstones. They stand one above the other below.

What can go wrong, and what is true then: an error before the commit was sent leaves nothing. A
lost answer to the commit is `ResultUnknown`: the next `apply` inserts the same ``_id`` and so
meets the record if it is there, or beats it; the same is true of a tombstone (rule 1). A process
that is killed leaves its open transaction in the server until a takeover ends its session, or
for the server's limit of 60 s. I1, I3, I6, I9, I11.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import bson
import orjson
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import PyMongoError

from coordinator.domain.decide import Effect, Image, ImageKey, Write, decide_branch, show_image
from coordinator.domain.entity import Entity
from coordinator.domain.errors import (
    BatchRefused,
    ConfigurationInvalid,
    CoordinatorError,
    ErrorCode,
    Problem,
    ResultUnknown,
    StoreBusy,
    StoreUnavailable,
)
from coordinator.domain.operation import Operation, Unit
from coordinator.domain.publishing import Done
from coordinator.engine.ports import Applied, Undone
from coordinator.participants.mongo_interim.bson_values import to_bson
from coordinator.participants.mongo_interim.documents import Document, documents_of, written
from coordinator.participants.mongo_interim.driver import CODEC, Driver, Session
from coordinator.participants.mongo_interim.faults import DRIVER_ERRORS, translate
from coordinator.participants.mongo_interim.fences import FENCES, LANES_MAX, Fences
from coordinator.participants.mongo_interim.undo import (
    KeyUndo,
    Restored,
    Step,
    as_bson,
    decide_undo,
    from_record,
)

UNDO = "_coordinator_undo"
UNDO_BYTES_MAX = 15 * 1024 * 1024
COMMIT_SECONDS_MAX = 10.0

_APPLIED, _UNDONE, _TOMBSTONE = "applied", "undone", "tombstone"


class MongodbParticipant:
    """Implements `coordinator.engine.ports.Participant` for one MongoDB database."""

    def __init__(self, store: str, driver: Driver, journal_id: str) -> None:
        self._store = store
        self._driver = driver
        self._journal = journal_id
        self._fences = Fences(driver, store, journal_id)
        self._worker = 0
        self._sweep_lane = 0
        self._sessions: dict[int, Session] = {}

    @property
    def store(self) -> str:
        """The store's name in the configuration."""
        return self._store

    async def prepare(self, collections: Sequence[str]) -> None:
        """Make the bookkeeping and the missing mapped collections; refuse a lone server (F35)."""
        with self._translated():
            hello = await self._driver.command("hello")
            if hello.get("setName") is None and hello.get("msg") != "isdbgrid":
                raise ConfigurationInvalid(
                    [
                        f"stores.{self._store}: the server is no replica set, so it has no "
                        "transactions; start it with --replSet and initiate it"
                    ]
                )
            there = await self._driver.collections()
            for name in dict.fromkeys((FENCES, UNDO, *collections)):
                if name not in there:
                    await self._driver.create_collection(name)

    # --- reading ------------------------------------------------------------------------------

    async def load(self, units: Sequence[Unit]) -> Mapping[ImageKey, Image | None]:
        """Read the images of all keys of these units' branches here, without locks."""
        with self._translated():
            found = await self._read(_wanted(units, self._store), None)
        images: dict[ImageKey, Image | None] = {}
        for unit in units:
            for _, operation in unit.branch(self._store):
                at = (operation.entity, operation.key_text)
                if at not in images:
                    documents = documents_of(unit.mapping, operation.entity)
                    raw = found.get((documents.entity.table, documents.key(operation.key)))
                    images[at] = documents.image(_decoded(raw))
        return images

    async def _read(
        self, wanted: Mapping[str, Sequence[Any]], session: Session | None
    ) -> dict[tuple[str, Any], bytes]:
        found: dict[tuple[str, Any], bytes] = {}
        for collection, keys in wanted.items():
            for raw in await self._driver.find_raw(collection, keys, session):
                found[collection, _id_of(raw)] = raw
        return found

    # --- apply --------------------------------------------------------------------------------

    async def apply(self, lane: int, units: Sequence[Unit]) -> Applied:
        """Apply the branches in one transaction, with an undo record per unit; see the port."""
        async with self._transaction(lane) as session:
            done, blocked = await self._found_applied(units, session)
            fresh = [unit for unit in units if unit.seq not in done and unit.seq not in blocked]
            refused: dict[int, Problem] = {}
            if fresh:
                current = await self._read(_wanted(fresh, self._store), session)
                work = _Work(self._journal, self._worker)
                for unit in fresh:
                    self._decide(unit, current, work, refused)
                done.update(work.done)
                await self._write(work, session)
        return Applied(done=done, refused=refused, blocked=frozenset(blocked))

    async def _found_applied(
        self, units: Sequence[Unit], session: Session
    ) -> tuple[dict[int, tuple[Done, ...]], set[int]]:
        """What earlier attempts did (rule 7), and what is being compensated."""
        by_id = {self._undo_id(unit): unit for unit in units}
        done: dict[int, tuple[Done, ...]] = {}
        blocked: set[int] = set()
        for raw in await self._driver.find_raw(UNDO, list(by_id), session):
            record = bson.decode(raw, CODEC)
            seq = by_id[record["_id"]].seq
            if record["state"] == _APPLIED:
                done[seq] = tuple(_done_from(form) for form in record["done"])
            else:
                blocked.add(seq)
        return done, blocked

    def _decide(
        self,
        unit: Unit,
        current: Mapping[tuple[str, Any], bytes],
        work: _Work,
        refused: dict[int, Problem],
    ) -> None:
        branch = unit.branch(self._store)
        documents: dict[ImageKey, Document | None] = {}
        raws: dict[ImageKey, bytes | None] = {}
        images: dict[ImageKey, Image | None] = {}
        for _, operation in branch:
            at = (operation.entity, operation.key_text)
            if at in images:
                continue
            of = documents_of(unit.mapping, operation.entity)
            raws[at] = raw = current.get((of.entity.table, of.key(operation.key)))
            documents[at] = document = _decoded(raw)
            images[at] = of.image(document)
        decided = decide_branch(unit, self._store, images)
        if isinstance(decided, Problem):
            refused[unit.seq] = decided
            return
        problem = work.add(unit, self._undo_id(unit), decided, documents, raws)
        if problem is not None:
            refused[unit.seq] = problem

    async def _write(self, work: _Work, session: Session) -> None:
        for collection, writes in work.writes.items():
            try:
                result = await self._driver.bulk_write(collection, writes, session)
            except PyMongoError as error:
                raise translate(self._store, error, work.origins[collection]) from error
            changed = result.matched_count + result.inserted_count + result.deleted_count
            if changed != len(writes):
                raise StoreBusy(self._store, "a document has gone since it was read")
        if work.records:
            await self._driver.bulk_write(UNDO, work.records, session)

    # --- compensate ---------------------------------------------------------------------------

    async def compensate(self, lane: int, units: Sequence[Unit]) -> Mapping[int, Undone]:
        """Undo the branches in one transaction; plant tombstones; see the port.

        A document that an outsider is writing to is found by halving; its unit is left out.
        """
        try:
            return await self._compensate(lane, units)
        except StoreBusy:
            if len(units) == 1:
                return {}
            middle = len(units) // 2
        except BatchRefused as refusal:
            if len(units) == 1:
                problem = Problem(ErrorCode.UNDO_FAILED, f"The undo failed: {refusal.message}")
                return {units[0].seq: Undone(wrote=True, problem=problem)}
            middle = len(units) // 2
        first = await self.compensate(lane, units[:middle])
        return {**first, **await self.compensate(lane, units[middle:])}

    async def _compensate(self, lane: int, units: Sequence[Unit]) -> dict[int, Undone]:
        by_id = {self._undo_id(unit): unit for unit in units}
        async with self._transaction(lane) as session:
            records = {
                record["_id"]: record
                for record in (
                    bson.decode(raw, CODEC)
                    for raw in await self._driver.find_raw(UNDO, list(by_id), session)
                )
            }
            result: dict[int, Undone] = {}
            marks: list[Any] = []
            applied: list[tuple[Unit, list[KeyUndo]]] = []
            for undo_id, unit in by_id.items():
                record = records.get(undo_id)
                if record is None:
                    marks.append(InsertOne(self._tombstone(undo_id, unit)))
                    result[unit.seq] = Undone(wrote=False)
                elif record["state"] == _APPLIED:
                    applied.append((unit, [from_record(form) for form in record["keys"]]))
                else:
                    result[unit.seq] = Undone(wrote=bool(record.get("wrote")))
            if applied:
                await self._undo_applied(applied, session, result, marks)
            if marks:
                await self._driver.bulk_write(UNDO, marks, session)
        return result

    async def _undo_applied(
        self,
        applied: Sequence[tuple[Unit, list[KeyUndo]]],
        session: Session,
        result: dict[int, Undone],
        marks: list[Any],
    ) -> None:
        wanted: dict[str, list[Any]] = {}
        for _, keys in applied:
            for key in keys:
                wanted.setdefault(key.collection, []).append(key.key)
        current = await self._read(wanted, session)
        writes: dict[str, list[Any]] = {}
        for unit, keys in applied:
            wrote = bool(keys)
            restored = decide_undo(unit, keys, current)
            if isinstance(restored, Problem):
                result[unit.seq] = Undone(wrote=wrote, problem=restored)
                continue
            for each in restored:
                writes.setdefault(each.collection, []).append(_restoring(each))
            marks.append(
                UpdateOne(
                    {"_id": self._undo_id(unit), "state": _APPLIED},
                    {"$set": {"state": _UNDONE, "wrote": wrote}},
                )
            )
            result[unit.seq] = Undone(wrote=wrote)
        for collection, of_collection in writes.items():
            await self._driver.bulk_write(collection, of_collection, session)

    def _tombstone(self, undo_id: str, unit: Unit) -> Document:
        return {
            "_id": undo_id,
            "journal": self._journal,
            "unit": unit.id,
            "digest": unit.digest,
            "worker": self._worker,
            "state": _TOMBSTONE,
            "created_at": datetime.now(UTC),
        }

    # --- fences and duties --------------------------------------------------------------------

    async def enrol(self, worker: int, lanes: int) -> None:
        """Make this worker's fences, not yet fenced, each with a session of its own."""
        if lanes >= LANES_MAX:
            raise ConfigurationInvalid([f"worker.lanes: at most {LANES_MAX - 1} are possible"])
        self._worker, self._sweep_lane = worker, lanes
        with self._translated():
            for lane in range(lanes + 1):
                if lane not in self._sessions:
                    self._sessions[lane] = await self._driver.start_session()
                await self._fences.enrol(worker, lane, self._sessions[lane])

    async def fence(self, worker: int) -> None:
        """Fence another worker: when this returns, no transaction of it can commit here (I9)."""
        await self._fences.fence(worker)

    async def sweep(self, unit_ids: Sequence[str]) -> None:
        """Delete the undo records and tombstones of units that are final for long."""
        async with self._transaction(self._sweep_lane) as session:
            ids = [f"{self._journal}/{unit_id}" for unit_id in unit_ids]
            await self._driver.delete_many(UNDO, {"_id": {"$in": ids}}, session)

    async def ping(self) -> None:
        """Answer if the store is reachable and has a primary."""
        with self._translated():
            await self._driver.find_raw(FENCES, ["-"])
            hello = await self._driver.command("hello")
        if not hello.get("isWritablePrimary"):
            raise StoreUnavailable(self._store, "no primary answers")

    async def close(self) -> None:
        """Let the connections go; the server forgets our sessions by itself."""
        await self._driver.close()

    def _undo_id(self, unit: Unit) -> str:
        return f"{self._journal}/{unit.id}"

    def _translated(self) -> _Translated:
        return _Translated(self._store)

    @asynccontextmanager
    async def _transaction(self, lane: int) -> AsyncIterator[Session]:
        """Run the body in a transaction that holds the lane's fence."""
        session = self._sessions[lane]
        try:
            await session.begin()
            await self._fences.write(self._worker, lane, session)
            yield session
        except DRIVER_ERRORS as error:
            await self._abort(lane)
            raise translate(self._store, error) from error
        except CoordinatorError:
            await self._abort(lane)
            raise
        except BaseException:
            # Cancelled or a bug: the next transaction of this session ends what is left open.
            await self._abort(lane)
            raise
        await self._commit(session)

    async def _abort(self, lane: int) -> None:
        with suppress(*DRIVER_ERRORS):
            await self._sessions[lane].abort()

    async def _commit(self, session: Session) -> None:
        """Commit; the same commit is sent again while its result is unknown, for a while (I11)."""
        until = time.monotonic() + COMMIT_SECONDS_MAX
        while True:
            try:
                await session.commit()
            except PyMongoError as error:
                if error.has_error_label("UnknownTransactionCommitResult"):
                    if time.monotonic() < until:
                        continue
                    raise ResultUnknown(self._store, "the answer to a commit was lost") from error
                failure = translate(self._store, error)
                if isinstance(failure, StoreUnavailable):
                    raise ResultUnknown(self._store, failure.message) from error
                raise failure from error
            return


class _Translated:
    """Translates what the driver raises inside."""

    def __init__(self, store: str) -> None:
        self._store = store

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, DRIVER_ERRORS):
            raise translate(self._store, error) from error


class _Work:
    """The writes of a batch in the making: per collection, with the records beside them."""

    def __init__(self, journal: str, worker: int) -> None:
        self._journal = journal
        self._worker = worker
        self._now = datetime.now(UTC)
        self.writes: dict[str, list[Any]] = {}
        self.origins: dict[str, list[tuple[int, Operation | None]]] = {}
        self.records: list[Any] = []
        self.done: dict[int, tuple[Done, ...]] = {}

    def add(
        self,
        unit: Unit,
        undo_id: str,
        decided: Sequence[Write],
        documents: dict[ImageKey, Document | None],
        raws: Mapping[ImageKey, bytes | None],
    ) -> Problem | None:
        """Add a unit's branch; a problem when its undo record would be too large."""
        keys: dict[ImageKey, KeyUndo] = {}
        done: list[Done] = []
        writes: list[tuple[str, Any, Operation]] = []
        for write in decided:
            operation = write.operation
            entity = unit.mapping.entities[operation.entity]
            at = (operation.entity, operation.key_text)
            done.append(_done(entity, write))
            if write.effect is Effect.NOTHING:
                continue
            of = documents_of(unit.mapping, operation.entity)
            assigned = of.assigned(write)
            before = documents[at]
            undo = keys.get(at)
            if undo is None:
                undo = keys[at] = KeyUndo(
                    entity.name,
                    entity.table,
                    of.key(operation.key),
                    entity.version,
                    entity.on_foreign_write,
                )
                raw = raws[at]
            else:
                raw = None if before is None else bson.encode(before, codec_options=CODEC)
            undo.steps.append(
                Step(
                    write.position,
                    write.effect,
                    raw,
                    assigned,
                    write.unset,
                    {
                        name: to_bson(of.types[name], delta)
                        for name, delta in (write.deltas or {}).items()
                    },
                    operation.compensate is not None,
                )
            )
            documents[at] = written(before, write, undo.key, assigned)
            writes.append((entity.table, of.operation(write, assigned), operation))
        record = bson.encode(
            {
                "_id": undo_id,
                "journal": self._journal,
                "unit": unit.id,
                "digest": unit.digest,
                "worker": self._worker,
                "state": _APPLIED,
                "created_at": self._now,
                "keys": [as_bson(key) for key in keys.values()],
                "done": [_done_as_bson(each) for each in done],
            },
            codec_options=CODEC,
        )
        if len(record) > UNDO_BYTES_MAX:
            return Problem(
                ErrorCode.TOO_LARGE,
                f"What would be needed to undo the unit is {len(record)} bytes; "
                f"at most {UNDO_BYTES_MAX} can be kept.",
                path="operations",
            )
        self.records.append(InsertOne(RawBSONDocument(record)))
        self.done[unit.seq] = tuple(done)
        for collection, request, operation in writes:
            self.writes.setdefault(collection, []).append(request)
            self.origins.setdefault(collection, []).append((unit.seq, operation))
        return None


def _done(entity: Entity, write: Write) -> Done:
    version = None
    shown = write.after if write.after is not None else write.before
    if entity.version is not None and shown is not None:
        held = shown.get(entity.version)
        version = held if isinstance(held, int) else None
    if write.effect is Effect.NOTHING:
        return Done(write.position, write.effect, None, None, version)
    return Done(
        write.position,
        write.effect,
        _image_json(entity, write.before),
        _image_json(entity, write.after),
        version,
    )


def _image_json(entity: Entity, image: Image | None) -> bytes | None:
    return None if image is None else orjson.dumps(show_image(entity, image))


def _done_as_bson(done: Done) -> list[Any]:
    return [done.position, done.effect.value, done.before, done.after, done.version]


def _done_from(form: Sequence[Any]) -> Done:
    position, effect, before, after, version = form
    return Done(position, Effect(effect), before, after, version)


def _restoring(restored: Restored) -> Any:
    """The driver's write that makes a document what it shall be."""
    if restored.document is None:
        return DeleteOne({"_id": restored.key})
    document: Any = restored.document
    if isinstance(document, bytes):
        document = RawBSONDocument(document)
    if restored.exists:
        return ReplaceOne({"_id": restored.key}, document)
    return InsertOne(document)


def _wanted(units: Sequence[Unit], store: str) -> dict[str, list[Any]]:
    """The ``_id``s to read, per collection."""
    wanted: dict[str, dict[Any, None]] = {}
    for unit in units:
        for _, operation in unit.branch(store):
            of = documents_of(unit.mapping, operation.entity)
            wanted.setdefault(of.entity.table, {})[of.key(operation.key)] = None
    return {collection: list(keys) for collection, keys in wanted.items()}


def _decoded(raw: bytes | None) -> Document | None:
    return None if raw is None else bson.decode(raw, CODEC)


def _id_of(raw: bytes) -> Any:
    return RawBSONDocument(raw)["_id"]
