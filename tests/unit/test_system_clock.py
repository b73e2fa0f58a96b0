"""The journal's time of day as a worker knows it: the youngest word of the journal counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from coordinator.daemon.system_clock import SystemClock

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


class Times:
    """Our own clocks, in hand; the journal's is ten seconds ahead."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.set_by = 0.0
        self.clock = SystemClock(lambda: self.seconds, lambda: after(self.seconds + self.set_by))

    def hear(self, late_seconds: float) -> None:
        """The journal told its time so long ago."""
        self.clock.journal_says(after(self.seconds - late_seconds + 10))

    def behind(self) -> float:
        """How far our guess is behind the journal's clock, in seconds."""
        return (after(self.seconds + 10) - self.clock.now()).total_seconds()


def test_a_word_that_took_long_does_not_undo_a_younger_one() -> None:
    """Else a unit that is foretold would end before the one that it has waited for."""
    times = Times()
    times.hear(0.001)
    times.seconds += 1
    times.hear(0.5)
    assert times.behind() == 0.001
    times.hear(0)
    assert times.behind() == 0


def test_what_was_heard_long_ago_is_forgotten() -> None:
    times = Times()
    times.hear(0.001)
    for _ in range(3):
        times.seconds += 40
        times.hear(0.2)
    assert times.behind() == 0.2


def test_it_never_goes_back_by_a_little() -> None:
    times = Times()
    times.hear(0)
    told = times.clock.now()
    times.seconds += 40
    times.hear(0)
    times.set_by = -0.5
    assert times.clock.now() >= told
    seen = [times.clock.now()]
    for _ in range(20):
        times.seconds += 0.01
        times.hear(0.3)
        seen.append(times.clock.now())
    assert seen == sorted(seen)


def test_a_clock_that_is_set_back_is_believed() -> None:
    times = Times()
    times.hear(0)
    told = times.clock.now()
    times.set_by = -3600
    assert times.clock.now() < told - timedelta(seconds=3590)
    times.seconds += 70
    times.hear(0)
    times.seconds += 70
    times.hear(0)
    assert abs(times.behind()) < 0.001
