"""One module per promise. `EACH_STEP` judge every change as it happens, `AT_REST` the whole."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.checkers import (
    all_or_none,
    announced,
    answered,
    beliefs,
    final_once,
    in_turn,
    nothing_left,
    own_fault,
    status_is_fact,
    sums,
)
from tests.simulation.checkers.bounds import Bounds
from tests.simulation.checkers.fenced import FencedChangesNothing
from tests.simulation.checkers.in_turn import InTurn
from tests.simulation.checkers.intent_first import IntentFirst
from tests.simulation.checkers.once import Once
from tests.simulation.checkers.one_way import OneWay
from tests.simulation.checkers.strangers_kept import StrangersKept
from tests.simulation.history import Checker, Rest

EACH_STEP: tuple[Checker, ...] = (
    IntentFirst(),
    Once(),
    OneWay(),
    InTurn(),
    StrangersKept(),
    Bounds(),
    FencedChangesNothing(),
)

AT_REST: tuple[Callable[[Rest], None], ...] = (
    all_or_none.check,
    in_turn.check,
    answered.check,
    announced.check,
    beliefs.check,
    final_once.check,
    status_is_fact.check,
    nothing_left.check,
    own_fault.check,
    sums.check,
)
