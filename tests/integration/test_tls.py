"""Real TLS listeners: what is verified is used, and what is wrong is told without a secret."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from coordinator import postgres_pool
from coordinator.domain.errors import StoreUnavailable
from coordinator.participants.mongodb.driver import open_driver
from coordinator.participants.mongodb.errors import DRIVER_ERRORS, translate
from tests.guarded import KEY_PASSWORD, PASSWORD, WRONG, Guarded, debian_postgresql, reveals_nothing

pytestmark = pytest.mark.integration

needs_debian = pytest.mark.skipif(
    debian_postgresql() is None,
    reason="no PostgreSQL with TLS below /usr/lib/postgresql: apt-get install postgresql",
)
# --- PostgreSQL ---------------------------------------------------------------------------------


@asynccontextmanager
async def session(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    pool = await postgres_pool.open_pool(dsn, "coordinator/test", max_size=1)
    try:
        async with postgres_pool.connected(pool, "ledger") as connection:
            yield connection
    finally:
        await postgres_pool.close_pool(pool)


@pytest.fixture(scope="module")
def postgresql(guarded: Guarded) -> Guarded:
    asyncio.run(_make_roles(guarded.postgres_dsn))
    return guarded


async def _make_roles(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
    await connection.execute("CREATE ROLE certified LOGIN")
    await connection.close()


@needs_debian
async def test_postgresql_verified(postgresql: Guarded) -> None:
    async with session(postgresql.dsn("app", PASSWORD, "postgres")) as connection:
        assert await connection.fetchval(
            "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        ) in {"TLSv1.2", "TLSv1.3"}


@needs_debian
async def test_postgresql_by_certificate(postgresql: Guarded) -> None:
    mine = postgresql.certificates
    for key, password in ((mine.client_key, ""), (mine.locked_key, KEY_PASSWORD)):
        dsn = postgresql.dsn(
            "certified",
            "",
            "postgres",
            sslcert=str(mine.client_certificate),
            sslkey=str(key),
            sslpassword=password,
        )
        async with session(dsn) as connection:
            assert await connection.fetchval("SELECT current_user") == "certified"


@needs_debian
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sslrootcert": "other"}, "signed by an authority that we do not trust"),
        ({"host": "127.0.0.1"}, "its certificate is for another address"),
        ({"password": WRONG}, "refuses our name, our password or our certificate (SQLSTATE 28P01)"),
        ({"user": "certified", "password": ""}, "the server refuses our"),
        ({"sslmode": "disable"}, "the server refuses our name, our password or our certificate"),
    ],
)
async def test_postgresql_that_is_not_what_it_should_be(
    postgresql: Guarded, change: dict[str, str], sentence: str
) -> None:
    given = {"user": "app", "password": PASSWORD, "database": "postgres", **change}
    if given.get("sslrootcert"):
        given["sslrootcert"] = str(postgresql.certificates.other_ca)
    with pytest.raises(StoreUnavailable) as caught:
        async with session(postgresql.dsn(**given)):
            pass
    assert sentence in reveals_nothing(caught.value)


@needs_debian
async def test_postgresql_expires_and_is_renewed(postgresql: Guarded) -> None:
    """The daemon's own view of a certificate that is replaced under it: no restart."""
    dsn = postgresql.dsn("app", PASSWORD, "postgres")
    pool = await postgres_pool.open_pool(dsn, "coordinator/test", max_size=1)
    try:
        postgresql.postgresql.serve(postgresql.certificates.expired)
        await _until_refused(pool)
        postgresql.postgresql.serve(postgresql.certificates.server)
        await _until_taken(pool)
    finally:
        await postgres_pool.close_pool(pool)


async def _until_refused(pool: postgres_pool.Pool) -> None:
    async for _ in _tries():
        failure: StoreUnavailable | None = None
        try:
            async with postgres_pool.connected(pool, "ledger"):
                pass
            await pool.expire_connections()
        except StoreUnavailable as error:
            failure = error
        if failure is not None:
            assert "its certificate has expired" in reveals_nothing(failure)
            return
    pytest.fail("an expired certificate is taken")


async def _until_taken(pool: postgres_pool.Pool) -> None:
    async for _ in _tries():
        try:
            async with postgres_pool.connected(pool, "ledger"):
                return
        except StoreUnavailable:
            continue
    pytest.fail("a good certificate is refused")


async def _tries() -> AsyncIterator[int]:
    """The server reads its files some time after it is told to: 60 s at most."""
    for number in range(600):
        yield number
        await asyncio.sleep(0.1)


@needs_debian
async def test_our_own_files_are_read_anew(postgresql: Guarded, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_bytes(postgresql.certificates.other_ca.read_bytes())
    dsn = postgresql.dsn("app", PASSWORD, "postgres", sslrootcert=str(authority))
    pool = await postgres_pool.open_pool(dsn, "coordinator/test", max_size=1)
    try:
        with pytest.raises(StoreUnavailable, match="that we do not trust"):
            async with postgres_pool.connected(pool, "ledger"):
                pass
        authority.write_bytes(postgresql.certificates.ca.read_bytes())
        async with postgres_pool.connected(pool, "ledger"):
            pass
        authority.unlink()
        await pool.expire_connections()
        with pytest.raises(StoreUnavailable, match="a file that it names cannot be used"):
            async with postgres_pool.connected(pool, "ledger"):
                pass
    finally:
        await postgres_pool.close_pool(pool)


# --- MongoDB ------------------------------------------------------------------------------------


async def listed(uri: str, driver: str) -> int:
    """Ask for something that needs a name and a password."""
    client = open_driver(uri, "app", driver, selection_timeout_seconds=2.0)
    try:
        return len(await client.list_collections())
    except DRIVER_ERRORS as error:
        raise translate("catalog", error) from error
    finally:
        await client.close()


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_mongodb(guarded: Guarded, driver: str) -> None:
    assert guarded.mongodb_uri
    server, files = guarded.mongodb, guarded.certificates
    assert await listed(server.uri("root", PASSWORD), driver) == 0
    pair = {"tlsCertificateKeyFile": str(files.client)}
    assert await listed(server.uri("root", PASSWORD, **pair), driver) == 0
    direct = {"replicaSet": "", "directConnection": "true"}
    cases = [
        (server.uri("root", WRONG), "the server refuses our name and password"),
        (
            server.uri("root", PASSWORD, tlsCAFile=str(files.other_ca)),
            "signed by an authority that we do not trust",
        ),
        (server.uri("root", PASSWORD, "127.0.0.1", **direct), "is for another"),
        (server.uri("root", PASSWORD, tls="", tlsCAFile=""), "could be reached"),
    ]
    for uri, sentence in cases:
        with pytest.raises(StoreUnavailable) as caught:
            await listed(uri, driver)
        assert sentence in reveals_nothing(caught.value)


def _hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_mongodb_with_an_expired_certificate(guarded: Guarded, driver: str) -> None:
    """`mongod` refuses to begin with one, so this is a listener that shows nothing else."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(guarded.certificates.expired)
    listener = await asyncio.start_server(_hang_up, "127.0.0.1", 0, ssl=context)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        authority = guarded.certificates.ca
        with pytest.raises(StoreUnavailable) as caught:
            await listed(f"mongodb://localhost:{port}/?tls=true&tlsCAFile={authority}", driver)
    assert "its certificate has expired" in reveals_nothing(caught.value)
