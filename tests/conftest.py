"""Fixtures that every test may use, and the line about servers at the end of a run."""

import gc
import signal
import uuid
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pymongo
import pytest

from tests.servers import KAFKA, MONGODB, POSTGRES, Servers

if TYPE_CHECKING:
    from tests.guarded import Guarded

# Which server a fixture stands for: what the selected tests ask for is started ahead, side by side.
SERVER_OF_FIXTURE = {
    "postgres_dsn": POSTGRES,
    "mongodb_database": MONGODB,
    "kafka_bootstrap": KAFKA,
    "kafka_prefix": KAFKA,
}
SERVERS = pytest.StashKey[Servers]()
STOOD_ON = pytest.StashKey[set[str]]()
"""What the processes of a run that is shared among several have told of their servers."""


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what it puts in the background so, and what we start would inherit it;
        # but Ctrl-C is among what is tested.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[SERVERS] = Servers()
    config.stash[STOOD_ON] = set()
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(_SharedRun(), "shared-run")


class _SharedRun:
    """Carries what each process of `pytest -n` used to the one that prints the summary."""

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        told = getattr(session.config, "workeroutput", None)
        if told is not None:
            told["servers"] = session.config.stash[SERVERS].describe()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        told = getattr(node, "workeroutput", {}).get("servers")
        if told is not None:
            node.config.stash[STOOD_ON].add(told)


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    asked = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    needed = {server for fixture, server in SERVER_OF_FIXTURE.items() if fixture in asked}
    session.config.stash[SERVERS].prefetch(sorted(needed))


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[SERVERS].close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Iterator[None]:
    yield  # pytest's own summary first
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in skipped
        if isinstance(report.longrepr, tuple)
    )
    why = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
    told = config.stash[STOOD_ON]
    terminalreporter.write_sep("-", "what this run stood on")
    for line in sorted(told) or [config.stash[SERVERS].describe()]:
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"skipped: {len(skipped)}" + (f" ({why})" if why else ""))


@pytest.fixture(autouse=True)
def _leftovers_of_drivers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let go of connections that drivers leave behind, in the test that they were used in.

    aiokafka forgets one that it is opening when it is stopped, PyMongo one whose handshake failed;
    found by the collector in a later test, it would fail that one.
    """
    yield
    markers = {mark.name for mark in request.node.iter_markers()}
    is_driver = any(name in request.node.path.name for name in ("kafka", "tls"))
    if is_driver or markers & {"acceptance", "chaos"}:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    """The run's servers. Reading `postgres_dsn`, `mongodb_uri`, `kafka_bootstrap` starts one."""
    return pytestconfig.stash[SERVERS]


@pytest.fixture(scope="module")
def guarded() -> "Iterator[Guarded]":
    """Servers with TLS, passwords and roles; each starts when it is first asked for."""
    from tests.guarded import Guarded  # only these tests need its libraries

    servers = Guarded()
    yield servers
    servers.close()


@pytest.fixture
async def postgres_dsn(servers: Servers) -> AsyncIterator[str]:
    """The DSN of a fresh, empty database; dropped after the test, with whoever is still in it."""
    async with fresh_database(servers) as dsn:
        yield dsn


@asynccontextmanager
async def fresh_database(servers: Servers) -> AsyncIterator[str]:
    """Make one more such database."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await _execute(servers.postgres_dsn, f'CREATE DATABASE "{name}" STRATEGY wal_log')
    try:
        yield _with_database(servers.postgres_dsn, name)
    finally:
        await _execute(servers.postgres_dsn, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def mongodb_database(servers: Servers) -> Iterator[tuple[str, str]]:
    """The URI and the name of a fresh database; dropped after the test."""
    with fresh_mongodb(servers) as mongodb:
        yield mongodb


@contextmanager
def fresh_mongodb(servers: Servers) -> Iterator[tuple[str, str]]:
    """Make one more such database."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    try:
        yield servers.mongodb_uri, name
    finally:
        with pymongo.MongoClient[dict[str, object]](servers.mongodb_uri) as client:
            client.drop_database(name)


@pytest.fixture
def kafka_bootstrap(servers: Servers) -> str:
    """The bootstrap servers."""
    return servers.kafka_bootstrap


@pytest.fixture
def kafka_prefix(servers: Servers) -> str:
    """A prefix for topics and groups that no other test has; Kafka runs when the test begins."""
    assert servers.kafka_bootstrap
    return f"test-{uuid.uuid4().hex[:12]}."


def _with_database(dsn: str, name: str) -> str:
    address, _, parameters = dsn.partition("?")
    scheme, _, rest = address.partition("://")
    host = rest.partition("/")[0]
    return f"{scheme}://{host}/{name}" + (f"?{parameters}" if parameters else "")


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
