"""A world whose servers guard themselves: the daemon comes in by TLS and with the least roles."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pymongo
from pymongo.errors import OperationFailure

from tests.acceptance.harness.world import World
from tests.guarded import PASSWORD, Guarded

Json = dict[str, Any]
ROLES = ("migrate", "run", "read")
POSTGRESQL = ("ledger", "archive")


def secure_settings(world: World, guarded: Guarded, role: str = "coordinator_run") -> Json:
    """Give overrides with which the daemon uses TLS, and this role everywhere."""
    return {
        "journal": {"migrate": False},
        "kafka": {
            "bootstrap_servers": guarded.kafka.bootstrap("ACL"),
            "security_protocol": "SASL_SSL",
            "ca_file": str(guarded.certificates.ca),
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": "coordinator",
            "sasl_password": PASSWORD,
        },
        "topics": {"create": False},
        "stores": {
            **{
                name: {"dsn": guarded.dsn(role, PASSWORD, f"{world.name}_{name}")}
                for name in POSTGRESQL
            },
            "catalog": {"uri": guarded.mongodb.uri(role, PASSWORD, authSource=world.name)},
        },
    }


async def grant_roles(world: World, guarded: Guarded) -> None:
    """Run the product's own scripts, as an administrator would."""
    for store in POSTGRESQL:
        script = (await world.cli("roles", store)).stdout
        connection = await asyncpg.connect(world.dsn_of[store])
        await connection.execute(script)
        for role in ROLES:
            await connection.execute(f"ALTER ROLE coordinator_{role} PASSWORD '{PASSWORD}'")
        await connection.close()
    script = (await world.cli("roles", "catalog")).stdout
    with pymongo.MongoClient[Json](guarded.mongodb_uri) as client:
        for name, privileges in scripted_roles(script):
            _put(client, world.name, name, privileges)


async def grant_kafka(world: World, guarded: Guarded) -> None:
    """Make the topics, and give the daemon's user the rights that docs/how-to/tls.md names."""
    topics = world.topics
    written = [
        topics.outcomes_topic,
        topics.dead_letters_topic,
        topics.replies_topic,
        *(topics.changes_topic(entity) for entity in world.entities),
    ]
    await topics.create({name: {} for name in (topics.units, *written)}, partitions=4)
    await guarded.kafka.grant(
        ("Read Describe DescribeConfigs", "topic", topics.units),
        ("Read", "group", world.name),
        *(("Write Describe DescribeConfigs", "topic", name) for name in written),
    )


def scripted_roles(script: str) -> list[tuple[str, list[Json]]]:
    """Read the roles out of the script for mongosh, which is not needed for a test."""
    called = [line for line in script.splitlines() if line.startswith("role(")]
    return [tuple(json.loads("[" + line[len("role(") : -1] + "]")) for line in called]


def _put(
    client: pymongo.MongoClient[Json], database: str, role: str, privileges: list[Json]
) -> None:
    try:
        client[database].command("createRole", role, privileges=privileges, roles=[])
        client[database].command("createUser", role, pwd=PASSWORD, roles=[role])
    except OperationFailure as error:
        if "already exists" not in str(error):
            raise
        client[database].command("updateRole", role, privileges=privileges, roles=[])


async def migrate(world: World, guarded: Guarded) -> None:
    """`coordinator migrate` with the role that may make tables."""
    stores = secure_settings(world, guarded, "coordinator_migrate")["stores"]
    given: list[str] = []
    for store in POSTGRESQL:
        given += ["--set", f"stores.{store}.dsn={stores[store]['dsn']}"]
    given += ["--set", f"stores.catalog.uri={stores['catalog']['uri']}"]
    await world.cli("migrate", *given)
