"""Every way into a Kafka that guards itself, and what is told when it does not let us in."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from coordinator.client import CoordinatorClient, KafkaSecurity, KafkaUnreachable, TopicMissing
from coordinator.domain.errors import ConfigurationInvalid, StoreUnavailable
from coordinator.kafka.topics import describe_topics, ensure_topics
from coordinator.kafka_access import Mechanism
from tests.guarded import KEY_PASSWORD, PASSWORD, WRONG, Guarded, reveals_nothing, token

pytestmark = pytest.mark.integration


def securities(guarded: Guarded, folder: Path) -> dict[str, KafkaSecurity]:
    """Every way in, by its listener."""
    files = guarded.certificates
    (folder / "token").write_text(token())
    return {
        "SSL": KafkaSecurity("SSL", files.ca),
        "MTLS": KafkaSecurity(
            "SSL", files.ca, files.client_certificate, files.locked_key, KEY_PASSWORD
        ),
        "SCRAM": KafkaSecurity(
            "SASL_SSL",
            files.ca,
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username="app",
            sasl_password=PASSWORD,
        ),
        "PLAIN": KafkaSecurity(
            "SASL_SSL",
            files.ca,
            sasl_mechanism="PLAIN",
            sasl_username="app",
            sasl_password="plain-canary",
        ),
        "OAUTH": KafkaSecurity(
            "SASL_SSL", files.ca, sasl_mechanism="OAUTHBEARER", token_file=folder / "token"
        ),
        "OPEN_SCRAM": KafkaSecurity(
            "SASL_PLAINTEXT",
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username="app",
            sasl_password=PASSWORD,
        ),
    }


@pytest.mark.parametrize("listener", ["SSL", "MTLS", "SCRAM", "PLAIN", "OAUTH", "OPEN_SCRAM"])
async def test_every_way_into_kafka(guarded: Guarded, tmp_path: Path, listener: str) -> None:
    """Admin, producer and consumer, which is all that there is."""
    assert guarded.kafka_bootstrap
    security = securities(guarded, tmp_path)[listener]
    servers = guarded.kafka.bootstrap(listener)
    options = security.options()
    topic = f"way-{listener.lower().replace('_', '-')}"
    limits = await ensure_topics(servers, [topic], create=True, client_options=options)
    assert limits[topic] > 0
    async with AIOKafkaProducer(bootstrap_servers=servers, **options) as producer:
        await producer.send_and_wait(topic, b"value", partition=0)
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=servers, auto_offset_reset="earliest", **options
    ) as consumer:
        assert (await consumer.getone()).value == b"value"


async def test_scram_with_the_shorter_hash(guarded: Guarded) -> None:
    assert guarded.kafka_bootstrap
    security = KafkaSecurity(
        "SASL_SSL",
        guarded.certificates.ca,
        sasl_mechanism="SCRAM-SHA-256",
        sasl_username="app",
        sasl_password=PASSWORD,
    )
    servers = guarded.kafka.bootstrap("SCRAM")
    assert await describe_topics(servers, [], client_options=security.options()) == {}


def kafka_cases(guarded: Guarded, folder: Path) -> dict[str, tuple[str, str, KafkaSecurity, str]]:
    """What is wrong → listener, host, security, sentence."""
    files = guarded.certificates
    (folder / "old").write_text(token(-5))
    (folder / "empty").write_text("\n")

    def sasl(mechanism: Mechanism) -> KafkaSecurity:
        return KafkaSecurity(
            "SASL_SSL",
            files.ca,
            sasl_mechanism=mechanism,
            sasl_username="app",
            sasl_password=WRONG,
        )

    def by_token(name: str) -> KafkaSecurity:
        return KafkaSecurity(
            "SASL_SSL", files.ca, sasl_mechanism="OAUTHBEARER", token_file=folder / name
        )

    return {
        "wrong authority": (
            "SSL",
            "localhost",
            KafkaSecurity("SSL", files.other_ca),
            "signed by an authority that we do not trust",
        ),
        "wrong host name": (
            "SSL",
            "127.0.0.1",
            KafkaSecurity("SSL", files.ca),
            "its certificate is for another address",
        ),
        "expired": (
            "EXPIRED",
            "localhost",
            KafkaSecurity("SSL", files.ca),
            "its certificate has expired",
        ),
        "no certificate of ours": (
            "MTLS",
            "localhost",
            KafkaSecurity("SSL", files.ca),
            "refuses our certificate, or that we show none",
        ),
        "certificate of a stranger": (
            "MTLS",
            "localhost",
            KafkaSecurity("SSL", files.ca, files.stranger),
            "refuses our certificate, or that we show none",
        ),
        "wrong password": (
            "SCRAM",
            "localhost",
            sasl("SCRAM-SHA-512"),
            "the broker refuses our name and password, or our token",
        ),
        "wrong plain password": (
            "PLAIN",
            "localhost",
            sasl("PLAIN"),
            "the broker refuses our name and password, or our token",
        ),
        "unknown mechanism": (
            "PLAIN",
            "localhost",
            sasl("SCRAM-SHA-512"),
            "the broker does not know kafka.sasl_mechanism",
        ),
        "expired token": (
            "OAUTH",
            "localhost",
            by_token("old"),
            "the broker refuses our token",
        ),
        "no token": (
            "OAUTH",
            "localhost",
            by_token("empty"),
            "the file kafka.token_file holds no token",
        ),
        "TLS to a listener without": (
            "OPEN_SCRAM",
            "localhost",
            KafkaSecurity("SSL", files.ca),
            "does kafka.security_protocol fit its listener?",
        ),
        "plaintext to a listener with TLS": (
            "SSL",
            "localhost",
            KafkaSecurity(),
            "does kafka.security_protocol fit its listener?",
        ),
    }


KAFKA_CASES = (
    "wrong authority",
    "wrong host name",
    "expired",
    "no certificate of ours",
    "certificate of a stranger",
    "wrong password",
    "wrong plain password",
    "unknown mechanism",
    "expired token",
    "no token",
    "TLS to a listener without",
    "plaintext to a listener with TLS",
)


@pytest.mark.parametrize("case", KAFKA_CASES)
async def test_kafka_that_is_not_what_it_should_be(
    guarded: Guarded, tmp_path: Path, case: str
) -> None:
    assert guarded.kafka_bootstrap
    listener, host, security, sentence = kafka_cases(guarded, tmp_path)[case]
    servers = guarded.kafka.bootstrap(listener, host)
    with pytest.raises(StoreUnavailable) as caught:
        await describe_topics(servers, [], client_options=security.options())
    assert sentence in reveals_nothing(caught.value)


async def test_a_broker_here_that_names_one_elsewhere_is_refused(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first address is on this machine; what the brokers say of themselves is not."""
    monkeypatch.setattr(
        "coordinator.hosts.is_this_machine", lambda host: host == "127.0.0.1", raising=True
    )
    assert guarded.kafka_bootstrap
    scram = KafkaSecurity(
        "SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="app",
        sasl_password=PASSWORD,
    ).options()
    servers = guarded.kafka.bootstrap("OPEN_SCRAM", "127.0.0.1")
    with pytest.raises(ConfigurationInvalid) as caught:
        await describe_topics(servers, [], client_options=scram)
    assert "since the brokers name localhost:" in caught.value.mistakes[0]
    await describe_topics(servers, [], client_options=scram, allow_plaintext=True)


async def test_the_client_package(guarded: Guarded, tmp_path: Path) -> None:
    assert guarded.kafka_bootstrap
    servers = guarded.kafka.bootstrap("SCRAM")
    good = securities(guarded, tmp_path)["SCRAM"]
    with pytest.raises(TopicMissing):  # it got in, and nobody has made the topics
        async with CoordinatorClient(servers, security=good, topic_timeout_seconds=2.0):
            pass
    bad = KafkaSecurity(
        "SASL_SSL",
        guarded.certificates.ca,
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="app",
        sasl_password=WRONG,
    )
    with pytest.raises(KafkaUnreachable, match="refuses our name and password") as caught:
        async with CoordinatorClient(servers, security=bad):
            pass
    reveals_nothing(caught.value)
