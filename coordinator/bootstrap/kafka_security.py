"""From the settings to the options with which every client of Kafka is made."""

from __future__ import annotations

from typing import Any

from coordinator.kafka_access import KafkaSecurity
from coordinator.settings import Settings


def kafka_options(settings: Settings) -> dict[str, Any]:
    """Give the options for every client of Kafka that these settings speak of."""
    kafka = settings.kafka
    return KafkaSecurity(
        security_protocol=kafka.security_protocol,
        ca_file=kafka.ca_file,
        certificate_file=kafka.certificate_file,
        key_file=kafka.key_file,
        key_password=None if kafka.key_password is None else kafka.key_password.get_secret_value(),
        sasl_mechanism=kafka.sasl_mechanism,
        sasl_username=kafka.sasl_username,
        sasl_password=(
            None if kafka.sasl_password is None else kafka.sasl_password.get_secret_value()
        ),
        token_file=kafka.token_file,
    ).options(settings.keep_secret)
