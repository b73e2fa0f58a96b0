"""The topics that we need: which are there, what they take, and making those that are not.

Refuses to change a topic that exists. Topics are listed whole and not asked for by name, because
a broker with `auto.create.topics.enable` would make what it is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from coordinator.domain.errors import ConfigurationInvalid, StoreUnavailable
from coordinator.kafka_access import plaintext_leaves, why_unreachable
from coordinator.log_events import LogEvent
from coordinator.logs import get_log

DEAD_LETTER_MARGIN_BYTES = 64 * 1024
"""Room in a dead-letter topic for our headers, beside the largest record of its input topic."""

_REQUEST_TIMEOUT_SECONDS = 10
_LEADERS_WITHIN_SECONDS = 10
_MAX_BYTES = "max.message.bytes"
_POLICY = "cleanup.policy"

TopicLimits = Mapping[str, int]
"""Topic → its `max.message.bytes`; a broker's own `message.max.bytes` shows in it as well."""

_log = get_log()


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What is known of a topic. ``partitions`` counts those that have a leader now."""

    partitions: int
    max_message_bytes: int
    cleanup_policy: str


async def describe_topics(
    bootstrap_servers: str,
    names: Sequence[str],
    *,
    client_options: Mapping[str, Any] | None = None,
    allow_plaintext: bool = False,
) -> Mapping[str, TopicFacts]:
    """Describe those of the topics that exist; the others are missing in the answer.

    Changes nothing. Raises `StoreUnavailable` when no broker answers or one refuses to tell, and
    `ConfigurationInvalid` when the brokers name others that must not be spoken to unprotected.
    """
    async with admin_client(bootstrap_servers, client_options or {}, allow_plaintext) as admin:
        return await _facts(admin, names)


async def ensure_topics(
    bootstrap_servers: str,
    names: Sequence[str],
    *,
    create: bool,
    partitions: int = 4,
    replication_factor: int = 1,
    dead_letters: Mapping[str, Sequence[str]] | None = None,
    client_options: Mapping[str, Any] | None = None,
    allow_plaintext: bool = False,
) -> TopicLimits:
    """See to it that the topics exist, and give their limits.

    ``dead_letters`` maps a dead-letter topic to the topics whose records it takes, so that it is
    made somewhat larger. Made topics keep by time (`cleanup.policy=delete`). Raises
    `ConfigurationInvalid` with every topic that is missing or cannot be made, or as
    `describe_topics`, and `StoreUnavailable` when the brokers cannot be asked; some topics may
    then have been made.
    """
    names = list(dict.fromkeys(names))
    async with admin_client(bootstrap_servers, client_options or {}, allow_plaintext) as admin:
        facts = await _facts(admin, names)
        missing = [name for name in names if name not in facts]
        if missing and not create:
            raise ConfigurationInvalid(
                [f"Kafka has no topic {name!r}, and topics.create is false." for name in missing]
            )
        sources = dead_letters or {}
        # Dead-letter topics come second: their size follows the topic that they serve.
        for group in (
            [name for name in missing if name not in sources],
            [name for name in missing if name in sources],
        ):
            if group:
                await _create(
                    admin,
                    group,
                    facts,
                    sources,
                    partitions=partitions,
                    replication_factor=replication_factor,
                )
                facts = await _facts_with_leaders(admin, names, group)
    _warn(facts, sources)
    return {name: fact.max_message_bytes for name, fact in facts.items()}


@asynccontextmanager
async def admin_client(
    bootstrap_servers: str, client_options: Mapping[str, Any], allow_plaintext: bool
) -> AsyncIterator[AIOKafkaAdminClient]:
    """Lend a connected admin client; an error of the brokers is `StoreUnavailable`."""
    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap_servers,
        request_timeout_ms=_REQUEST_TIMEOUT_SECONDS * 1000,
        **client_options,
    )
    try:
        await _start(admin, bootstrap_servers, client_options)
        if not allow_plaintext:
            _refuse_other_machines(admin, client_options)
        yield admin
    except (KafkaError, OSError, TimeoutError) as error:
        raise await _unavailable(error, bootstrap_servers, client_options) from error
    finally:
        await admin.close()


async def _start(
    admin: AIOKafkaAdminClient, bootstrap_servers: str, client_options: Mapping[str, Any]
) -> None:
    try:
        await admin.start()
    except Exception as error:  # a server that cannot do SCRAM makes the driver raise anything
        raise await _unavailable(error, bootstrap_servers, client_options) from error


async def _unavailable(
    error: Exception, bootstrap_servers: str, client_options: Mapping[str, Any]
) -> StoreUnavailable:
    reason = await why_unreachable(bootstrap_servers, client_options)
    told = f"No broker takes us: {reason}." if reason else f"The brokers do not answer: {error!r}."
    return StoreUnavailable("kafka", told)


def _refuse_other_machines(admin: AIOKafkaAdminClient, options: Mapping[str, Any]) -> None:
    """The first broker may be on this machine, and name others that are not."""
    others = [f"{broker.host}:{broker.port}" for broker in admin._client.cluster.brokers()]
    if plaintext_leaves(options, others):
        raise ConfigurationInvalid(
            [
                "kafka.security_protocol: leads off this machine, since the brokers name "
                f"{', '.join(sorted(others))}; use SSL or SASL_SSL, or set "
                "kafka.allow_plaintext = true"
            ]
        )


async def _facts(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, TopicFacts]:
    listed = {topic["topic"]: topic for topic in await admin.describe_topics(None)}
    known = [name for name in names if name in listed]
    if not known:
        return {}
    wanted = {_MAX_BYTES: "", _POLICY: ""}
    answers = await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name, wanted) for name in known]
    )
    facts: dict[str, TopicFacts] = {}
    for code, reason, _, name, entries in (row for answer in answers for row in answer.resources):
        if code:
            problem = for_code(code)(f"{name}: {reason}")
            raise StoreUnavailable("kafka", f"{problem!r}.") from problem
        settings = {entry[0]: entry[1] for entry in entries}
        led = [part for part in listed[name]["partitions"] if part["leader"] >= 0]
        facts[name] = TopicFacts(len(led), int(settings[_MAX_BYTES]), settings[_POLICY])
    return facts


async def _create(
    admin: AIOKafkaAdminClient,
    names: Sequence[str],
    facts: Mapping[str, TopicFacts],
    dead_letters: Mapping[str, Sequence[str]],
    *,
    partitions: int,
    replication_factor: int,
) -> None:
    new: list[NewTopic] = []
    for name in names:
        settings = {_POLICY: "delete"}
        served = [facts[each] for each in dead_letters.get(name, ()) if each in facts]
        if served:
            largest = max(source.max_message_bytes for source in served)
            settings[_MAX_BYTES] = str(largest + DEAD_LETTER_MARGIN_BYTES)
        new.append(NewTopic(name, partitions, replication_factor, topic_configs=settings))
    answer = await admin.create_topics(new)
    mistakes: list[str] = []
    for name, code, reason in answer.topic_errors:
        kind = for_code(code)
        if not code:
            _log.info(
                LogEvent.TOPIC_CREATED,
                f"The topic {name} was missing and was made.",
                topic=name,
                partitions=partitions,
            )
        elif kind is not TopicAlreadyExistsError:  # another daemon was quicker
            if kind.retriable:
                raise kind(reason)
            mistakes.append(f"Kafka refuses to make the topic {name!r}: {reason or kind.__name__}")
    if mistakes:
        raise ConfigurationInvalid(mistakes)


async def _facts_with_leaders(
    admin: AIOKafkaAdminClient, names: Sequence[str], made: Sequence[str]
) -> dict[str, TopicFacts]:
    """Wait until the brokers know what was made: the controller answers before they do."""
    async with asyncio.timeout(_LEADERS_WITHIN_SECONDS):
        while True:
            facts = await _facts(admin, names)
            if all(name in facts and facts[name].partitions for name in made):
                return facts
            await asyncio.sleep(0.05)


def _warn(facts: Mapping[str, TopicFacts], dead_letters: Mapping[str, Sequence[str]]) -> None:
    for name, sources in dead_letters.items():
        for source in sources:
            if source in facts and name in facts:
                _warn_of(name, facts[name], source, facts[source])


def _warn_of(name: str, letters: TopicFacts, source: str, units: TopicFacts) -> None:
    if "compact" in units.cleanup_policy:
        _log.warning(
            LogEvent.TOPIC_COMPACTED,
            f"The topic {source} is compacted: Kafka may drop units unread.",
            topic=source,
        )
    needed = units.max_message_bytes + DEAD_LETTER_MARGIN_BYTES
    if letters.max_message_bytes < needed:
        _log.warning(
            LogEvent.TOPIC_TOO_SMALL,
            f"The largest records of {source} do not fit into {name}: "
            f"set its {_MAX_BYTES} to {needed}.",
            topic=name,
            bytes=letters.max_message_bytes,
        )
