"""Secrets in no line, row values in none above debug (F39, DESIGN 2.7): canaries looked for.

Every place that can hold a secret holds a canary, real servers refuse real rows and passwords, and
what their drivers raise goes 100,000 times through the logging pipeline.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus, urlsplit

import asyncpg
import bson
import pymongo
import pytest
from pymongo.errors import PyMongoError

from coordinator import logs
from coordinator.bootstrap import check
from coordinator.bootstrap.transports import unprotected
from coordinator.domain.errors import StoreUnavailable
from coordinator.log_events import LogEvent
from coordinator.settings import Settings, load_settings
from coordinator.settings.redaction import MASK

pytestmark = pytest.mark.integration

LINES = 100_000
VALUE = "value-canary-7731"
PLACES = (
    "dsn",
    "dsn-query",
    "dsn-key",
    "uri",
    "uri-key",
    "uri-mechanism",
    "journal",
    "sasl",
    "kafka-key",
)
SECRETS = {place: f'{place} c4nary/%+ü"\\&=:' for place in PLACES}
NOTHING: dict[str, str] = {}
TOKEN = "header.c4nary-token.signature"
ENTITIES = """
[account]
store = "ledger"
table = "accounts"
key = "id"
[account.fields]
id = { type = "integer" }
"""


def encoded(place: str) -> str:
    return quote(SECRETS[place], safe="")


@pytest.fixture
def settings(tmp_path: Path, postgres_dsn: str, mongodb_database: tuple[str, str]) -> Settings:
    """Secrets everywhere, and the addresses of real servers, which let nobody in with them."""
    postgresql = urlsplit(postgres_dsn).netloc.rpartition("@")[2]
    mongodb = urlsplit(mongodb_database[0]).netloc.rpartition("@")[2]
    (tmp_path / "entities.toml").write_text(ENTITIES)
    config = tmp_path / "coordinator.toml"
    config.write_text(
        f"""
        [journal]
        dsn = "postgresql://nobody:{encoded("journal")}@{postgresql}/none"
        [kafka]
        bootstrap_servers = "127.0.0.1:1"
        security_protocol = "SASL_PLAINTEXT"
        sasl_mechanism = "PLAIN"
        sasl_username = "app"
        [stores.ledger]
        kind = "postgresql"
        dsn = "postgresql://nobody:{encoded("dsn")}@{postgresql}/app?password={encoded("dsn-query")}&sslpassword={encoded("dsn-key")}"
        [stores.catalog]
        kind = "mongodb"
        database = "app"
        uri = "mongodb://nobody:{encoded("uri")}@{mongodb}/?tls=true&tlsCertificateKeyFilePassword={encoded("uri-key")}&authMechanismProperties=AWS_SESSION_TOKEN:{encoded("uri-mechanism")}"
        """
    )
    (tmp_path / "password").write_text(SECRETS["sasl"])
    loaded = load_settings(
        config, {}, {"COORDINATOR_KAFKA__SASL_PASSWORD_FILE": str(tmp_path / "password")}
    )
    kafka = loaded.kafka.model_copy(update={"key_password": pydantic_secret("kafka-key")})
    made = loaded.model_copy(update={"kafka": kafka})
    made.keep_secret(TOKEN)
    return made


def pydantic_secret(place: str) -> object:
    from pydantic import SecretStr

    return SecretStr(SECRETS[place])


def forms(secret: str) -> set[str]:
    """Every form in which it could turn up in a line of JSON."""
    plain = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), repr(secret)[1:-1]}
    lower = {each.replace("%2F", "%2f").replace("%C3%BC", "%c3%bc") for each in plain}
    return {
        shape
        for each in plain | lower
        for shape in (each, json.dumps(each)[1:-1], json.dumps(each, ensure_ascii=False)[1:-1])
    }


async def refusals(postgres_dsn: str, mongodb: tuple[str, str]) -> list[BaseException]:
    """What drivers raise about rows that hold the canary: with it in message, detail or context."""
    found: list[BaseException] = []
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute(
        "CREATE TABLE rows"
        " (id text PRIMARY KEY, n int CHECK (n > 0), m numeric(3,1), e text NOT NULL)"
    )
    await connection.execute("INSERT INTO rows VALUES ($1, 1, 1, 'e')", VALUE)
    for statement, *values in (
        ("INSERT INTO rows VALUES ($1, 1, 1, 'e')", VALUE),
        ("INSERT INTO rows VALUES ($1, -1, 1, 'e')", f"{VALUE}-2"),
        ("INSERT INTO rows VALUES ($1, 1, 1, NULL)", f"{VALUE}-3"),
        (f"SELECT '{VALUE}'::int",),
        (f"SELECT '{VALUE}'::timestamptz",),
        (f"SELECT '{{{VALUE}'::json",),
        ("SELECT $1::int", VALUE),
        ("DO $$ BEGIN RAISE EXCEPTION 'a trigger says %', '" + VALUE + "'; END $$",),
    ):
        try:
            await connection.execute(statement, *values)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            found.append(error)
    await connection.close()
    uri, name = mongodb
    with pymongo.MongoClient[dict[str, object]](uri) as client:
        rows = client[name]["rows"]
        rows.create_index("email", unique=True)
        rows.insert_one({"email": VALUE})
        attempts = (
            lambda: rows.insert_one({"email": VALUE}),
            lambda: rows.insert_many([{"email": VALUE}]),
            lambda: rows.update_one({}, {"$inc": {"email": 1}}),
            lambda: rows.insert_one({VALUE: object()}),
            lambda: bson.encode({"x": {VALUE}}),
        )
        for attempt in attempts:
            try:
                attempt()
            except (PyMongoError, bson.errors.BSONError) as error:
                found.append(error)
    for act in (lambda: int(VALUE), lambda: NOTHING[VALUE], lambda: json.loads(VALUE + "\ud800")):
        try:
            act()
        except (ValueError, LookupError) as error:
            found.append(error)
    assert len(found) == 16
    return found


def hostile() -> Iterator[str]:
    """Texts that hold secrets where they are hard to find."""
    texts = [shape for secret in (*SECRETS.values(), TOKEN) for shape in sorted(forms(secret))]
    for text in texts:
        yield text
        yield f"\x1b[31m\r\n{text}\u2028{{}}"
        yield f"postgresql://app:{text}@db/app?password={text}"
        yield text * 3
    for secret in SECRETS.values():
        for characters in (4_070, 4_090):  # where a text is cut
            yield "x" * characters + secret


@pytest.fixture
def log_file(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    handlers = list(logging.getLogger().handlers)
    logging.getLogger().handlers.clear()  # a hundred thousand lines are too much for pytest's
    path = tmp_path / "log"
    with path.open("w+b") as stream:
        logs.configure("json", "info", settings.redact, stream=stream)
        yield path
        logs.configure("json", "warning")
    logging.captureWarnings(False)
    logging.getLogger().handlers[:] = handlers


@pytest.mark.timeout(600)
async def test_a_hundred_thousand_lines(
    settings: Settings,
    log_file: Path,
    postgres_dsn: str,
    mongodb_database: tuple[str, str],
) -> None:
    report = await check(settings)
    told = [finding.detail for finding in report.findings]
    assert report.exit_code != 0
    values = await refusals(postgres_dsn, mongodb_database)
    texts = list(hostile())
    random.Random(7731).shuffle(texts)
    text, error = itertools.cycle(texts), itertools.cycle(values)
    log, library = logs.get_log(), logging.getLogger("aiokafka.conn")
    for number in range(LINES // 10):
        for _ in range(4):
            log.info(LogEvent.UNIT_FINISHED, next(text), unit=next(text), code=number)
        for _ in range(3):
            log.warning(LogEvent.DEPENDENCY_AWAY, "Away.", reason=next(text), error=next(error))
        log.error(LogEvent.DAEMON_TASK_FAILED, "A bug.", error=chained(next(text), next(error)))
        log.warning(LogEvent.LIBRARY_MESSAGE, "Said.", nested={next(text): [next(text)]})
        handled(library, next(text), next(error), number)
        if number % 1000 == 0:
            assert logs.flush(60)
    assert logs.flush(60)

    written = log_file.read_bytes()
    assert written.count(b"\n") >= LINES
    assert b'"log.dropped"' not in written
    assert MASK.encode() in written
    for shown in (written, "".join(told).encode(), str(unprotected(settings)).encode()):
        assert b"c4nary" not in shown, "a word in the midst of every secret, whatever its form"
        assert VALUE.encode() not in shown


def chained(text: str, cause: BaseException) -> BaseException:
    """A failure of ours whose cause is a driver's, in a group, with a note."""
    failure = StoreUnavailable("ledger", text)
    failure.__cause__ = cause
    failure.add_note(text)
    return ExceptionGroup("tasks", [failure, RuntimeError(text)])


def handled(library: logging.Logger, text: str, error: BaseException, number: int) -> None:
    """What a library logs, each time another text, so that none is held back as a repetition."""
    library.error(f"{number} %s", text, exc_info=error)


async def test_what_asyncio_says_of_a_forgotten_task(
    log_file: Path, postgres_dsn: str, mongodb_database: tuple[str, str]
) -> None:
    """Its text ends in the representation of the exception, row values included."""
    values = await refusals(postgres_dsn, mongodb_database)

    async def fail(error: BaseException) -> None:
        raise error

    for error in values:
        asyncio.get_running_loop().call_exception_handler(
            {
                "message": f"Task exception was never retrieved {type(error).__name__}",
                "exception": error,
                "future": asyncio.gather(fail(error), return_exceptions=True),
            }
        )
    await asyncio.sleep(0)
    assert logs.flush(5)
    written = log_file.read_text()
    assert "never retrieved" in written
    assert VALUE not in written
