"""Rows that are kept for the relay: bounded, and only while this worker relays (I12)."""

from __future__ import annotations

from coordinator.domain.publishing import Message
from coordinator.journal.fresh_rows import FreshRows


def messages(number: int) -> list[Message]:
    return [Message("a", b"k", b"%d" % number, ())]


def relaying(bytes_max: int = 100) -> FreshRows:
    rows = FreshRows(bytes_max)
    rows.relay(True)
    return rows


def test_what_is_kept_is_known_until_it_is_dropped() -> None:
    rows = relaying()
    rows.keep(1, messages(1), 10)
    rows.keep(2, messages(2), 10)
    assert rows.known() == {1: messages(1), 2: messages(2)}
    rows.drop([1, 7])
    assert rows.known() == {2: messages(2)}


def test_the_oldest_go_when_it_is_full_and_the_room_of_dropped_ones_comes_back() -> None:
    rows = relaying(100)
    for number in range(4):
        rows.keep(number, messages(number), 40)
    assert list(rows.known()) == [2, 3]
    rows.drop([2, 3])
    rows.keep(4, messages(4), 100)
    assert list(rows.known()) == [4]
    rows.keep(5, messages(5), 101)
    assert list(rows.known()) == [4], "a row that never fits drives nobody out"


def test_nothing_is_kept_while_another_worker_relays() -> None:
    rows = FreshRows(100)
    rows.keep(1, messages(1), 10)
    assert rows.known() == {}
    rows.relay(True)
    rows.keep(2, messages(2), 60)
    rows.relay(False)
    assert rows.known() == {}
    rows.relay(True)
    rows.keep(3, messages(3), 60)
    rows.keep(4, messages(4), 40)
    assert list(rows.known()) == [3, 4], "the room of what was let go is free again"


def test_a_claim_in_the_hand_is_not_changed_by_what_comes_later() -> None:
    rows = relaying()
    rows.keep(1, messages(1), 10)
    known = rows.known()
    rows.drop([1])
    assert known == {1: messages(1)}
