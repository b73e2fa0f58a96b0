"""What a healthy installation looks like: ``coordinator doctor``, judged from plain facts.

Pure. Each line is ``ok``, ``warn`` (works, but something is at risk) or ``fail`` (a promise of the
coordinator cannot be kept, or it cannot work), with what to do about it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple


class Health(StrEnum):
    """How one thing stands."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Diagnosis(NamedTuple):
    """One thing that was looked at."""

    subject: str
    health: Health
    detail: str
    remedy: str = ""


class PostgresqlFacts(NamedTuple):
    """A PostgreSQL server as one of our sessions sees it.

    ``settings`` are by name, ``missing_rights`` sentences, ``clock_seconds`` how far its clock is
    before ours, give or take ``clock_error_seconds``.
    """

    version: str
    settings: Mapping[str, str]
    in_recovery: bool
    replicas: int
    connections_left: int
    oldest_transaction_seconds: float
    slots_unused: tuple[str, ...]
    missing_rights: tuple[str, ...]
    clock_seconds: float
    clock_error_seconds: float


class MongodbFacts(NamedTuple):
    """A MongoDB server; ``majority_is_journaled`` is None where we may not ask."""

    version: str
    set_name: str | None
    is_router: bool
    is_writable: bool
    members: int
    arbiters: int
    majority_is_journaled: bool | None
    missing_rights: tuple[str, ...]
    clock_seconds: float
    clock_error_seconds: float


class TopicSettings(NamedTuple):
    """A topic; ``isr_min`` is the smallest number of replicas in sync of any partition."""

    partitions: int
    leaderless: int
    replicas: int
    isr_min: int
    settings: Mapping[str, str]


class TopicRole(StrEnum):
    """What a topic is to us."""

    UNITS = "units"
    DEAD_LETTERS = "dead letters"
    OTHER = "other"


CLOCK_WARN_SECONDS = 1.0
CLOCK_FAIL_SECONDS = 5.0
_OLD_TRANSACTION_SECONDS = 600
_DAY_MS = 86_400_000


def diagnose_postgresql(
    subject: str, facts: PostgresqlFacts, connections_needed: int
) -> Iterator[Diagnosis]:
    """Judge a server that holds the journal or a store."""
    yield Diagnosis(subject, Health.OK, f"PostgreSQL {facts.version}")
    settings = facts.settings
    for name in ("fsync", "full_page_writes"):
        if settings[name] == "on":
            yield Diagnosis(f"{subject}: {name}", Health.OK, "on")
        else:
            yield Diagnosis(
                f"{subject}: {name}",
                Health.FAIL,
                "off: a crash of the machine may lose or garble what was committed",
                f"Set {name} = on and restart the server.",
            )
    yield from _commits(subject, facts)
    if facts.in_recovery or settings["transaction_read_only"] == "on":
        yield Diagnosis(
            f"{subject}: writes",
            Health.FAIL,
            "the server takes no writes (a standby?)",
            "Let the DSN name the primary, or all hosts with target_session_attrs=read-write.",
        )
    if facts.connections_left < connections_needed:
        yield Diagnosis(
            f"{subject}: connections",
            Health.WARN,
            f"{facts.connections_left} are free, and a daemon may open {connections_needed}",
            "Raise max_connections, or lower pool_max_size and worker.lanes.",
        )
    if facts.oldest_transaction_seconds > _OLD_TRANSACTION_SECONDS:
        yield Diagnosis(
            f"{subject}: transactions",
            Health.WARN,
            f"one is open for {facts.oldest_transaction_seconds:.0f} s: vacuum cannot clean up",
            "Find it in pg_stat_activity by xact_start and end it.",
        )
    for slot in facts.slots_unused:
        yield Diagnosis(
            f"{subject}: replication slot {slot}",
            Health.WARN,
            "nobody reads it, and the server keeps everything for it",
            f"Drop it if nobody comes back: SELECT pg_drop_replication_slot('{slot}').",
        )
    yield from _rights(subject, facts.missing_rights)
    yield clock(subject, facts.clock_seconds, facts.clock_error_seconds)


def _commits(subject: str, facts: PostgresqlFacts) -> Iterator[Diagnosis]:
    at = f"{subject}: synchronous_commit"
    level = facts.settings["synchronous_commit"]
    if level in ("off", "local"):
        yield Diagnosis(
            at,
            Health.FAIL,
            f"{level} in our own session, which asked for on",
            "Something between us and the server drops our settings: a pooler? Connect directly.",
        )
    elif facts.replicas and not facts.settings["synchronous_standby_names"]:
        yield Diagnosis(
            at,
            Health.WARN,
            "there are replicas, and none is synchronous: a failover may lose the last commits",
            "Set synchronous_standby_names; after any failover run `coordinator verify`.",
        )
    else:
        yield Diagnosis(at, Health.OK, level)


def diagnose_mongodb(subject: str, facts: MongodbFacts) -> Iterator[Diagnosis]:
    """Judge a store's server."""
    yield Diagnosis(subject, Health.OK, f"MongoDB {facts.version}")
    if facts.is_router:
        yield Diagnosis(f"{subject}: replica set", Health.OK, "a router of a sharded cluster")
    elif facts.set_name is None:
        yield Diagnosis(
            f"{subject}: replica set",
            Health.FAIL,
            "the server is no member of a replica set, so it has no transactions",
            "Start it with --replSet and run rs.initiate().",
        )
    elif facts.members < 3 or facts.arbiters:
        yield Diagnosis(
            f"{subject}: replica set",
            Health.WARN,
            f"{facts.set_name} has {facts.members} members with data and {facts.arbiters}"
            " arbiters: when one is lost, a majority write waits",
            "Have three members with data.",
        )
    else:
        detail = f"{facts.set_name}, {facts.members} members"
        yield Diagnosis(f"{subject}: replica set", Health.OK, detail)
    if not facts.is_writable:
        yield Diagnosis(
            f"{subject}: writes",
            Health.FAIL,
            "the server takes no writes (no primary?)",
            "See rs.status(); let the URI name all members and the replicaSet.",
        )
    if facts.majority_is_journaled is False:
        yield Diagnosis(
            f"{subject}: journaling",
            Health.FAIL,
            "writeConcernMajorityJournalDefault is false: a majority write may be lost with power",
            "Set it to true by rs.reconfig().",
        )
    yield from _rights(subject, facts.missing_rights)
    yield clock(subject, facts.clock_seconds, facts.clock_error_seconds)


def _rights(subject: str, missing: Collection[str]) -> Iterator[Diagnosis]:
    for each in missing:
        yield Diagnosis(
            f"{subject}: rights",
            Health.FAIL,
            each,
            "Give it; `coordinator roles STORE` prints what a daemon needs.",
        )
    if not missing:
        yield Diagnosis(f"{subject}: rights", Health.OK, "on our own bookkeeping")


def clock(subject: str, seconds: float, error_seconds: float) -> Diagnosis:
    """Judge how far a server's clock is from ours; what we cannot know is to its credit."""
    apart = max(0.0, abs(seconds) - error_seconds)
    detail = (
        f"{abs(seconds):.2f} s {'ahead' if seconds > 0 else 'behind'} (± {error_seconds:.2f} s)"
    )
    if apart <= CLOCK_WARN_SECONDS:
        return Diagnosis(f"{subject}: clock", Health.OK, detail)
    health = Health.FAIL if apart > CLOCK_FAIL_SECONDS else Health.WARN
    return Diagnosis(f"{subject}: clock", health, detail, "Let NTP keep both machines' clocks.")


def diagnose_topic(name: str, role: TopicRole, facts: TopicSettings) -> Iterator[Diagnosis]:
    """Judge a topic by what it is to us."""
    at = f"topic {name}"
    settings = facts.settings
    problems = [*_topic_records(at, role, settings), *_topic_replicas(at, facts)]
    if settings.get("unclean.leader.election.enable") == "true":
        problems.append(
            Diagnosis(
                at,
                Health.WARN,
                "unclean.leader.election.enable is true: acknowledged records may be lost",
                "Set it to false.",
            )
        )
    if problems:
        yield from problems
    else:
        detail = f"{facts.partitions} partitions, {facts.replicas} replicas"
        yield Diagnosis(at, Health.OK, detail)


def _topic_records(at: str, role: TopicRole, settings: Mapping[str, str]) -> Iterator[Diagnosis]:
    if "compact" in settings["cleanup.policy"] and role is not TopicRole.OTHER:
        why = (
            "Kafka may drop units unread"
            if role is TopicRole.UNITS
            else "it refuses letters without a key, and drops older ones of a key"
        )
        yield Diagnosis(at, Health.FAIL, f"it is compacted: {why}", "Set cleanup.policy to delete.")
    kept_ms = int(settings["retention.ms"])
    if role is not TopicRole.OTHER and 0 <= kept_ms < _DAY_MS:
        yield Diagnosis(
            at,
            Health.WARN,
            f"it keeps records for {kept_ms / 3_600_000:.1f} h: what waits longer is lost",
            "Raise retention.ms above the longest outage that you plan for.",
        )


def _topic_replicas(at: str, facts: TopicSettings) -> Iterator[Diagnosis]:
    isr_needed = int(facts.settings["min.insync.replicas"])
    if facts.leaderless:
        yield Diagnosis(
            at, Health.FAIL, f"{facts.leaderless} partitions have no leader", "Look at the brokers."
        )
    if facts.replicas < 2:
        yield Diagnosis(
            at,
            Health.WARN,
            "it has one replica: with its disk all of it is lost",
            "Have three replicas, and min.insync.replicas 2.",
        )
    elif isr_needed < 2:
        yield Diagnosis(
            at,
            Health.WARN,
            f"min.insync.replicas is {isr_needed}: an acknowledged record may be on one disk only",
            "Set it to 2.",
        )
    elif isr_needed >= facts.replicas:
        yield Diagnosis(
            at,
            Health.WARN,
            f"min.insync.replicas is {isr_needed} of {facts.replicas}: one broker that is away"
            " stops all writes",
            "Have one replica more.",
        )
    if facts.isr_min < facts.replicas and not facts.leaderless:
        yield Diagnosis(
            at,
            Health.WARN,
            f"a partition has {facts.isr_min} of {facts.replicas} replicas in sync",
            "Look at the brokers.",
        )
