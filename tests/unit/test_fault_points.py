"""The fault points: off by default, once each, and all of them placed in the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator import fault_points
from coordinator.domain.errors import ConfigurationInvalid, ResultUnknown, StoreUnavailable
from coordinator.fault_points import FaultPoint, reach, read_rules, switch

SOURCES = Path(fault_points.__file__).parent


@pytest.fixture(autouse=True)
def _switched_off() -> Iterator[None]:
    yield
    switch("")


def test_nothing_happens_where_no_rule_is() -> None:
    for point in FaultPoint:
        reach(point)


def test_a_rule_acts_once_at_its_number() -> None:
    switch("pivot.after=fail@2")
    reach(FaultPoint.PIVOT_AFTER)
    with pytest.raises(StoreUnavailable):
        reach(FaultPoint.PIVOT_AFTER)
    reach(FaultPoint.PIVOT_AFTER)


def test_a_lost_answer_is_unknown_and_names_the_store() -> None:
    """I11."""
    switch("apply.after=lose")
    with pytest.raises(ResultUnknown) as caught:
        reach(FaultPoint.APPLY_AFTER, "catalog")
    assert caught.value.store == "catalog"


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        read_rules("nowhere=kill; pivot.after=dance; pivot.before=kill@x")
    assert len(caught.value.mistakes) == 3


def test_there_are_enough_points_and_each_is_placed() -> None:
    code = "\n".join(
        path.read_text() for path in SOURCES.rglob("*.py") if path.name != "fault_points.py"
    )
    missing = [point.name for point in FaultPoint if f"FaultPoint.{point.name}" not in code]
    assert len(FaultPoint) >= 40
    assert missing == []
