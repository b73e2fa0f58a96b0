"""The configured connections by name, each with how it is protected and where that is said.

Owns the list that the refusal at start, the warning and the metric share, so that none of them can
forget a connection: the journal's own database, every store, and Kafka.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from coordinator.hosts import all_on_this_machine
from coordinator.settings.models import Journal, Kafka, PostgresqlStore, Settings, Store
from coordinator.settings.transport import NO_FILES, Transport, dsn_transport, uri_transport
from coordinator.tls_files import TlsFiles
from coordinator.toml_reading import Place

_UNVERIFIED: Final = "leads off this machine, and the server's certificate and name are not checked"


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection. ``place`` is the setting that holds its address or its protocol."""

    name: str
    place: Place
    transport: Transport
    allow_plaintext: bool
    switch: str
    why_open: str
    how: str

    @property
    def remedy(self) -> str:
        """What to do about a connection that is open."""
        return f"{self.how}, or set {self.switch} = true"

    def place_of_file(self, name: str) -> Place:
        """Give the setting that names a file: ``ca``, ``certificate`` or ``key``."""
        if self.transport.names is None:
            return (*self.place[:-1], f"{name}_file")
        return self.place

    def sentence_of_file(self, name: str, sentence: str) -> str:
        """Say what is wrong with a file, and which one if the place does not tell."""
        if self.transport.names is None:
            return sentence
        return f"{self.transport.names.get(name, name)}: {sentence}"


def connections(settings: Settings) -> Iterator[Connection]:
    """Give every connection that a daemon with these settings makes."""
    yield from connections_of(settings.journal, settings.stores)
    yield connection_of_kafka(settings.kafka)


def connections_of(journal: Journal | None, stores: Mapping[str, Store]) -> Iterator[Connection]:
    """Give those to databases; a journal in a store has none of its own."""
    if journal is not None and journal.dsn is not None:
        address = journal.dsn.get_secret_value()
        yield _postgresql("journal", ("journal", "dsn"), address, journal.allow_plaintext)
    for name, store in stores.items():
        if isinstance(store, PostgresqlStore):
            address = store.dsn.get_secret_value()
            yield _postgresql(name, ("stores", name, "dsn"), address, store.allow_plaintext)
            continue
        yield Connection(
            name,
            ("stores", name, "uri"),
            uri_transport(store.uri.get_secret_value()),
            store.allow_plaintext,
            f"stores.{name}.allow_plaintext",
            _UNVERIFIED,
            "add tls=true&tlsCAFile=… and no option that weakens it",
        )


def connection_of_kafka(kafka: Kafka) -> Connection:
    """Give the connection to the brokers; what they name as other brokers is judged at start."""
    is_tls = kafka.security_protocol in {"SSL", "SASL_SSL"}
    password = kafka.key_password
    files = TlsFiles(
        kafka.ca_file,
        kafka.certificate_file,
        kafka.key_file,
        None if password is None else password.get_secret_value(),
    )
    return Connection(
        "kafka",
        ("kafka", "security_protocol"),
        Transport(
            is_local=all_on_this_machine(kafka.bootstrap_servers.split(",")),
            is_verified=is_tls,
            files=files if is_tls else NO_FILES,
        ),
        kafka.allow_plaintext,
        "kafka.allow_plaintext",
        f"is {kafka.security_protocol}, and kafka.bootstrap_servers lead off this machine",
        "use SSL or SASL_SSL",
    )


def _postgresql(name: str, place: Place, dsn: str, allow_plaintext: bool) -> Connection:
    switch = (
        "journal.allow_plaintext" if place[0] == "journal" else f"stores.{name}.allow_plaintext"
    )
    return Connection(
        name,
        place,
        dsn_transport(dsn),
        allow_plaintext,
        switch,
        _UNVERIFIED,
        "add sslmode=verify-full&sslrootcert=…",
    )
