"""A preview's decision is taken only where every row of the unit is still the very same."""

from __future__ import annotations

from coordinator.domain.decide import Image, ImageKey, decide_branch
from coordinator.domain.entity import FieldType
from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.operation import Comparison, Condition
from coordinator.domain.preview import NOTHING_SEEN, Preview
from tests.units import entity, mapping, unit, update

SHOP = mapping(entity("account", {"id": FieldType.INTEGER, "n": FieldType.INTEGER}))
BOTH = unit(
    SHOP,
    update("account", 1, expect=[Condition("n", Comparison.GTE, 5)], n=9),
    update("account", 2, n=9),
    seq=7,
)
KEYS: list[ImageKey] = [("account", "1"), ("account", "2")]


def images(first: int) -> dict[ImageKey, Image | None]:
    return {
        KEYS[0]: {"id": 1, "n": first, "version": 1},
        KEYS[1]: {"id": 2, "n": 6, "version": 1},
    }


def preview() -> Preview:
    writes = decide_branch(BOTH, "ledger", images(5))
    assert not isinstance(writes, Problem)
    return Preview(images(5), {key: b"row" for key in KEYS}, {BOTH.seq: writes})


def test_it_holds_while_all_rows_are_unchanged() -> None:
    seen = preview()
    assert seen.decide(BOTH, "ledger", {}, set(KEYS)) is seen.writes[BOTH.seq]


def test_one_changed_row_and_the_unit_is_decided_again() -> None:
    decided = preview().decide(BOTH, "ledger", images(4), {KEYS[1]})
    assert isinstance(decided, Problem)
    assert decided.code is ErrorCode.EXPECTATION_FAILED


def test_a_unit_that_was_not_seen_is_decided() -> None:
    other = BOTH._replace(seq=8)
    decided = preview().decide(other, "ledger", images(6), set(KEYS))
    assert decided == decide_branch(other, "ledger", images(6))
    assert decided == NOTHING_SEEN.decide(other, "ledger", images(6), set(KEYS))


def test_missing_now_and_missing_then_are_told_from_never_looked_for() -> None:
    seen = Preview({KEYS[0]: None, KEYS[1]: {"id": 2}}, {KEYS[1]: b"row"}, {})
    assert seen.is_missing_still(KEYS[0])
    assert not seen.is_missing_still(KEYS[1])
    assert not seen.is_missing_still(("account", "3"))
