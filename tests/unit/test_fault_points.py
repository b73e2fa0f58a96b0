"""The fault points: off by default, once each, and all of them placed in the code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator import fault_points
from coordinator.domain.errors import ConfigurationInvalid, ResultUnknown, StoreUnavailable
from coordinator.fault_points import FaultPoint, reach, read_rules, switch
from tests.chaos.ways import WAYS

SOURCES = Path(fault_points.__file__).parent


@pytest.fixture(autouse=True)
def _switched_off() -> Iterator[None]:
    yield
    switch("")


def test_nothing_happens_where_no_rule_is() -> None:
    for point in FaultPoint:
        reach(point)


def test_a_rule_acts_once_at_its_number() -> None:
    switch("pivot.before=fail@2")
    reach(FaultPoint.PIVOT_BEFORE)
    with pytest.raises(StoreUnavailable):
        reach(FaultPoint.PIVOT_BEFORE)
    reach(FaultPoint.PIVOT_BEFORE)


def test_a_rule_may_be_about_one_store() -> None:
    switch("apply.before/catalog=fail")
    reach(FaultPoint.APPLY_BEFORE, "archive")
    with pytest.raises(StoreUnavailable):
        reach(FaultPoint.APPLY_BEFORE, "catalog")


def test_rules_in_a_file_are_taken_when_they_are_written(tmp_path: Path) -> None:
    rules = tmp_path / "faults"
    script = (
        "import sys; from pathlib import Path\n"
        "from coordinator.fault_points import FaultPoint, reach\n"
        "reach(FaultPoint.ADMIT_BEFORE)\n"
        f"Path({str(rules)!r}).write_text('admit.before=kill')\n"
        "print('armed', flush=True)\n"
        "reach(FaultPoint.ADMIT_BEFORE)\n"
        "print('still here')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {fault_points.VARIABLE: f"@{rules}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (-signal.SIGKILL, "armed\n")
    assert run.stderr == "fault point admit.before: kill\n"


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


@pytest.mark.parametrize(
    "rule", ["pivot.written=lose", "pivot.after=fail", "relay.sent=fail", "unpack=fail"]
)
def test_what_a_store_could_not_do_is_a_mistake(rule: str) -> None:
    """An answer is lost of what is done, and what is done has not failed."""
    with pytest.raises(ConfigurationInvalid):
        read_rules(rule)


def test_every_point_has_a_way_to_it_in_the_crash_test() -> None:
    """`make crash-test` comes to each of them; a new step needs a way of its own there."""
    assert {point.step for point in FaultPoint} == {*WAYS, "verb"}


def test_there_are_enough_points_and_each_is_placed() -> None:
    code = "\n".join(
        path.read_text() for path in SOURCES.rglob("*.py") if path.name != "fault_points.py"
    )
    missing = [point.name for point in FaultPoint if f"FaultPoint.{point.name}" not in code]
    assert len(FaultPoint) >= 40
    assert missing == []
