"""Where partitions end now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from coordinator.domain.errors import StoreUnavailable
from coordinator.engine.ports import Partition
from coordinator.kafka.topics import describe_topics

_REQUEST_TIMEOUT_MS = 10_000


async def partition_ends(
    bootstrap_servers: str,
    client_options: Mapping[str, Any],
    allow_plaintext: bool,
    partitions: Collection[Partition],
) -> Mapping[Partition, int]:
    """Give the offset that the next record of each partition will have.

    Partitions that are not there are missing; none is made by being asked for. Raises
    `StoreUnavailable` when no broker answers.
    """
    topics = sorted({topic for topic, _ in partitions})
    facts = await describe_topics(
        bootstrap_servers, topics, client_options=client_options, allow_plaintext=allow_plaintext
    )
    wanted = [
        TopicPartition(topic, number)
        for topic, number in partitions
        if topic in facts and number < facts[topic].partitions
    ]
    if not wanted:
        return {}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        group_id=None,
        enable_auto_commit=False,
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
        **client_options,
    )
    try:
        await consumer.start()
        ends = await consumer.end_offsets(wanted)
    except (KafkaError, OSError, TimeoutError) as error:
        raise StoreUnavailable("kafka", f"The brokers do not answer: {error!r}.") from error
    finally:
        await consumer.stop()
    return {(place.topic, place.partition): end for place, end in ends.items()}
