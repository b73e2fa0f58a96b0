"""TLS everywhere and the least roles: the whole path goes, and nothing beside it.

PostgreSQL is Debian's here, since the wheel's server has no TLS.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pymongo
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.admin import CreateAclsRequest
from pymongo.errors import OperationFailure

from coordinator.kafka_access import KafkaSecurity
from tests.acceptance.harness.config_text import config_text, merge
from tests.acceptance.harness.daemon import Daemon
from tests.acceptance.harness.guarded_world import (
    grant_kafka,
    grant_roles,
    migrate,
    secure_settings,
)
from tests.acceptance.harness.operations import Json, adding, insert
from tests.acceptance.harness.outsider import holding, holds, stored
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, free_port, new_id, new_number
from tests.guarded import PASSWORD, WRONG, Guarded, debian_postgresql, quoted

pytestmark = pytest.mark.skipif(
    debian_postgresql() is None,
    reason="no PostgreSQL with TLS below /usr/lib/postgresql: apt-get install postgresql",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(guarded: Guarded, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A daemon that came in by TLS, with tables that another role has made."""
    made = World(guarded, tmp_path_factory.mktemp("guarded"))
    try:
        await made.prepare({"worker": {"lease_ttl_seconds": 3}})
        assert guarded.kafka_bootstrap
        merge(made.settings, secure_settings(made, guarded))
        made.write_config()
        await grant_roles(made, guarded)
        await migrate(made, guarded)
        await grant_roles(made, guarded)
        await grant_kafka(made, guarded)
        await made.ledger.execute("CREATE TABLE salaries (id int PRIMARY KEY, amount numeric)")
        made.catalog["salaries"].insert_one({"_id": 1, "amount": 1})
        await made.start()
        yield made
    finally:
        await made.close()


# --- the whole path -----------------------------------------------------------------------------


async def test_a_unit_commits_in_every_store(world: World) -> None:
    account, entry, wallet = new_number(), new_id(), new_id()
    await world.committed(
        insert("account", account, balance="10"),
        insert("entry", entry, amount="1"),
        insert("wallet", wallet, balance="2"),
    )
    row = await stored(world, "entry", entry)
    assert row is not None
    assert world.doc("wallets", wallet)


async def test_what_is_refused_is_undone_everywhere(world: World) -> None:
    """The ceiling of the account is seen only at the pivot; the others have written by then."""
    account, entry, wallet = new_number(), new_id(), new_id()
    await world.committed(insert("account", account, balance="10"))
    outcome = await world.run(
        insert("entry", entry, amount="1"),
        insert("wallet", wallet, balance="2"),
        adding("account", account, balance="900000"),
    )
    assert (outcome["status"], outcome["error"]["code"]) == ("compensated", "constraint_violated")
    assert await stored(world, "entry", entry) is None
    assert world.doc("wallets", wallet) is None
    again = await world.run(insert("account", account, balance="1"))
    assert (again["status"], again["error"]["code"]) == ("rejected", "already_exists")


async def test_another_daemon_takes_over(world: World) -> None:
    """Frozen in the middle of its work: its sessions are ended, in both kinds of stores."""
    second = await world.another_daemon()

    async def is_shared() -> bool:
        assigned = second.logs("intake.assigned")
        return bool(assigned) and 0 < len(assigned[-1]["partitions"]) < 4

    await until(is_shared, "the partitions are shared", 60, second.tail)
    account, entry, wallet = new_number(), new_id(), new_id()
    await world.committed(
        insert("account", account, balance="100"),
        insert("entry", entry, amount="0"),
        insert("wallet", wallet, balance="0"),
    )
    async with holding(world, "accounts", account):
        unit_id, _ = await world.place(
            adding("entry", entry, amount="5"),
            adding("wallet", wallet, balance="5"),
            adding("account", account, balance="-5"),
            partition=second.logs("intake.assigned")[-1]["partitions"][0],
            timeout_ms=120_000,
        )
        await holds(world, "entry", entry, version=2)
        second.send(signal.SIGSTOP)
        try:

            async def is_taken_over() -> bool:
                return bool(world.daemon.logs("worker.taken_over"))

            await until(is_taken_over, "the first takes over", 60, world.daemon.tail)
        finally:
            second.send(signal.SIGCONT)
        assert await second.ended() != 0
    assert (await world.result(unit_id, seconds=60))["status"] == "committed"
    assert not world.daemon.logs("duty.retried"), "a right was missing"


async def test_the_commands_of_an_operator(world: World, guarded: Guarded) -> None:
    """A client is somebody else than the daemon, which may not write units."""
    await world.cli("check")
    await world.cli("units", "list")
    account = new_number()
    unit = world.folder / "unit.json"
    unit.write_text(
        f'{{"id": "{new_id()}", "operations": [{{"op": "insert", "entity": "account", '
        f'"key": {account}, "values": {{"balance": "1"}}}}]}}'
    )
    client = (
        "kafka.sasl_username=app",
        f"kafka.bootstrap_servers={guarded.kafka.bootstrap('SCRAM')}",
    )
    await world.cli("submit", str(unit), *(each for one in client for each in ("--set", one)))


async def test_the_transport_is_as_it_should_be(world: World) -> None:
    """Every session of the daemon is encrypted, and no connection is told to be open."""
    rows = await world.ledger.fetch(
        "SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)"
        " WHERE a.usename = 'coordinator_run'"
    )
    assert rows
    assert all(row["ssl"] for row in rows)
    assert not world.daemon.logs("transport.unprotected")
    _, metrics = await world.daemon.get("/metrics")
    told = [line for line in metrics.splitlines() if "transport_unprotected{" in line]
    assert len(told) == 4
    assert all(line.endswith(" 0.0") for line in told)


async def test_row_values_stay_out_of_log_and_metrics(world: World) -> None:
    """DESIGN 2.7: what stores say of a refused row quotes it; what we say does not."""
    canary = f"canary-{new_id()}"
    first, second = new_number(), new_number()
    await world.committed(insert("customer", first, name=canary, email=canary))
    for operation, code in (
        (insert("customer", second, name=canary, email=canary), "constraint_violated"),
        (insert("customer", second, name=canary, tier=100), "constraint_violated"),
        (insert("sample", canary, word=canary), "invalid"),
    ):
        outcome = await world.run(operation)
        assert (outcome["status"], outcome["error"]["code"]) == ("rejected", code)
    _, metrics = await world.daemon.get("/metrics")
    assert canary not in metrics
    assert canary not in (world.folder / "daemon.log").read_text()


async def test_a_role_ends_its_own_sessions(world: World, guarded: Guarded) -> None:
    """What a takeover does, alone: without a right of its own."""
    dsn = guarded.dsn("coordinator_run", PASSWORD, f"{world.name}_ledger")
    one, other = [await asyncpg.connect(dsn) for _ in range(2)]
    try:
        pid = other.get_server_pid()
        assert await one.fetchval("SELECT pg_terminate_backend($1)", pid)
    finally:
        await one.close()
        other.terminate()
    uri = guarded.mongodb.uri("coordinator_run", PASSWORD, authSource=world.name)
    with (
        pymongo.MongoClient[Json](uri) as mine,
        pymongo.MongoClient[Json](uri) as another,
        another.start_session() as session,
    ):
        session.start_transaction()
        another[world.name]["wallets"].insert_one({"_id": "open"}, session=session)
        mine.admin.command("killSessions", [session.session_id])
        with pytest.raises(OperationFailure) as caught:
            session.commit_transaction()
        assert caught.value.code in {251, 11601}


# --- what is forbidden --------------------------------------------------------------------------

RUN = (
    "CREATE TABLE public.mine (id int)",
    "CREATE TABLE coordinator.mine (id int)",
    "CREATE SCHEMA mine",
    "DROP SCHEMA coordinator CASCADE",
    "DROP TABLE coordinator.units",
    "ALTER TABLE coordinator.units ADD COLUMN mine int",
    "TRUNCATE coordinator.units",
    "TRUNCATE accounts",
    "DROP TABLE accounts",
    "ALTER TABLE accounts ADD COLUMN mine int",
    "CREATE INDEX ON accounts (balance)",
    "CREATE TRIGGER mine BEFORE UPDATE ON accounts"
    " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "GRANT SELECT ON salaries TO PUBLIC",
    "SELECT * FROM salaries",
    "INSERT INTO salaries VALUES (2, 2)",
    "UPDATE salaries SET amount = 0",
    "DELETE FROM salaries",
    "INSERT INTO coordinator.migrations VALUES (99, 'x', 'x')",
    "UPDATE coordinator.migrations SET checksum = ''",
    "DELETE FROM coordinator.migrations",
    "DELETE FROM coordinator.journal",
    "UPDATE coordinator.audit SET who = 'nobody'",
    "CREATE FUNCTION coordinator.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION coordinator.hold_fence(p_worker bigint) RETURNS void"
    " LANGUAGE plpgsql AS 'BEGIN END'",
    "CREATE EXTENSION dblink",
    "CREATE ROLE mine",
    "ALTER ROLE coordinator_run SUPERUSER",
    "SET ROLE postgres",
    "SET ROLE coordinator_migrate",
    "GRANT coordinator_migrate TO coordinator_run",
    "COPY accounts TO PROGRAM 'id'",
    "COPY accounts FROM '/etc/passwd'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT rolpassword FROM pg_authid",
    "ALTER SYSTEM SET fsync = off",
    "SET session_replication_role = replica",
    "CREATE DATABASE mine",
    "CREATE PUBLICATION mine FOR TABLE accounts",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
)
READ = (
    "SELECT * FROM accounts",
    "INSERT INTO coordinator.audit DEFAULT VALUES",
    "UPDATE coordinator.units SET status = 'committed'",
    "DELETE FROM coordinator.outbox",
    "DELETE FROM coordinator.locks",
    "SELECT coordinator.hold_fence(1)",
    "SELECT 1 FROM coordinator.units FOR UPDATE",
    "CREATE TABLE coordinator.mine (id int)",
)
MIGRATE = (
    "SELECT * FROM accounts",
    "UPDATE accounts SET balance = 0",
    "CREATE TABLE public.mine (id int)",
    "CREATE SCHEMA mine",
    "ALTER TABLE accounts ADD COLUMN mine int",
    "SELECT pg_read_file('/etc/passwd')",
    "CREATE ROLE mine",
)


@pytest.mark.parametrize(
    ("role", "forbidden"), [("run", RUN), ("read", READ), ("migrate", MIGRATE)]
)
async def test_postgresql_refuses(
    world: World, guarded: Guarded, role: str, forbidden: tuple[str, ...]
) -> None:
    dsn = guarded.dsn(f"coordinator_{role}", PASSWORD, f"{world.name}_ledger")
    connection = await asyncpg.connect(dsn)
    allowed = []
    try:
        for statement in forbidden:
            try:
                await connection.execute(statement)
            except asyncpg.InsufficientPrivilegeError:
                continue
            allowed.append(statement)
    finally:
        await connection.close()
    assert not allowed


def _documents(name: str) -> tuple[Json, ...]:
    """The commands that nobody who runs needs, on a mapped collection and on a strange one."""
    return (
        {"create": "mine"},
        {"drop": name},
        {"dropDatabase": 1},
        {"createIndexes": name, "indexes": [{"key": {"x": 1}, "name": "x"}]},
        {"dropIndexes": name, "index": "*"},
        {"collMod": name, "validator": {}},
        {"convertToCapped": name, "size": 4096},
        {"compact": name},
        {"validate": name},
        {"find": "salaries"},
        {"insert": "salaries", "documents": [{"_id": 2}]},
        {"update": "salaries", "updates": [{"q": {}, "u": {"$set": {"amount": 0}}}]},
        {"delete": "salaries", "deletes": [{"q": {}, "limit": 0}]},
        {"aggregate": name, "pipeline": [{"$out": "mine"}], "cursor": {}},
        {"aggregate": name, "pipeline": [{"$merge": "mine"}], "cursor": {}},
        {
            "aggregate": name,
            "pipeline": [
                {
                    "$lookup": {
                        "from": "salaries",
                        "as": "s",
                        "localField": "_id",
                        "foreignField": "_id",
                    }
                }
            ],
            "cursor": {},
        },
        {"find": "system.users"},
        {"createUser": "mine", "pwd": "x", "roles": []},
        {"createRole": "mine", "privileges": [], "roles": []},
        {"grantRolesToUser": "coordinator_run", "roles": ["readWrite"]},
        {"updateUser": "coordinator_run", "roles": ["root"]},
        {"usersInfo": 1},
    )


ADMIN: tuple[Json, ...] = (
    {"shutdown": 1},
    {"setParameter": 1, "logLevel": 0},
    {"getParameter": "*"},
    {"killAllSessions": []},
    {"killOp": 1, "op": 1},
    {"currentOp": 1, "$all": True},
    {"serverStatus": 1},
    {"fsync": 1},
    {"replSetGetConfig": 1},
    {"replSetStepDown": 1},
    {"getLog": "global"},
    {"rotateCertificates": 1},
    {"find": "system.users"},
    {"renameCollection": "app.wallets", "to": "app.mine"},
)


@pytest.mark.parametrize("role", ["run", "read", "migrate"])
async def test_mongodb_refuses(world: World, guarded: Guarded, role: str) -> None:
    uri = guarded.mongodb.uri(f"coordinator_{role}", PASSWORD, authSource=world.name)
    more: dict[str, tuple[Json, ...]] = {
        "run": (),
        "read": (
            {"find": "wallets"},
            {"insert": "_coordinator_undo", "documents": [{"_id": "x"}]},
            {"delete": "_coordinator_fences", "deletes": [{"q": {}, "limit": 0}]},
        ),
        "migrate": (
            {"find": "wallets"},
            {"insert": "wallets", "documents": [{"_id": "x"}]},
            {"find": "_coordinator_undo"},
        ),
    }
    allowed = []
    with pymongo.MongoClient[Json](uri) as client:
        cases = [(client[world.name], each) for each in (*_documents("wallets"), *more[role])]
        cases += [(client["admin"], each) for each in ADMIN]
        cases.append((client["local"], {"find": "oplog.rs"}))
        for database, command in cases:
            try:
                database.command(command)
            except OperationFailure as error:
                if error.code == 13:
                    continue
                allowed.append((command, error.code))
            else:
                allowed.append((command, None))
    assert not allowed
    assert len(cases) >= 30


async def test_kafka_refuses(world: World, guarded: Guarded) -> None:
    options = KafkaSecurity(
        "SASL_SSL",
        guarded.certificates.ca,
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="coordinator",
        sasl_password=PASSWORD,
    ).options()
    servers = {"bootstrap_servers": guarded.kafka.bootstrap("ACL")}
    topics = world.topics
    admin = AIOKafkaAdminClient(**servers, **options)
    await admin.start()
    try:
        made = await admin.create_topics([NewTopic("mine", 1, 1)])
        gone = await admin.delete_topics([topics.units])
        answers = [each[1] for each in (*made.topic_errors, *gone.topic_error_codes)]
        assert [for_code(code) for code in answers] == [TopicAuthorizationFailedError] * 2
        acls = await admin._send_request(
            CreateAclsRequest(2, "*", 3, "User:coordinator", "*", 2, 3)
        )
        assert for_code(acls.creation_responses[0][0]) is ClusterAuthorizationFailedError
    finally:
        await admin.close()
    async with AIOKafkaProducer(**servers, **options) as producer:
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.send_and_wait(topics.units, b"{}", partition=0)
    place = TopicPartition(topics.outcomes_topic, 0)
    consumer = AIOKafkaConsumer(**servers, **options, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([place])
        with pytest.raises(TopicAuthorizationFailedError):
            await asyncio.wait_for(consumer.getone(), 60)
    finally:
        await consumer.stop()


# --- wrong passwords, from the outside ----------------------------------------------------------


async def test_what_cannot_be_entered_is_told_without_a_secret(
    world: World, guarded: Guarded, tmp_path: Path
) -> None:
    """F35, F39: `check` names every one of them and exits with 1; `run` stays up and says why."""
    settings: Json = {}
    merge(settings, world.settings)
    settings["http"] = {"listen": f"127.0.0.1:{free_port()}"}
    settings["kafka"] = {**settings["kafka"], "sasl_password": WRONG}
    settings["stores"] = {
        **settings["stores"],
        "archive": {
            **settings["stores"]["archive"],
            "dsn": guarded.dsn("coordinator_run", WRONG, f"{world.name}_archive"),
        },
        "catalog": {
            **settings["stores"]["catalog"],
            "uri": guarded.mongodb.uri("coordinator_run", WRONG, authSource=world.name),
        },
    }
    config = tmp_path / "coordinator.toml"
    config.write_text(config_text(settings))
    (tmp_path / "entities.toml").write_text(config_text(world.entities))
    done = await world.cli("check", check=False, config=config)
    assert done.returncode == 1, done
    for sentence in (
        "SQLSTATE 28P01",
        "server refuses our name and password",
        "No broker takes us",
    ):
        assert sentence in done.stdout

    daemon = Daemon(config, tmp_path / "daemon.log", settings["http"]["listen"])
    daemon.spawn()
    try:
        body = await until(
            lambda: _reason(daemon, "archive"), "/readyz names the archive", 60, daemon.tail
        )
        assert "refuses our name, our password" in body
        await daemon.stop()
    finally:
        daemon.kill()
    said = done.stdout + done.stderr + body + (tmp_path / "daemon.log").read_text()
    assert not [each for each in (WRONG, PASSWORD, quoted(PASSWORD)) if each in said]


async def _reason(daemon: Daemon, name: str) -> str:
    status, body = await daemon.get("/readyz")
    return body["reasons"].get(name, "") if status == 503 else ""
