"""What ``coordinator doctor`` asks Kafka about topics; nothing is changed and nothing is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from coordinator.domain.diagnosis import TopicSettings
from coordinator.domain.errors import StoreUnavailable
from coordinator.kafka.topics import admin_client

_WANTED: Final = (
    "cleanup.policy",
    "retention.ms",
    "min.insync.replicas",
    "max.message.bytes",
    "unclean.leader.election.enable",
)


async def read_topic_settings(
    bootstrap_servers: str,
    names: Sequence[str],
    *,
    client_options: Mapping[str, Any],
    allow_plaintext: bool,
) -> Mapping[str, TopicSettings]:
    """Describe those of the topics that exist. Raises `StoreUnavailable`."""
    async with admin_client(bootstrap_servers, client_options, allow_plaintext) as admin:
        listed = {topic["topic"]: topic for topic in await admin.describe_topics(None)}
        known = [name for name in dict.fromkeys(names) if name in listed]
        if not known:
            return {}
        wanted = dict.fromkeys(_WANTED, "")
        answers = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name, wanted) for name in known]
        )
    found: dict[str, TopicSettings] = {}
    for code, reason, _, name, entries in (row for answer in answers for row in answer.resources):
        if code:
            problem = for_code(code)(f"{name}: {reason}")
            raise StoreUnavailable("kafka", f"{problem!r}.") from problem
        partitions = listed[name]["partitions"]
        found[name] = TopicSettings(
            partitions=len(partitions),
            leaderless=sum(each["leader"] < 0 for each in partitions),
            replicas=min(len(each["replicas"]) for each in partitions),
            isr_min=min(len(each["isr"]) for each in partitions),
            settings={entry[0]: entry[1] for entry in entries},
        )
    return found
