"""What `coordinator doctor` makes of plain facts: a healthy server is ok, each ill is named."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.domain.diagnosis import (
    Diagnosis,
    Health,
    MongodbFacts,
    PostgresqlFacts,
    TopicRole,
    TopicSettings,
    clock,
    diagnose_mongodb,
    diagnose_postgresql,
    diagnose_topic,
)

POSTGRESQL = PostgresqlFacts(
    version="18.4",
    settings={
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "synchronous_standby_names": "",
        "transaction_read_only": "off",
    },
    in_recovery=False,
    replicas=0,
    connections_left=90,
    oldest_transaction_seconds=1.0,
    slots_unused=(),
    missing_rights=(),
    clock_seconds=0.01,
    clock_error_seconds=0.001,
)
MONGODB = MongodbFacts(
    version="6.0.5",
    set_name="rs0",
    is_router=False,
    is_writable=True,
    members=3,
    arbiters=0,
    majority_is_journaled=True,
    missing_rights=(),
    clock_seconds=0.0,
    clock_error_seconds=0.001,
)
SETTINGS = {
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "min.insync.replicas": "2",
    "max.message.bytes": "1048588",
    "unclean.leader.election.enable": "false",
}
TOPIC = TopicSettings(partitions=4, leaderless=0, replicas=3, isr_min=3, settings=SETTINGS)


def ills(diagnoses: Any) -> list[tuple[str, Health]]:
    found = [each for each in diagnoses if each.health is not Health.OK]
    assert all(each.detail and each.remedy for each in found)
    return [(each.subject, each.health) for each in found]


def of_postgresql(**changes: Any) -> list[tuple[str, Health]]:
    return ills(diagnose_postgresql("s", POSTGRESQL._replace(**changes), 8))


def with_setting(**changes: str) -> list[tuple[str, Health]]:
    return of_postgresql(settings={**POSTGRESQL.settings, **changes})


def of_mongodb(**changes: Any) -> list[tuple[str, Health]]:
    return ills(diagnose_mongodb("m", MONGODB._replace(**changes)))


def of_topic(role: TopicRole, **changes: Any) -> list[tuple[str, Health]]:
    return ills(diagnose_topic("t", role, TOPIC._replace(**changes)))


def with_topic_setting(role: TopicRole, name: str, value: str) -> list[tuple[str, Health]]:
    return of_topic(role, settings={**SETTINGS, name: value})


def test_healthy_servers_have_only_ok_lines() -> None:
    assert of_postgresql() == []
    assert of_mongodb() == []
    assert of_mongodb(set_name=None, is_router=True) == []
    assert of_mongodb(majority_is_journaled=None) == []  # not everybody may ask
    for role in TopicRole:
        assert of_topic(role) == []
    assert len(list(diagnose_topic("t", TopicRole.UNITS, TOPIC))) == 1


def test_ills_of_postgresql() -> None:
    fail, warn = Health.FAIL, Health.WARN
    assert with_setting(fsync="off") == [("s: fsync", fail)]
    assert with_setting(full_page_writes="off") == [("s: full_page_writes", fail)]
    assert with_setting(synchronous_commit="off") == [("s: synchronous_commit", fail)]
    assert with_setting(synchronous_commit="local") == [("s: synchronous_commit", fail)]
    assert with_setting(transaction_read_only="on") == [("s: writes", fail)]
    assert of_postgresql(in_recovery=True) == [("s: writes", fail)]
    assert of_postgresql(replicas=1) == [("s: synchronous_commit", warn)]
    settings = {**POSTGRESQL.settings, "synchronous_standby_names": "ANY 1 (*)"}
    assert of_postgresql(replicas=1, settings=settings) == []
    assert of_postgresql(connections_left=7) == [("s: connections", warn)]
    assert of_postgresql(oldest_transaction_seconds=601) == [("s: transactions", warn)]
    assert of_postgresql(slots_unused=("old",)) == [("s: replication slot old", warn)]
    lacking = ("the role r lacks DELETE on table coordinator.undo",) * 2
    assert of_postgresql(missing_rights=lacking) == [("s: rights", fail)] * 2


def test_ills_of_mongodb() -> None:
    fail, warn = Health.FAIL, Health.WARN
    assert of_mongodb(set_name=None) == [("m: replica set", fail)]
    assert of_mongodb(members=1) == [("m: replica set", warn)]
    assert of_mongodb(arbiters=1) == [("m: replica set", warn)]
    assert of_mongodb(is_writable=False) == [("m: writes", fail)]
    assert of_mongodb(majority_is_journaled=False) == [("m: journaling", fail)]
    assert of_mongodb(missing_rights=("the user u lacks find on d.c",)) == [("m: rights", fail)]


@pytest.mark.parametrize(
    ("seconds", "error_seconds", "health"),
    [
        (0.9, 0.0, Health.OK),
        (-1.1, 0.0, Health.WARN),
        (1.1, 0.2, Health.OK),  # a slow answer proves nothing
        (5.1, 0.0, Health.FAIL),
        (-60.0, 1.0, Health.FAIL),
    ],
)
def test_clocks(seconds: float, error_seconds: float, health: Health) -> None:
    assert clock("s", seconds, error_seconds).health is health


def test_ills_of_topics() -> None:
    units, letters, other = TopicRole.UNITS, TopicRole.DEAD_LETTERS, TopicRole.OTHER
    warn, fail = [("topic t", Health.WARN)], [("topic t", Health.FAIL)]
    for role in (units, letters):
        assert with_topic_setting(role, "cleanup.policy", "compact,delete") == fail
        assert with_topic_setting(role, "retention.ms", "3600000") == warn
        assert with_topic_setting(role, "retention.ms", "-1") == []
    assert with_topic_setting(other, "cleanup.policy", "compact") == []
    assert with_topic_setting(other, "retention.ms", "1") == []
    assert with_topic_setting(other, "min.insync.replicas", "1") == warn
    assert with_topic_setting(other, "min.insync.replicas", "3") == warn
    assert with_topic_setting(other, "unclean.leader.election.enable", "true") == warn
    assert of_topic(other, replicas=1, isr_min=1) == warn
    assert of_topic(other, isr_min=2) == warn
    assert of_topic(other, leaderless=1, isr_min=0) == fail


def test_every_ill_of_a_topic_is_told_at_once() -> None:
    settings = {**SETTINGS, "cleanup.policy": "compact", "min.insync.replicas": "1"}
    told: list[Diagnosis] = list(
        diagnose_topic("t", TopicRole.UNITS, TOPIC._replace(settings=settings, isr_min=1))
    )
    assert len(told) == 3
