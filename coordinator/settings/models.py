"""The settings as frozen models: names, types, bounds and defaults, one model per TOML table.

Owns what can be judged of one setting alone; how they go together is in `relations`. The
descriptions are the reference page's text. Secrets are ``SecretStr``, so that no representation
shows one (F39).
"""

from __future__ import annotations

import re
import secrets
import socket
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, SecretStr

from coordinator.settings.addresses import check_dsn, check_listen, check_servers, check_uri
from coordinator.settings.intakes import Intake, topic_alone
from coordinator.settings.redaction import Redactor, passwords_of
from coordinator.settings.section import TOPIC, Section, Text, Topic, check_topic

TIMEOUT_MS_MAX: Final = 86_400_000
"""F7."""
ENTITY_PART: Final = "{entity}"


def _check_changes(name: str) -> str:
    if name.count(ENTITY_PART) != 1:
        raise ValueError(f"must hold {ENTITY_PART} once, since every entity has its own topic")
    check_topic(name.replace(ENTITY_PART, "x"))
    return name


def _check_dsn(secret: SecretStr) -> SecretStr:
    check_dsn(secret.get_secret_value())
    return secret


def _check_uri(secret: SecretStr) -> SecretStr:
    check_uri(secret.get_secret_value())
    return secret


def _check_worker(name: str) -> str:
    if not re.fullmatch("[!-~]{1,63}", name):
        raise ValueError("must be 1 to 63 printable characters without blanks")
    return name


def _check_instance(name: str) -> str:
    if not TOPIC.fullmatch(name) or name in {".", ".."}:
        raise ValueError("must be 1 to 249 letters, digits, dots, _ and -")
    return name


def _check_database(name: str) -> str:
    if not re.fullmatch(r'[^\0/\\. "$*<>:|?]{1,63}', name):
        raise ValueError('must be 1 to 63 characters, none of them / \\ . " $ * < > : | ? or blank')
    return name


Dsn: TypeAlias = Annotated[SecretStr, AfterValidator(_check_dsn)]
Uri: TypeAlias = Annotated[SecretStr, AfterValidator(_check_uri)]
File: TypeAlias = Annotated[Path, Field(strict=False)]

_ALLOW_PLAINTEXT: Final = (
    "Lets this connection leave the machine unencrypted, or to a server whose certificate or name "
    "is not checked. Warned of at every start."
)


class Journal(Section):
    """Where the journal lives: give `store` or `dsn`, not both."""

    store: Text | None = Field(
        None, description="A postgresql store whose database holds the journal."
    )
    dsn: Dsn | None = Field(None, description="A database of the journal's own.")
    migrate: bool = Field(
        True, description="Whether `run` brings the journal's tables up to date by itself."
    )
    allow_plaintext: bool = Field(False, description=f"For `dsn`. {_ALLOW_PLAINTEXT}")


class Kafka(Section):
    """The Kafka cluster."""

    bootstrap_servers: Annotated[str, AfterValidator(check_servers)] = Field(
        description="Brokers to begin with, `host:port`, separated by commas."
    )
    group_id: Text = Field(
        "coordinator",
        description="The consumer group that shares the units; also the events' `source.name`.",
    )
    group_instance_id: Annotated[str, AfterValidator(_check_instance)] | None = Field(
        None,
        description="Makes this daemon a static member of the group: a restart within the session "
        "time-out (6 s) moves no partitions. Must be its own; leave it out if in doubt.",
    )
    unpacked_batch_max_bytes: int = Field(
        33_554_432,
        ge=1_048_576,
        le=1_073_741_824,
        description="Bytes to which a compressed batch of records may unpack; a larger one "
        "becomes a dead letter unread.",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT",
        description="How brokers are spoken to. The ones without SSL are for this machine only.",
    )
    ca_file: File | None = Field(
        None,
        description="Authorities that brokers' certificates may be signed by, PEM; without it the "
        "system's. All files are relative to `coordinator.toml`.",
    )
    certificate_file: File | None = Field(
        None, description="Our certificate, PEM, where brokers ask for one."
    )
    key_file: File | None = Field(
        None, description="Its key, PEM, if `certificate_file` does not hold it as well."
    )
    key_password: SecretStr | None = Field(None, description="What the key is encrypted with.")
    sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER"] | None = (
        Field(None, description="How we prove who we are with a SASL protocol.")
    )
    sasl_username: Text | None = Field(None, description="Our name for SCRAM and PLAIN.")
    sasl_password: SecretStr | None = Field(None, description="Our password for SCRAM and PLAIN.")
    token_file: File | None = Field(
        None,
        description="A file that holds a token for OAUTHBEARER; somebody keeps it fresh. Read "
        "for every connection.",
    )
    allow_plaintext: bool = Field(False, description=_ALLOW_PLAINTEXT)


class Topics(Section):
    """The topics that are read and written."""

    units: Topic = Field(
        "coordinator.units",
        description="Units of work come from here, unless there are `[[intake]]` tables.",
    )
    outcomes: Topic = Field("coordinator.outcomes", description="Every unit's outcome goes here.")
    changes: Annotated[str, AfterValidator(_check_changes)] = Field(
        "coordinator.changes.{entity}",
        description="Change events go here; `{entity}` stands for the entity's name.",
    )
    dead_letters: Topic = Field(
        "coordinator.units-dlt", description="What cannot be read as a unit goes here."
    )
    reply_to: Annotated[tuple[Topic, ...], Field(strict=False)] = Field(
        (), description="Topics that a `reply-to` header may name; each `[[intake]]` has its own."
    )
    create: bool = Field(True, description="Whether missing topics are made at start.")
    partitions: int = Field(4, ge=1, le=10_000, description="Partitions of topics that we make.")
    replication_factor: int = Field(
        1, ge=1, le=100, description="Replicas of topics that we make; 3 in production."
    )


class Units(Section):
    """What holds for every unit."""

    timeout_ms: int = Field(
        30_000,
        ge=1,
        le=TIMEOUT_MS_MAX,
        description="Milliseconds from admission to the deadline, where a unit gives none.",
    )
    max_bytes: int = Field(
        262_144,
        ge=1,
        le=64 * 1024 * 1024,
        description="Bytes of a submission; a larger one becomes a dead letter unread.",
    )
    retention_days: float = Field(
        7,
        gt=0,
        le=3_650,
        allow_inf_nan=False,
        description="Days for which the ids of finished units are remembered.",
    )
    undo_retention_seconds: float = Field(
        600,
        ge=2,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds for which a finished unit's undo records stay in the stores; not "
        "less than `worker.lease_ttl_seconds`.",
    )


def _fresh_name() -> str:
    return f"{socket.gethostname()[:50]}-{secrets.token_hex(2)}"


class Worker(Section):
    """This daemon among others on the same journal."""

    name: Annotated[str, AfterValidator(_check_worker)] = Field(
        default_factory=_fresh_name,
        description="Shown in logs and in the journal: 1 to 63 printable characters, no blanks.",
        json_schema_extra={"shown": "host name and a random part, new at every start"},
    )
    lease_ttl_seconds: float = Field(
        15,
        ge=2,
        le=600,
        allow_inf_nan=False,
        description="Seconds without a heartbeat until another worker takes over.",
    )
    lanes: int = Field(2, ge=1, le=32, description="Batches that are executed side by side.")


class Batch(Section):
    """The size of a batch."""

    max_units: int = Field(
        300, ge=1, le=5_000, description="Units in one batch; a batch is whatever is waiting."
    )


class Backlog(Section):
    """What may be taken in: how fast, and how much that is not yet finished."""

    max_units: int = Field(
        20_000, ge=1, le=1_000_000, description="Open units at which intake pauses."
    )
    max_bytes: int = Field(
        268_435_456,
        ge=1_048_576,
        le=1_099_511_627_776,
        description="Bytes of open units at which intake pauses: each counts the length of its "
        "submission and 1 KiB per operation.",
    )
    max_parked: int = Field(
        1_000, ge=1, le=1_000_000, description="Parked units at which intake pauses."
    )
    max_units_per_second: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Records that this daemon takes in per second from one topic; the rest waits "
        "there. 0: as many as there are.",
    )


class Http(Section):
    """The port for health, metrics and the API."""

    listen: Annotated[str, AfterValidator(check_listen)] = Field(
        "127.0.0.1:8080", description="`host:port`; port 0 takes a free one."
    )


class Log(Section):
    """Logs on stdout."""

    format: Literal["json", "console"] = Field("json", description="JSON lines, or aligned text.")
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level that is shown; row values are shown at debug only."
    )


class Changes(Section):
    """Change events."""

    tombstones: bool = Field(
        False, description="Whether a delete is followed by a record without value."
    )


class PostgresqlStore(Section):
    """A PostgreSQL database."""

    kind: Literal["postgresql"] = Field(description="What kind of store it is.")
    dsn: Dsn = Field(description="`postgresql://user:password@host:port/database`.")
    pool_max_size: int = Field(
        10, ge=1, le=1_000, description="Connections at most; they are opened when needed."
    )
    lock_timeout_ms: int = Field(
        250,
        ge=1,
        le=60_000,
        description="Milliseconds to wait for a row that somebody else holds, before the unit "
        "is set aside and tried again.",
    )
    allow_plaintext: bool = Field(False, description=_ALLOW_PLAINTEXT)


class MongodbStore(Section):
    """A MongoDB database; its server must be a replica set."""

    kind: Literal["mongodb"] = Field(description="What kind of store it is.")
    uri: Uri = Field(description="`mongodb://user:password@host:port/?replicaSet=rs0`.")
    database: Annotated[str, AfterValidator(_check_database)] = Field(
        description="The database's name."
    )
    driver: Literal["motor", "pymongo"] = Field(
        "motor", description="The driver: Motor, or PyMongo's own asyncio API, its successor."
    )
    allow_plaintext: bool = Field(False, description=_ALLOW_PLAINTEXT)


Store: TypeAlias = PostgresqlStore | MongodbStore

STORE_MODELS: Final[dict[str, type[PostgresqlStore] | type[MongodbStore]]] = {
    "postgresql": PostgresqlStore,
    "mongodb": MongodbStore,
}


class Settings(Section):
    """Everything that is configured. ``entities`` is a path ready for opening."""

    entities: Annotated[Path, Field(strict=False)] = Field(
        Path("entities.toml"),
        description="The mapping: a TOML file or a folder of them, relative to `coordinator.toml`.",
    )
    journal: Journal
    kafka: Kafka
    topics: Topics = Topics()
    units: Units = Units()
    worker: Worker = Field(default_factory=Worker)
    batch: Batch = Batch()
    backlog: Backlog = Backlog()
    http: Http = Http()
    log: Log = Log()
    changes: Changes = Changes()
    intake: tuple[Intake, ...] = ()
    stores: dict[str, Annotated[Store, Field(discriminator="kind")]]

    @property
    def intakes(self) -> tuple[Intake, ...]:
        """The topics that units come from: the ``[[intake]]`` tables, else ``topics.units``."""
        return self.intake or (topic_alone(self.topics.units, self.topics.reply_to),)

    def secrets(self) -> tuple[str, ...]:
        """Give every password that the settings hold, decoded. Never show them."""
        addresses = [self.journal.dsn] if self.journal.dsn is not None else []
        for store in self.stores.values():
            addresses.append(store.dsn if isinstance(store, PostgresqlStore) else store.uri)
        kafka = (self.kafka.sasl_password, self.kafka.key_password)
        return (
            *(
                password
                for address in addresses
                for password in passwords_of(address.get_secret_value())
            ),
            *(secret.get_secret_value() for secret in kafka if secret is not None),
        )

    def redact(self, text: str) -> str:
        """Mask every known password in a text, in plain and in URL-encoded form (F39)."""
        return self._redactor(text)

    def keep_secret(self, secret: str) -> None:
        """Mask this as well from now on: a secret that changes while the daemon runs."""
        self._redactor.learn(secret)

    @cached_property
    def _redactor(self) -> Redactor:
        return Redactor(self.secrets())


SECTIONS: Final[dict[str, type[Section]]] = {
    "journal": Journal,
    "kafka": Kafka,
    "topics": Topics,
    "units": Units,
    "worker": Worker,
    "batch": Batch,
    "backlog": Backlog,
    "http": Http,
    "log": Log,
    "changes": Changes,
}
"""The tables with fixed names, in the order of the reference page."""
