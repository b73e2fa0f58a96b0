"""What a run can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.contenders.coordinator import Coordinator
from benchmarks.contenders.dbos import Dbos
from benchmarks.contenders.dual_write import DualWrite
from benchmarks.contenders.straight_line import StraightLine
from benchmarks.loads import CROWD, MANY_CLIENTS, ONE_CLIENT, SATURATION
from benchmarks.measurements import Measured, Measurement
from benchmarks.measuring import Pace
from benchmarks.variants import variants

REPEATS: Final = 5
_PACE: Final = Pace(warm_seconds=1.5, window_seconds=5.0, units_min=20)
_QUICK_PACE: Final = Pace(warm_seconds=0.3, window_seconds=0.7, units_min=3)
_QUICK_VARIANTS: Final = {"old_units": 20_000, "backlog_units": 3_000, "rush_units": 1_000}


class OptionsInvalid(Exception):
    """What was asked for does not exist; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class Options:
    """A run. ``only`` are names of contenders or variants; empty means all."""

    repeats: int = REPEATS
    quick: bool = False
    with_variants: bool = False
    only: tuple[str, ...] = ()
    driver: str = "motor"
    json_file: Path | None = None

    @property
    def pace(self) -> Pace:
        """How long everything is measured."""
        return _QUICK_PACE if self.quick else _PACE

    def measurements(self) -> Sequence[Measurement]:
        """Give what is to be measured. Raises `OptionsInvalid`."""
        if self.with_variants:
            known = variants(**_QUICK_VARIANTS) if self.quick else variants()
        else:
            known = comparison()
        unknown = set(self.only) - {each.name for each in known}
        if unknown:
            raise OptionsInvalid(
                f"There is no {' and no '.join(sorted(unknown))};"
                f" there are {', '.join(each.name for each in known)}."
            )
        return [each for each in known if not self.only or each.name in self.only]


def comparison() -> Sequence[Measurement]:
    """Give everybody who is compared."""
    without_submitting = (ONE_CLIENT, MANY_CLIENTS, CROWD)
    submitting = (ONE_CLIENT, MANY_CLIENTS, SATURATION)
    return (
        Measured(DualWrite(with_event=False), without_submitting),
        Measured(DualWrite(with_event=True), without_submitting),
        Measured(Coordinator(), submitting),
        Measured(StraightLine(), submitting),
        Measured(Dbos(), without_submitting),
    )
