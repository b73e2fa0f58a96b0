"""What connections must have: nothing goes unprotected past this machine unless somebody says so.

Owns the rules of ``[kafka]``'s security settings, which belong together, and those for all
connections: plaintext is refused, and the files that TLS is made of are looked into at start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from coordinator.settings.connections import connection_of_kafka, connections_of
from coordinator.settings.models import Journal, Kafka, Store
from coordinator.toml_reading import Place

Found = Iterator[tuple[Place, str]]

_PASSWORD: Final = ("sasl_username", "sasl_password")
_TOKEN: Final = ("token_file",)
_SASL: Final = ("sasl_mechanism", *_PASSWORD, *_TOKEN)
_TLS: Final = ("ca_file", "certificate_file", "key_file", "key_password")


def kafka_mistakes(kafka: Kafka) -> Found:
    """What a protocol needs must be there, and what it does not use must not seem to act."""
    yield from _sasl_mistakes(kafka)
    protocol = kafka.security_protocol
    if not protocol.endswith("SSL"):
        yield from _useless(kafka, _TLS, f"{protocol}; did you mean SSL or SASL_SSL?")
    elif kafka.certificate_file is None and (kafka.key_file or kafka.key_password):
        yield ("kafka", "certificate_file"), "is missing; a key alone proves nothing"


def _sasl_mistakes(kafka: Kafka) -> Found:
    protocol, mechanism = kafka.security_protocol, kafka.sasl_mechanism
    if not protocol.startswith("SASL"):
        yield from _useless(kafka, _SASL, f"{protocol}; did you mean SASL_SSL?")
    elif mechanism is None:
        yield ("kafka", "sasl_mechanism"), f"is missing with {protocol}"
    else:
        is_token = mechanism == "OAUTHBEARER"
        for name in _TOKEN if is_token else _PASSWORD:
            if getattr(kafka, name) is None:
                yield ("kafka", name), f"is missing with {mechanism}"
        yield from _useless(kafka, _PASSWORD if is_token else _TOKEN, mechanism)


def _useless(kafka: Kafka, names: tuple[str, ...], why: str) -> Found:
    for name in names:
        if getattr(kafka, name) is not None:
            yield ("kafka", name), f"has no use with {why}"


def transport_mistakes(
    kafka: Kafka | None, journal: Journal | None, stores: Mapping[str, Store]
) -> Found:
    """Every connection past this machine is verified or allowed not to be, and files are good."""
    every = [*connections_of(journal, stores)]
    if kafka is not None:
        every.append(connection_of_kafka(kafka))
    for each in every:
        if each.transport.is_open and not each.allow_plaintext:
            yield each.place, f"{each.why_open}; {each.remedy}"
        if each.transport.lacks_ca:
            yield each.place, "needs sslrootcert=…, the authorities to trust, with its sslmode"
        for name, sentence in each.transport.files.mistakes():
            yield each.place_of_file(name), each.sentence_of_file(name, sentence)
