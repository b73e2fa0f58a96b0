"""What may go wrong in one run, drawn from its seed.

Swarm testing: each seed switches some faults off altogether and others far up, because a mixture
of everything in every run hides what only one fault alone, or two together, bring to light.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

LATE_SECONDS_MAX = 1.5
"""How long a call may be on its way. Below the sweep's age: a not-after bounds it in the stores."""


@dataclass(frozen=True, slots=True)
class Swarm:
    """Probabilities are per call, unless said otherwise; times are virtual seconds."""

    units: int
    partitions: int
    lanes: int
    batch_units_max: int
    backlog_units_max: int
    shuffled: bool
    sending_seconds: float
    chaos_seconds: float
    undo_age_seconds: float
    extras: float
    short_deadlines: float
    tags: float
    curses: float
    slots: float
    hot: float
    old_tags: bool
    kills: float
    kills_max: int
    freezes: float
    losses: float
    lates: float
    refusals: float
    slows: float
    spells: int
    strangers: int
    rebalances: int
    skew: float
    persons: int


def read_settings(texts: Iterable[str]) -> dict[str, float]:
    """Read ``name=number`` pairs that overrule what a seed draws; raise `ValueError`."""
    settings = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in Swarm.__dataclass_fields__:
            raise ValueError(f"there is no {name} in a swarm")
        settings[name] = float(number) if "." in number else int(number)
    return settings


def draw_swarm(source: random.Random, units: int) -> Swarm:
    """Draw the faults of one run."""

    def sometimes(*rates: float) -> float:
        return source.choice((0.0, *rates))

    losses, lates = sometimes(0.01, 0.05, 0.2), sometimes(0.01, 0.05, 0.2)
    return Swarm(
        units=units,
        partitions=source.choice((1, 2, 3)),
        lanes=source.choice((1, 2)),
        batch_units_max=source.choice((1, 3, 10, 100)),
        backlog_units_max=source.choice((5, 30, 1000)),
        shuffled=source.random() < 0.5,
        sending_seconds=source.choice((0.05, 1.0, 3.0)),
        chaos_seconds=source.choice((2.0, 5.0)),
        undo_age_seconds=source.choice((6.0, 600.0)),
        extras=sometimes(0.1, 0.4),
        short_deadlines=sometimes(0.1, 0.5),
        tags=sometimes(0.1, 0.3),
        curses=sometimes(0.1, 0.5),
        slots=sometimes(0.1, 0.3),
        hot=sometimes(0.3, 0.8),
        old_tags=source.random() < 0.25,
        kills=sometimes(0.002, 0.01, 0.02),
        kills_max=source.choice((1, 3, 10)),
        freezes=sometimes(0.002, 0.01, 0.02),
        losses=losses,
        lates=lates,
        refusals=sometimes(0.01, 0.05),
        slows=sometimes(0.02, 0.2),
        spells=source.choice((0, 0, 1, 3)),
        strangers=source.choice((0, 0, 0, 10, 40, 100)),
        rebalances=source.choice((0, 1, 5)),
        skew=sometimes(0.02, 0.2),
        persons=source.choice((0, 0, 3)),
    )
