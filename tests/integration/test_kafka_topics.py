"""Topics are checked and made on a real broker."""

import pytest

from coordinator.domain.errors import ConfigurationInvalid, StoreUnavailable
from coordinator.kafka.topics import DEAD_LETTER_MARGIN_BYTES, describe_topics, ensure_topics
from tests.integration.test_kafka_ports import admin_of

pytestmark = pytest.mark.integration


async def test_missing_topics_are_made_and_their_limits_told(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    units, letters = f"{kafka_prefix}units", f"{kafka_prefix}units-dlt"
    limits = await ensure_topics(
        kafka_bootstrap,
        [letters, units],
        create=True,
        partitions=3,
        dead_letters={letters: [units]},
    )
    assert limits[letters] == limits[units] + DEAD_LETTER_MARGIN_BYTES
    facts = await describe_topics(kafka_bootstrap, [units, letters, f"{kafka_prefix}none"])
    assert set(facts) == {units, letters}
    assert facts[units].partitions == 3
    assert facts[units].cleanup_policy == "delete"
    again = await ensure_topics(kafka_bootstrap, [letters, units], create=False)
    assert again == limits


async def test_every_missing_topic_is_named_when_none_may_be_made(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    names = [f"{kafka_prefix}a", f"{kafka_prefix}b"]
    with pytest.raises(ConfigurationInvalid) as caught:
        await ensure_topics(kafka_bootstrap, names, create=False)
    assert [name in mistake for name, mistake in zip(names, caught.value.mistakes, strict=True)]
    async with admin_of(kafka_bootstrap) as admin:
        assert not set(names) & set(await admin.list_topics())


async def test_what_kafka_refuses_to_make_is_a_mistake_of_the_configuration(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        await ensure_topics(
            kafka_bootstrap,
            [f"{kafka_prefix}bad name", f"{kafka_prefix}wide"],
            create=True,
            replication_factor=9,
        )
    assert len(caught.value.mistakes) == 2


async def test_a_broker_that_is_away_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        await ensure_topics("127.0.0.1:1", ["any"], create=True)
