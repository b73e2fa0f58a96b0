"""Sessions and transactions of `postgres_pool`: on a real server, and with the network failing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from coordinator.domain.entity import FieldType
from coordinator.domain.errors import (
    BatchRefused,
    ErrorCode,
    ResultUnknown,
    StoreBusy,
    StoreUnavailable,
)
from coordinator.engine.ports import Undone
from coordinator.participants.postgresql.participant import PostgresParticipant
from coordinator.postgres_pool import connected, open_pool, transaction
from tests.live_columns import columns_of
from tests.units import entity, mapping, unit, update

pytestmark = pytest.mark.integration

STORE = "ledger"


async def test_every_session_has_our_settings_whatever_the_database_says(
    postgres_dsn: str,
) -> None:
    """Rule 10, and the texts of values mean the same in every session."""
    plain = await asyncpg.connect(postgres_dsn)
    name = await plain.fetchval("SELECT current_database()")
    for setting in (
        "synchronous_commit = off",
        "DateStyle = 'German'",
        "TimeZone = 'Asia/Tokyo'",
        "bytea_output = 'escape'",
        "extra_float_digits = 0",
        "IntervalStyle = 'iso_8601'",
        "search_path = 'public'",
        "default_transaction_isolation = 'serializable'",
    ):
        await plain.execute(f'ALTER DATABASE "{name}" SET {setting}')
    await plain.close()
    pool = await open_pool(postgres_dsn, "settings", min_size=1, lock_timeout_seconds=0.25)
    async with transaction(pool, STORE) as connection:
        row = await connection.fetchrow(
            "SELECT current_setting('synchronous_commit'), current_setting('search_path'),"
            " current_setting('lock_timeout'), current_setting('transaction_isolation'),"
            " timestamptz '2026-01-02 03:04:05.6+09'::text, '\\x00ff'::bytea::text,"
            " 0.1::float8::text, interval '1 day'::text, current_setting('application_name')"
        )
    assert tuple(row) == (
        "on",
        "public",  # users' triggers keep the path that they expect; our names are qualified
        "250ms",
        "read committed",
        "2026-01-01 18:04:05.6+00",
        "\\x00ff",
        "0.1",
        "1 day",
        "settings",
    )
    await pool.close()


async def test_a_body_that_fails_leaves_nothing(postgres_dsn: str) -> None:
    """DESIGN 6: one port method is one transaction."""
    pool = await open_pool(postgres_dsn, "body", max_size=1)
    await pool.execute("CREATE TABLE public.t (id int PRIMARY KEY)")

    async def twice() -> None:
        async with transaction(pool, STORE) as connection:
            await connection.execute("INSERT INTO public.t VALUES (1)")
            await connection.execute("INSERT INTO public.t VALUES (1)")

    async def bug() -> None:
        async with transaction(pool, STORE) as connection:
            await connection.execute("INSERT INTO public.t VALUES (2)")
            raise ZeroDivisionError

    async def swallowed() -> None:
        async with transaction(pool, STORE) as connection:
            await connection.execute("INSERT INTO public.t VALUES (3)")
            with contextlib.suppress(asyncpg.PostgresError):
                await connection.execute("SELECT 1/0")

    with pytest.raises(BatchRefused) as caught:
        await twice()
    assert caught.value.problem.code is ErrorCode.CONSTRAINT_VIOLATED
    with pytest.raises(ZeroDivisionError):
        await bug()
    with pytest.raises(StoreUnavailable):  # the server answers ROLLBACK to that COMMIT
        await swallowed()
    async with connected(pool, STORE) as connection:
        assert await connection.fetchval("SELECT count(*) FROM public.t") == 0
    await pool.close()


async def test_a_lock_that_is_held_is_busy_and_not_refused(postgres_dsn: str) -> None:
    """Rule 9."""
    pool = await open_pool(postgres_dsn, "locks", lock_timeout_seconds=0.1)
    await pool.execute("CREATE TABLE public.t (id int PRIMARY KEY)")

    async def write() -> None:
        async with transaction(pool, STORE) as connection:
            await connection.execute("INSERT INTO public.t VALUES (1)")

    async with transaction(pool, STORE) as holder:
        await holder.execute("LOCK TABLE public.t")
        with pytest.raises(StoreBusy):
            await write()
    await pool.close()


async def test_a_deferred_constraint_is_refused_at_commit(postgres_dsn: str) -> None:
    """It is the server's word, so it is no unknown result."""
    pool = await open_pool(postgres_dsn, "deferred")
    await pool.execute("CREATE TABLE public.t (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")

    async def twice() -> None:
        async with transaction(pool, STORE) as connection:
            await connection.execute("INSERT INTO public.t VALUES (1), (1)")

    with pytest.raises(BatchRefused):
        await twice()
    await pool.close()


async def test_a_server_that_is_away_is_unavailable_and_the_pool_opens_all_the_same() -> None:
    """F35: `run` starts without its servers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pool = await open_pool(f"postgresql://nobody:s3cret@127.0.0.1:{port}/none", "away")
    with pytest.raises(StoreUnavailable) as caught:
        await PostgresParticipant(STORE, pool, "journal").ping()
    assert "s3cret" not in str(caught.value)  # F39
    await pool.close()
    with pytest.raises(StoreUnavailable):
        await open_pool(f"postgresql://nobody@127.0.0.1:{port}/none", "away", min_size=1)


class CuttingProxy:
    """A TCP proxy that cuts the client off at its COMMIT, before or after passing it on."""

    def __init__(self, host: str, port: int, *, deliver: bool) -> None:
        self._target = (host, port)
        self._deliver = deliver
        self.armed = False
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        back = asyncio.ensure_future(self._back(server_reader, writer))
        try:
            while data := await reader.read(65536):
                if self.armed and b"COMMIT\0" in data:
                    back.cancel()
                    if self._deliver:
                        server_writer.write(data)
                        await server_reader.read(1)  # the server has answered, so it is done
                    break
                server_writer.write(data)
                await server_writer.drain()
        finally:
            back.cancel()
            writer.transport.abort()
            server_writer.transport.abort()

    @staticmethod
    async def _back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


@pytest.fixture(params=[True, False], ids=["committed", "lost"])
async def proxy(postgres_dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[CuttingProxy]:
    target = urlsplit(postgres_dsn)
    proxy = CuttingProxy(target.hostname or "", target.port or 5432, deliver=request.param)
    await proxy.start()
    yield proxy
    await proxy.stop()


async def test_a_lost_answer_to_commit_is_unknown_and_settled_by_a_write(
    postgres_dsn: str, proxy: CuttingProxy, request: pytest.FixtureRequest
) -> None:
    """I11, rule 1: whatever had happened, compensation finds it out and concludes."""
    committed = request.node.callspec.params["proxy"]
    parts = urlsplit(postgres_dsn)
    through = urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{proxy.port}"))
    direct = await open_pool(postgres_dsn, "direct")
    await direct.execute(
        "CREATE TABLE public.t (id int PRIMARY KEY, note text, version int);"
        "INSERT INTO public.t VALUES (1, 'old', 1)"
    )
    columns = await columns_of(direct, "t")
    fields = {"id": FieldType.INTEGER, "note": FieldType.STRING}
    units_mapping = mapping(entity("t", fields, columns=columns))
    one = unit(units_mapping, update("t", 1, note="new"))
    pool = await open_pool(through, "through")
    participant = PostgresParticipant(STORE, pool, "journal")
    await participant.enrol(1, lanes=1)

    proxy.armed = True
    with pytest.raises(ResultUnknown):
        await participant.apply(0, [one])
    proxy.armed = False

    async with asyncio.timeout(10):
        while True:
            try:
                undone = await participant.compensate(0, [one])
            except (StoreBusy, StoreUnavailable):  # its session may still be ending
                continue
            break
    assert undone == {one.seq: Undone(wrote=committed)}
    assert await direct.fetchval("SELECT note || version FROM public.t") == "old1"
    assert (await participant.apply(0, [one])).blocked == {one.seq}
    pool.terminate()
    direct.terminate()
