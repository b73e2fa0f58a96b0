"""Starting wrongly configured, and secrets (F20, F30, F35, F39, DESIGN 2.5)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from tests.acceptance.harness.operations import Json, insert, setting
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_id, new_number

MakeWorld = Callable[..., Awaitable[World]]


@dataclass
class Wrong:
    """A mistake in the configuration or the mapping, and what each complaint must name."""

    settings: Json = field(default_factory=dict)
    entities: Json = field(default_factory=dict)
    sql: str = ""
    names: tuple[str, ...] = ()


def _entity(**changes: Any) -> Json:
    base = {
        "store": "archive",
        "table": changes.get("table", "things"),
        "key": "id",
        "fields": {"id": {"type": "integer"}, "label": {"type": "string", "nullable": True}},
    }
    return base | changes


THINGS = "CREATE TABLE things (id bigint PRIMARY KEY, label text, n integer, version integer);"
ID: Json = {"type": "integer"}

WRONG: dict[str, Wrong] = {
    "settings": Wrong(
        settings={
            "units": {"timeout_ms": "soon", "max_bytes": -1},
            "stores": {"catalog": {"driver": "mongoose"}},
            "bogus": {"a": 1},
            "log": {"level": "loud"},
            "topics": {"unitz": "x"},
        },
        names=("timeout_ms", "max_bytes", "driver", "bogus", "level", "unitz"),
    ),
    "relations of settings": Wrong(
        settings={"journal": {"store": "catalog"}, "kafka": {"group_id": ""}},
        names=("journal", "group_id"),
    ),
    "mapping alone": Wrong(
        entities={
            "wrong_type": _entity(fields={"id": {"type": "strng"}}),
            "no_key": _entity(key="nokey"),
            "no_store": _entity(store="nowhere"),
            "bad_pattern": _entity(fields={"id": ID, "label": {"type": "string", "pattern": "("}}),
            "bad_op": _entity(operations=["merge"]),
            "bad_ref": _entity(references={"label": "nobody.id"}),
            "bad_member": _entity(tabel="x"),
            "object_ids": _entity(fields={"id": ID, "label": {"type": "objectid"}}),
        },
        names=(
            "wrong_type",
            "no_key",
            "no_store",
            "bad_pattern",
            "bad_op",
            "bad_ref",
            "bad_member",
        ),
    ),
    "mapping against the tables": Wrong(
        sql="CREATE TABLE keyless (id bigint, label text);"
        "CREATE TABLE needy (id bigint PRIMARY KEY, must text NOT NULL);",
        entities={
            "no_table": _entity(table="nowhere"),
            "no_column": _entity(fields={"id": ID, "lable": {"type": "string"}}),
            "other_type": _entity(fields={"id": ID, "label": {"type": "integer"}}),
            "not_unique": _entity(table="keyless"),
            "no_version": _entity(version="revision"),
            "text_version": _entity(version="label", fields={"id": ID}),
        },
        names=(
            *("no_table", "no_column", "other_type", "not_unique", "no_version"),
            "text_version",
        ),
    ),
    "what cannot be undone (F30)": Wrong(
        sql="".join(
            f"CREATE TABLE {name} (id bigint PRIMARY KEY);"
            f"CREATE TABLE {name}_child (id bigint PRIMARY KEY,"
            f" up bigint DEFAULT 1 REFERENCES {name} (id) ON DELETE {rule});"
            for name, rule in (
                ("cascading", "CASCADE"),
                ("nulling", "SET NULL"),
                ("defaulting", "SET DEFAULT"),
            )
        )
        + "CREATE TABLE upper (id bigint PRIMARY KEY);"
        "CREATE TABLE mapped (id bigint PRIMARY KEY, up bigint REFERENCES upper (id));",
        entities={
            **{
                name: _entity(table=name, fields={"id": ID})
                for name in ("cascading", "nulling", "defaulting")
            },
            "upper": _entity(table="upper", fields={"id": ID}),
            "mapped": _entity(table="mapped", fields={"id": ID, "up": ID | {"nullable": True}}),
        },
        names=("cascading", "nulling", "defaulting", "mapped"),
    ),
}


@pytest.mark.parametrize("command", ["run", "check"])
async def test_f35_wrong_configuration_and_mapping(
    make_world: MakeWorld, command: str, subtests: pytest.Subtests
) -> None:
    """F35, F30: exit code 2, every mistake at once, each named; `check` says the same."""
    world = await make_world(start=False)
    texts: dict[str, tuple[int, str]] = {}

    async def try_(name: str, wrong: Wrong) -> None:
        other = World(world.servers, world.folder / f"{command}-{name[:12]}")
        tables: dict[str, str] = {}  # a table is mapped once only
        for entity, of in wrong.entities.items():
            other.entities[entity] = dict(of)
            if of["table"] == "things":
                table = other.entities[entity]["table"] = f"things_of_{entity}"
                tables[entity] = f"CREATE TABLE {table} (LIKE things INCLUDING ALL);"
        try:
            await other.prepare(wrong.settings)
            other.entities |= {n: of for n, of in wrong.entities.items() if n == "no_store"}
            other.write_config()
            await other.archive.execute(THINGS + wrong.sql + "".join(tables.values()))
            done = await other.cli(command, check=False)
            texts[name] = done.returncode, done.stdout + done.stderr
        finally:
            await other.close()

    await asyncio.gather(*(try_(name, wrong) for name, wrong in WRONG.items()))
    for name, wrong in WRONG.items():
        code, text = texts[name]
        with subtests.test(name):
            assert code == 2, text[-3000:]
            missing = [each for each in wrong.names if each not in text]
            assert not missing, f"{missing} not in\n{text}"
            assert "Traceback" not in text


async def test_f35_files_and_environment(
    make_world: MakeWorld, subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DESIGN 2.5: no file, no TOML, a wrong variable: exit 2; the environment wins over files."""
    world = await make_world(start=False)
    good = world.daemon.config.read_text()
    monkeypatch.setenv("COORDINATOR_UNITS__TIMEOUT_MS", "never")
    monkeypatch.setenv("COORDINATOR_HTTP__LISTEN", "nonsense")
    done = await world.cli("check", check=False)
    with subtests.test("environment"):
        assert done.returncode == 2
        for name in ("TIMEOUT_MS", "LISTEN"):
            assert name in (done.stdout + done.stderr).upper()
    monkeypatch.delenv("COORDINATOR_UNITS__TIMEOUT_MS")
    monkeypatch.delenv("COORDINATOR_HTTP__LISTEN")
    world.daemon.config.write_text(good + "\n[units\n")
    with subtests.test("no TOML"):
        assert (await world.cli("run", check=False)).returncode == 2
    world.daemon.config.unlink()
    with subtests.test("no file"):
        assert (await world.cli("run", check=False)).returncode == 2


async def test_f35_check_creates_nothing(make_world: MakeWorld) -> None:
    """F35: neither schema nor collection nor topic."""
    world = await make_world(start=False)
    before = await world.topics.names(), sorted(world.catalog.list_collection_names())
    done = await world.cli("check", check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode in {0, 1}
    mine = {name for name in await world.topics.names() if name.startswith(world.topics.prefix)}
    assert mine == {name for name in before[0] if name.startswith(world.topics.prefix)}
    assert sorted(world.catalog.list_collection_names()) == before[1]
    for connection in (world.ledger, world.archive):
        assert not await connection.fetch(
            "SELECT 1 FROM information_schema.schemata WHERE schema_name = 'coordinator'"
        )


SECRET = 'c4n/ary@p:w%rd +"x'
MONGO_SECRET = 'm0ngo/c4nary@:%+"y'


def _forms(secret: str) -> set[str]:
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    return {secret, *quoted, *(q.lower() for q in quoted), json.dumps(secret)[1:-1]}


def _with_password(dsn: str, secret: str) -> str:
    return dsn.replace("postgres@", f"postgres:{quote(secret, safe='')}@", 1)


async def test_f39_secrets_are_nowhere(make_world: MakeWorld) -> None:
    """F39: not in debug logs, outcomes, dead letters, metrics, `/readyz`, commands, exit texts."""
    world = await make_world(start=False)
    address = world.mongodb_uri.partition("://")[2]
    world.settings["log"] = {"level": "debug"}
    for store in ("ledger", "archive"):
        world.settings["stores"][store]["dsn"] = _with_password(world.dsn_of[store], SECRET)
    world.write_config()
    await world.start()
    taken = f"{new_id()}@x"
    await world.committed(insert("customer", new_number(), name="n", email=taken))
    for operations in (
        [insert("customer", new_number(), name="n", email=taken), insert("entry", new_id())],
        [setting("account", new_number(), note="x")],
        [insert("guarded", 1, size=0)],
        [{"op": "?"}],
    ):
        assert (await world.run(*operations))["status"] != "committed"
    place = await world.topics.submit("not json")
    await world.topics.dead_letter(place)
    texts = [(await world.daemon.get(path))[1] for path in ("/metrics", "/readyz", "/livez")]
    done = await world.cli("check", check=False)
    texts += [done.stdout, done.stderr]
    await world.daemon.stop()
    # Wrong credentials, a server that is not there, and an address that cannot be read.
    credentials = f"u:{quote(MONGO_SECRET, safe='')}"
    mongodb = world.settings["stores"]["catalog"]
    mongodb["uri"] = f"mongodb://{credentials}@{address}"
    archive = world.settings["stores"]["archive"]
    archive["dsn"] = f"postgresql://postgres:{quote(SECRET, safe='')}@127.0.0.1:1/nowhere"
    world.write_config()
    world.daemon.expected_errors.add("library.message")
    world.daemon.spawn()

    async def complains() -> bool:
        status, body = await world.daemon.get("/readyz")
        texts.append(body)
        return status == 503 and "archive" in str(body)

    async def warned() -> bool:
        assert world.daemon.exit_code() in {None, 2}, world.daemon.tail()
        return world.daemon.exit_code() == 2 or await complains()

    await until(warned, "the stores are refused", 30, world.daemon.tail)
    done = await world.cli("check", check=False)
    assert done.returncode != 0
    texts += [done.stdout, done.stderr]
    if world.daemon.exit_code() is None:
        await world.daemon.stop()
    archive["dsn"] = f"postgresql://postgres:{quote(SECRET, safe='')}@127.0.0.1:port/nowhere"
    mongodb["uri"] = f"mongodb://{credentials}@:x:/?replicaSet"
    world.write_config()
    for command in ("run", "check"):
        done = await world.cli(command, check=False)
        assert done.returncode == 2, done
        texts += [done.stdout, done.stderr]
    texts += [str(record) for record in world.topics.records]
    texts.append(world.daemon.log_text())
    for number, text in enumerate(map(str, texts)):
        for secret in (SECRET, MONGO_SECRET):
            found = [form for form in _forms(secret) if form in text]
            place_of = [line for line in text.splitlines() if any(form in line for form in found)]
            assert not found, f"text {number} holds {found}: {place_of[:3]}"
