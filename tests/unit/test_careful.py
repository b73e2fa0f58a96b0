"""Who is condemned, and who is not, by what the journal holds against a record."""

from __future__ import annotations

import pytest

from coordinator.engine.ports import Suspicion
from coordinator.kafka.careful import Care, judge


@pytest.mark.parametrize(
    ("suspicion", "care"),
    [
        (Suspicion(), Care.NONE),
        (Suspicion(stood=1), Care.MARKED),
        (Suspicion(stood=1, undecided=1), Care.MARKED),
        (Suspicion(stood=2, marked=1), Care.MARKED),
        (Suspicion(stood=2, marked=2), Care.SET_ASIDE),
        (Suspicion(stood=9), Care.MARKED),
        (Suspicion(stood=9, marked=1), Care.MARKED),
        (Suspicion(stood=3, marked=2), Care.SET_ASIDE),
        (Suspicion(stood=3, marked=2, undecided=1), Care.WAIT),
        (Suspicion(stood=4, marked=3, setting_aside=1), Care.SET_ASIDE),
        (Suspicion(stood=5, marked=4, setting_aside=2), Care.PASS_OVER),
    ],
)
def test_a_record_is_condemned_by_deaths_under_its_mark_alone(
    suspicion: Suspicion, care: Care
) -> None:
    assert judge(suspicion, offset=7, end=8) is care


def test_where_there_is_nothing_to_read_nobody_is_suspected() -> None:
    """An operator who kills an idle daemon for the third time."""
    assert judge(Suspicion(stood=9, marked=9), offset=7, end=7) is Care.NONE
