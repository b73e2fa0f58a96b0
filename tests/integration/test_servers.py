"""The fixtures for real servers give each test a place of its own."""

import asyncpg
import pymongo
import pytest
from aiokafka.admin import AIOKafkaAdminClient

pytestmark = pytest.mark.integration

seen: list[str] = []


@pytest.mark.parametrize("turn", [1, 2])
async def test_a_fresh_postgresql_database(postgres_dsn: str, turn: int) -> None:
    assert postgres_dsn not in seen
    seen.append(postgres_dsn)
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("CREATE TABLE same_name (n int)")
    await connection.close()


async def test_a_forgotten_connection_does_not_keep_the_database(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("BEGIN")
    connection.terminate()


@pytest.mark.parametrize("turn", [1, 2])
def test_a_fresh_mongodb_database(mongodb_database: tuple[str, str], turn: int) -> None:
    uri, name = mongodb_database
    with pymongo.MongoClient[dict[str, object]](uri) as client:
        assert client[name].list_collection_names() == []
        with client.start_session() as session, session.start_transaction():
            client[name].same_name.insert_one({"_id": 1}, session=session)


async def test_a_topic_prefix_and_a_broker(kafka_bootstrap: str, kafka_prefix: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        assert not [name for name in await admin.list_topics() if name.startswith(kafka_prefix)]
    finally:
        await admin.close()
