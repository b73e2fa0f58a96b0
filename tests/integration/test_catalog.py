"""The catalogs of real servers, read and compared with mappings."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import asyncpg
import pymongo
import pytest

from coordinator import postgres_pool
from coordinator.domain.entity import Column, Limits
from coordinator.domain.errors import ConfigurationInvalid, StoreUnavailable
from coordinator.mapping import (
    Catalog,
    Declaration,
    MongodbCatalog,
    Resolution,
    load_entities,
    read_mongodb_catalog,
    read_postgresql_catalog,
    resolve,
    tables_of,
)
from coordinator.mapping.catalog import LiveCollection, PostgresqlCatalog
from coordinator.settings import load_settings

pytestmark = pytest.mark.integration

NOTHING: Mapping[str, str] = MappingProxyType({})


class SyncServer:
    """One database, asked by a blocking driver: enough to read a catalog."""

    def __init__(self, database: pymongo.database.Database[dict[str, Any]]) -> None:
        self._database = database

    async def hello(self) -> Mapping[str, Any]:
        return self._database.client.admin.command("hello")

    async def list_collections(self) -> Sequence[Mapping[str, Any]]:
        return list(self._database.list_collections())


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[postgres_pool.Pool]:
    pool = await postgres_pool.open_pool(postgres_dsn, "test", max_size=2)
    yield pool
    await postgres_pool.close_pool(pool)


async def execute(dsn: str, script: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


async def catalog_of(pool: postgres_pool.Pool, *tables: tuple[str, str]) -> PostgresqlCatalog:
    async with postgres_pool.connected(pool, "ledger") as connection:
        return await read_postgresql_catalog(connection, tables)


def declare(tmp_path: Path, entities: str, **dsns: str) -> tuple[Declaration, ...]:
    """Read entities over PostgreSQL stores of these names; the first holds the journal."""
    (tmp_path / "entities.toml").write_text(entities)
    stores = "".join(
        f'[stores.{name}]\nkind = "postgresql"\ndsn = "{dsn}"\n' for name, dsn in dsns.items()
    )
    (tmp_path / "coordinator.toml").write_text(
        f'[journal]\nstore = "{next(iter(dsns))}"\n'
        f'[kafka]\nbootstrap_servers = "127.0.0.1:9092"\n{stores}'
    )
    return load_entities(load_settings(tmp_path / "coordinator.toml", {}, NOTHING))


TYPES = """
CREATE SCHEMA app;
CREATE DOMAIN app.money AS numeric(12,4) CHECK (VALUE >= 0);
CREATE DOMAIN app.price AS app.money NOT NULL DEFAULT 0;
CREATE TYPE app.mood AS ENUM ('well', 'ill');
CREATE TABLE app."All Types" (
    id text PRIMARY KEY,
    dropped text,
    text_ text, word varchar(5), fixed char(3),
    small smallint, int_ integer, big bigint, huge numeric(20,0),
    amount numeric(12,4), free numeric, coarse numeric(3,-2), priced app.price,
    real_ real, double_ double precision, flag boolean,
    at_ timestamptz, at_seconds timestamptz(0), day date, uid uuid, bytes_ bytea,
    data jsonb, raw json, mood app.mood,
    twice integer GENERATED ALWAYS AS (int_ * 2) STORED,
    serial_ integer GENERATED ALWAYS AS IDENTITY,
    filled text NOT NULL DEFAULT 'x'
);
ALTER TABLE app."All Types" DROP COLUMN dropped;
"""

ENTITY = """
[sample]
store = "ledger"
table = "app.All Types"
key = "id"
[sample.fields]
id = { type = "string" }
text_ = { type = "string", nullable = true }
word = { type = "string", nullable = true }
fixed = { type = "string", nullable = true }
small = { type = "integer", nullable = true }
int_ = { type = "integer", nullable = true }
big = { type = "integer", nullable = true }
huge = { type = "integer", nullable = true }
amount = { type = "decimal", nullable = true }
free = { type = "decimal", nullable = true }
coarse = { type = "decimal", nullable = true }
priced = { type = "decimal", nullable = true }
real_ = { type = "float", nullable = true }
double_ = { type = "float", nullable = true }
flag = { type = "boolean", nullable = true }
at_ = { type = "timestamp", nullable = true }
at_seconds = { type = "timestamp", nullable = true }
day = { type = "date", nullable = true }
uid = { type = "uuid", nullable = true }
bytes_ = { type = "binary", nullable = true }
data = { type = "json", nullable = true }
raw = { type = "json", nullable = true }
twice = { type = "integer", read_only = true }
serial_ = { type = "integer" }
"""


async def test_every_type_and_its_limits(
    postgres_dsn: str, pool: postgres_pool.Pool, tmp_path: Path
) -> None:
    await execute(postgres_dsn, TYPES)
    declared = declare(tmp_path, ENTITY, ledger=postgres_dsn)
    catalog = await catalog_of(pool, *tables_of(declared, "ledger"))
    found = resolve(declared, {"ledger": catalog}, journal_store="ledger")
    sample = found.mapping.entities["sample"]
    limits = {name: field.limits for name, field in sample.fields.items()}
    assert limits == {
        **dict.fromkeys(sample.fields, Limits()),
        "word": Limits(length=5),
        "fixed": Limits(length=3, padded=True),
        "small": Limits(integer_min=-(2**15), integer_max=2**15 - 1),
        "int_": Limits(integer_min=-(2**31), integer_max=2**31 - 1),
        "big": Limits(integer_min=-(2**63), integer_max=2**63 - 1),
        "huge": Limits(precision=20, scale=0),
        "amount": Limits(precision=12, scale=4),
        "coarse": Limits(precision=3, scale=-2),
        "priced": Limits(precision=12, scale=4),
        "real_": Limits(single_float=True),
        "at_seconds": Limits(fraction_digits=0),
        "twice": Limits(integer_min=-(2**31), integer_max=2**31 - 1),
        "serial_": Limits(integer_min=-(2**31), integer_max=2**31 - 1),
    }
    columns = {column.name: column for column in sample.columns}
    assert "dropped" not in columns
    assert columns["priced"] == Column("priced", "app.price")  # qualified, so a cast finds it
    assert columns["mood"] == Column("mood", "app.mood")
    assert columns["amount"].type == "numeric(12,4)"
    assert columns["twice"].generated
    assert columns["serial_"].identity
    assert found.warnings == ()
    assert found.missing_rights == ()


KEYS = """
CREATE TABLE plain (id integer PRIMARY KEY);
CREATE TABLE uniq (id integer NOT NULL UNIQUE);
CREATE TABLE nullable (id integer UNIQUE);
CREATE TABLE pair (id integer, b integer, PRIMARY KEY (id, b));
CREATE TABLE partial (id integer NOT NULL);
CREATE UNIQUE INDEX ON partial (id) WHERE id > 0;
CREATE TABLE expression (id text NOT NULL);
CREATE UNIQUE INDEX ON expression (lower(id));
CREATE TABLE deferrable_ (id integer PRIMARY KEY DEFERRABLE);
CREATE TABLE covering (id integer NOT NULL, b integer);
CREATE UNIQUE INDEX ON covering (id) INCLUDE (b);
CREATE TABLE parted (id integer PRIMARY KEY) PARTITION BY HASH (id);
CREATE VIEW seen AS SELECT 1 AS id;
CREATE TABLE parent_ (id integer PRIMARY KEY);
CREATE TABLE child () INHERITS (parent_);
"""


def entity(name: str, of_type: str = "integer", store: str = "ledger") -> str:
    return (
        f'[{name}]\nstore = "{store}"\ntable = "{name}"\nkey = "id"\n'
        f'fields = {{ id = {{ type = "{of_type}" }} }}\n'
    )


async def test_what_is_a_key(postgres_dsn: str, pool: postgres_pool.Pool, tmp_path: Path) -> None:
    await execute(postgres_dsn, KEYS)
    good = ["plain", "uniq", "covering", "parted"]
    bad = ["nullable", "pair", "partial", "deferrable_", "seen", "parent_"]
    text = "".join(map(entity, good + bad)) + entity("expression", "string")
    declared = declare(tmp_path, text, ledger=postgres_dsn)
    catalog = await catalog_of(pool, *tables_of(declared, "ledger"))
    with pytest.raises(ConfigurationInvalid) as caught:
        resolve(declared, {"ledger": catalog}, journal_store="ledger")
    told = [
        mistake.removeprefix(f"{tmp_path}/entities.toml: ") for mistake in caught.value.mistakes
    ]
    sentence = "column id must be PRIMARY KEY or UNIQUE NOT NULL by itself, and not DEFERRABLE"
    assert told == [
        f"nullable.key: {sentence}",
        f"pair.key: {sentence}",
        f"partial.key: {sentence}",
        f"deferrable_.key: {sentence}",
        "seen.table: public.seen is a view, not a table",
        f"seen.key: {sentence}",
        "parent_.table: public.parent_ has tables that inherit from it, where its key is not "
        "unique",
        f"expression.key: {sentence}",
    ]


FOREIGN = """
CREATE TABLE owner (id integer PRIMARY KEY, code text UNIQUE);
CREATE TABLE kept (id integer PRIMARY KEY, owner integer REFERENCES owner);
CREATE TABLE gone (id integer PRIMARY KEY, owner integer REFERENCES owner ON DELETE CASCADE);
CREATE TABLE nulled (id integer PRIMARY KEY, code text REFERENCES owner (code) ON DELETE SET NULL);
CREATE TABLE reset (id integer, owner integer REFERENCES owner ON DELETE SET DEFAULT)
    PARTITION BY HASH (id);
CREATE TABLE reset_0 PARTITION OF reset FOR VALUES WITH (MODULUS 1, REMAINDER 0);
"""


async def test_foreign_keys_that_spoil_undo_or_order(
    postgres_dsn: str, pool: postgres_pool.Pool, tmp_path: Path
) -> None:
    await execute(postgres_dsn, FOREIGN)
    kept = entity("kept").replace("} }", '}, owner = { type = "integer", nullable = true } }')
    declared = declare(tmp_path, entity("owner") + kept, ledger=postgres_dsn)
    catalog = await catalog_of(pool, *tables_of(declared, "ledger"))
    with pytest.raises(ConfigurationInvalid) as caught:
        resolve(declared, {"ledger": catalog}, journal_store=None)
    told = [
        mistake.removeprefix(f"{tmp_path}/entities.toml: ") for mistake in caught.value.mistakes
    ]
    assert sorted(told) == sorted(
        [
            f"owner.operations: delete cannot be undone here, because foreign key {name} of "
            f"public.{table} is ON DELETE {action}; leave delete out of operations, or make the "
            "foreign key NO ACTION"
            for name, table, action in (
                ("gone_owner_fkey", "gone", "CASCADE"),
                ("nulled_code_fkey", "nulled", "SET NULL"),
                ("reset_owner_fkey", "reset", "SET DEFAULT"),
                ("reset_owner_fkey", "reset_0", "SET DEFAULT"),
            )
        ]
        + [
            "kept.references: foreign key kept_owner_fkey on owner refers to entity owner; "
            'add owner = "owner.id"'
        ]
    )
    named = declare(
        tmp_path,
        entity("owner") + kept + '[kept.references]\nowner = "owner.id"\n',
        ledger=postgres_dsn,
    )
    assert resolve(named, {"ledger": catalog}, journal_store="ledger").mapping.entities


GUARDED = """
CREATE ROLE {role} LOGIN;
CREATE TABLE guarded (id integer PRIMARY KEY, note text);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER active BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE TRIGGER asleep BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION nothing();
ALTER TABLE guarded DISABLE TRIGGER asleep;
CREATE RULE mirrored AS ON DELETE TO guarded DO ALSO NOTIFY x;
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
GRANT SELECT, UPDATE (note) ON guarded TO {role};
"""


async def test_what_also_acts_and_what_we_may_not(
    postgres_dsn: str, pool: postgres_pool.Pool, tmp_path: Path
) -> None:
    role = postgres_dsn.partition("?")[0].rpartition("/")[2] + "_role"
    await execute(postgres_dsn, GUARDED.format(role=role))
    declared = declare(tmp_path, entity("guarded"), ledger=postgres_dsn)
    try:
        async with postgres_pool.connected(pool, "ledger") as connection:
            await connection.execute(f"SET ROLE {role}")
            catalog = await read_postgresql_catalog(connection, tables_of(declared, "ledger"))
            await connection.execute("RESET ROLE")
        found = resolve(declared, {"ledger": catalog}, journal_store="ledger")
    finally:
        await execute(postgres_dsn, f"DROP OWNED BY {role}; DROP ROLE {role}")
    place = f"{tmp_path}/entities.toml: guarded.table: "
    assert [each.removeprefix(place) for each in found.warnings] == [
        "trigger active of public.guarded also acts when a write is undone",
        "rule mirrored of public.guarded may replace what we write",
        "row security of public.guarded may hide rows from us",
    ]
    assert found.missing_rights == (
        f"{place}store ledger does not grant us DELETE, INSERT on public.guarded",
    )


async def test_a_server_that_is_away(tmp_path: Path) -> None:
    pool = await postgres_pool.open_pool("postgresql://app@127.0.0.1:1/app", "test")
    with pytest.raises(StoreUnavailable):
        await catalog_of(pool, ("public", "t"))
    await postgres_pool.close_pool(pool)


# --- MongoDB ------------------------------------------------------------------------------------


async def test_the_catalog_of_mongodb(mongodb_database: tuple[str, str]) -> None:
    uri, name = mongodb_database
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        database = client[name]
        database.create_collection("plain")
        database.create_collection("small", capped=True, size=4096)
        database.create_collection("folded", collation={"locale": "en", "strength": 2})
        database.create_collection("bytewise", collation={"locale": "simple"})
        database.create_collection("seen", viewOn="plain", pipeline=[])
        catalog = await read_mongodb_catalog(SyncServer(database))
    assert catalog.has_transactions
    found = {key: each for key, each in catalog.collections.items() if "system." not in key}
    assert found == {
        "plain": LiveCollection("plain", "collection"),
        "small": LiveCollection("small", "collection", capped=True),
        "folded": LiveCollection("folded", "collection", has_collation=True),
        "bytewise": LiveCollection("bytewise", "collection"),
        "seen": LiveCollection("seen", "view"),
    }


async def test_a_server_without_transactions() -> None:
    class Alone:
        async def hello(self) -> Mapping[str, Any]:
            return {"isWritablePrimary": True}

        async def list_collections(self) -> Sequence[Mapping[str, Any]]:
            return []

    assert await read_mongodb_catalog(Alone()) == MongodbCatalog(False, {})


# --- the sample shop ----------------------------------------------------------------------------


async def shop(
    postgres_dsn: str, pool: postgres_pool.Pool, mongodb_database: tuple[str, str]
) -> Resolution:
    await execute(postgres_dsn, Path("config/sample/shop.sql").read_text())
    await execute(postgres_dsn, Path("config/sample/shop.sql").read_text())  # may be run again
    uri, name = mongodb_database
    settings = load_settings(Path("config/coordinator.toml"), {}, NOTHING)
    declared = load_entities(settings)
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        sample = json.loads(Path("config/sample/shop.json").read_text())
        for collection, made in sample["collections"].items():
            validator = made.get("validator", {})
            client[name].create_collection(collection, validator=validator)
            for index in made["indexes"]:
                keys = list(index.pop("key").items())
                client[name][collection].create_index(keys, **index)
        for collection, documents in sample["documents"].items():
            client[name][collection].insert_many(documents)
        mongodb = await read_mongodb_catalog(SyncServer(client[name]))
    catalogs: dict[str, Catalog] = {
        "ledger": await catalog_of(pool, *tables_of(declared, "ledger")),
        "catalog": mongodb,
    }
    return resolve(declared, catalogs, journal_store=settings.journal.store)


async def test_the_sample_shop_fits_its_mapping(
    postgres_dsn: str, pool: postgres_pool.Pool, mongodb_database: tuple[str, str]
) -> None:
    found = await shop(postgres_dsn, pool, mongodb_database)
    assert found.warnings == ()
    assert found.missing_rights == ()
    assert found.missing_collections == {}
    assert found.mapping.stores == ("catalog", "ledger")


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE stock SET on_hand = 7 WHERE sku = 'tea-2'", asyncpg.CheckViolationError),
        (
            "UPDATE customers SET email = 'ada@shop.example' WHERE id = 6",
            asyncpg.UniqueViolationError,
        ),
        (
            "UPDATE stock SET shelf = 'A1' WHERE sku = 'tea-2'; SET CONSTRAINTS ALL IMMEDIATE",
            asyncpg.UniqueViolationError,
        ),
    ],
)
async def test_the_sample_shop_can_refuse_what_its_mapping_allows(
    postgres_dsn: str, statement: str, error: type[asyncpg.PostgresError]
) -> None:
    await execute(postgres_dsn, Path("config/sample/shop.sql").read_text())
    with pytest.raises(error):
        await execute(postgres_dsn, statement)
    swap = (
        "UPDATE stock SET shelf = CASE sku WHEN 'tea-1' THEN 'A2' ELSE 'A1' END WHERE shelf <> ''"
    )
    await execute(postgres_dsn, swap)
