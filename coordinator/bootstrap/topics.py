"""All topics that the daemon needs, there or made."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.bootstrap.kafka_security import kafka_options
from coordinator.domain.announce import Announcer
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.kafka.topics import ensure_topics
from coordinator.settings import Settings


def topic_names(settings: Settings, mapping: EntityMapping) -> list[str]:
    """Every topic by name, those of units first."""
    topics = settings.topics
    changes = Announcer("", "", topics.outcomes, topics.changes)
    return [
        *(intake.topic for intake in settings.intakes),
        topics.outcomes,
        topics.dead_letters,
        *(changes.topic_of(entity) for entity in mapping.entities),
        *reply_topics(settings),
    ]


async def ensure_all_topics(settings: Settings, mapping: EntityMapping) -> Mapping[str, int]:
    """See to it that all topics exist; give their ``max.message.bytes``."""
    topics = settings.topics
    return await ensure_topics(
        settings.kafka.bootstrap_servers,
        topic_names(settings, mapping),
        create=topics.create,
        partitions=topics.partitions,
        replication_factor=topics.replication_factor,
        dead_letters={topics.dead_letters: [intake.topic for intake in settings.intakes]},
        client_options=kafka_options(settings),
        allow_plaintext=settings.kafka.allow_plaintext,
    )


def reply_topics(settings: Settings) -> list[str]:
    """Every topic that a ``reply-to`` header may name, whatever topic it comes from."""
    return list(dict.fromkeys(name for intake in settings.intakes for name in intake.reply_to))
