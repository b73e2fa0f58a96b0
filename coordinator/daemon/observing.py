"""The engine's observer: one canonical log line per unit, counters, and who is away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from coordinator.daemon.health import Health
from coordinator.daemon.metrics import Metrics
from coordinator.domain.errors import (
    ErrorCode,
    Problem,
    ResultUnknown,
    StoreError,
    StoreUnavailable,
)
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Origin, Unit
from coordinator.domain.submission import DeadLetter, RefusedCancel, RefusedEarly
from coordinator.engine.observer import Stage
from coordinator.engine.ports import JOURNAL, Admitted
from coordinator.log_events import LogEvent
from coordinator.logs import get_log

log = get_log()


class LoggingObserver:
    """Implements `coordinator.engine.observer.Observer` for the daemon.

    ``journal_store`` is the store whose database the journal shares: when the journal is away, so
    is that store, and readiness names both.
    """

    def __init__(
        self,
        health: Health,
        metrics: Metrics,
        now: Callable[[], datetime],
        journal_store: str | None,
    ) -> None:
        self._health = health
        self._metrics = metrics
        self._now = now
        self._journal_store = journal_store

    def received(self, records: int) -> None:
        """Count what was read and journaled."""
        self._metrics.units_received.inc(records)

    def admitted(self, admitted: Admitted) -> None:
        """Count a batch; tell of cancels that could not be done (F8)."""
        self._metrics.units_admitted.inc(len(admitted.units))
        if admitted.newcomers:
            self._metrics.units_duplicate.inc(admitted.newcomers)
            log.info(
                LogEvent.UNIT_DUPLICATE,
                "Submissions came whose ids are known; they are answered once theirs are final.",
                count=admitted.newcomers,
            )
        for unit_id in admitted.ignored:
            log.info(
                LogEvent.UNIT_CANCEL_IGNORED,
                "A cancel came for a unit that is being undone or is parked.",
                unit=unit_id,
            )
        for unit_id in admitted.unknown:
            log.info(
                LogEvent.UNIT_CANCEL_UNKNOWN, "A cancel came for an unknown unit.", unit=unit_id
            )
        if log.shows_debug:
            for unit in admitted.units:
                log.debug(
                    LogEvent.UNIT_ACCEPTED,
                    "The intent is durable.",
                    unit=unit.id,
                    topic=unit.origin.topic,
                    partition=unit.origin.partition,
                    offset=unit.origin.offset,
                    trace_id=_trace_id(unit),
                )

    def pace_changed(self, topic: str, per_second: int, *, is_slow: bool) -> None:
        """Tell when units begin to wait for their topic's pace, and when they no longer do."""
        if is_slow:
            log.warning(
                LogEvent.INTAKE_SLOWED,
                f"More than {per_second} records a second come; the rest waits in the topic.",
                topic=topic,
                records=per_second,
            )
        else:
            log.info(LogEvent.INTAKE_UNSLOWED, "Everything is read as it comes.", topic=topic)

    def refused_early(self, refused: RefusedEarly, origin: Origin) -> None:
        """Tell of a refusal before the journal (F2), and of a breach by a line of its own."""
        problem = refused.problems[0]
        self._metrics.units_refused.labels(problem.code.value).inc()
        log.info(
            LogEvent.UNIT_REFUSED,
            "A submission was refused before anything was journaled.",
            unit=refused.id,
            code=problem.code.value,
            path=problem.path,
            topic=origin.topic,
            partition=origin.partition,
            offset=origin.offset,
        )
        if refused.breach is not None:
            forbidden = [each for each in refused.problems if each.code is ErrorCode.FORBIDDEN]
            self._metrics.forbidden.labels(origin.topic, refused.breach.value).inc()
            log.warning(
                LogEvent.UNIT_FORBIDDEN,
                "A submission went beyond its authority and was refused; nothing was journaled.",
                unit=refused.id,
                breach=refused.breach.value,
                path=forbidden[0].path,
                count=len(forbidden),
                topic=origin.topic,
                partition=origin.partition,
                offset=origin.offset,
            )

    def cancel_refused(self, refused: RefusedCancel, origin: Origin) -> None:
        """Tell of a cancel beyond its authority."""
        self._metrics.forbidden.labels(origin.topic, refused.breach.value).inc()
        log.warning(
            LogEvent.UNIT_CANCEL_FORBIDDEN,
            "A cancel went beyond its authority and was forgotten.",
            unit=refused.id,
            breach=refused.breach.value,
            topic=origin.topic,
            partition=origin.partition,
            offset=origin.offset,
        )

    def dead_letter(self, letter: DeadLetter, origin: Origin) -> None:
        """Tell of a record that is no unit (F1)."""
        self._metrics.dead_letters.labels(letter.code.value).inc()
        log.warning(
            LogEvent.DEAD_LETTER_WRITTEN,
            "A record could not be read as a unit and is kept as a dead letter.",
            code=letter.code.value,
            topic=origin.topic,
            partition=origin.partition,
            offset=origin.offset,
        )

    def record_set_aside(self, origin: Origin, next_offset: int) -> None:
        """Raise the alarm: nobody has looked into this, and somebody should."""
        self._metrics.records_set_aside.inc(next_offset - origin.offset)
        log.error(
            LogEvent.INTAKE_RECORD_SET_ASIDE,
            "A record that cannot be read here was set aside as a dead letter; reading goes on "
            "behind it.",
            topic=origin.topic,
            partition=origin.partition,
            offset=origin.offset,
            records=next_offset - origin.offset,
        )

    def finished(self, unit: Unit, status: Status, problem: Problem | None) -> None:
        """Write the canonical line of a unit."""
        seconds = max(0.0, (self._now() - unit.received_at).total_seconds())
        self._metrics.finished(status.value, (seconds,))
        if problem is None:
            log.info(
                LogEvent.UNIT_FINISHED,
                "A unit is final.",
                unit=unit.id,
                status=status.value,
                duration_ms=round(seconds * 1000, 1),
                trace_id=_trace_id(unit),
            )
            return
        self._metrics.units_refused.labels(problem.code.value).inc()
        log.info(
            LogEvent.UNIT_FINISHED,
            "A unit is final.",
            unit=unit.id,
            status=status.value,
            duration_ms=round(seconds * 1000, 1),
            code=problem.code.value,
            entity=problem.entity,
            trace_id=_trace_id(unit),
        )

    def parked(self, unit: Unit, problem: Problem) -> None:
        """Raise the alarm: a unit waits for a person."""
        self._metrics.units_finished.labels(Status.PARKED.value).inc()
        log.error(
            LogEvent.UNIT_PARKED,
            "A unit is parked: its compensation needs a person.",
            unit=unit.id,
            code=problem.code.value,
            entity=problem.entity,
            reason=problem.message,
        )

    def compensating(self, unit: Unit, cause: Problem) -> None:
        """Tell that a unit is being undone."""
        log.info(
            LogEvent.COMPENSATION_STARTED,
            "A unit was refused after it may have been applied; it is being undone.",
            unit=unit.id,
            code=cause.code.value,
        )

    def compensated(self, undone: int, untouched: int, parked: int) -> None:
        """Count the branches of units whose compensation has ended."""
        found = {"undone": undone, "untouched": untouched, "parked": parked}
        for result, branches in found.items():
            if branches:
                self._metrics.compensations.labels(result).inc(branches)

    def set_aside(self, unit: Unit, why: str, attempts: int) -> None:
        """Tell that a unit is tried again; loudly only now and then."""
        say = log.info if attempts in (1, 10) or attempts % 100 == 0 else log.debug
        say(
            LogEvent.UNIT_SET_ASIDE,
            "A unit is set aside and tried again soon.",
            unit=unit.id,
            attempt=attempts,
            reason=why,
        )

    def store_away(self, store: str, reason: str) -> None:
        """Note that a store does not answer; its units wait."""
        is_new = any([self._health.away(name, reason) for name in self._names(store)])
        log.warning(
            LogEvent.DEPENDENCY_LOST if is_new else LogEvent.DEPENDENCY_AWAY,
            "A store does not answer; its units wait.",
            store=store,
            reason=reason,
        )

    def store_back(self, store: str) -> None:
        """Note that a store answers again."""
        for name in self._names(store):
            self._health.back(name)
        log.info(LogEvent.DEPENDENCY_RESTORED, "A store answers again.", store=store)

    def stage_done(self, stage: Stage, store: str, units: int, seconds: float) -> None:
        """Count a batch and the time that it took."""
        self._metrics.batch_units.observe((stage.value, store), (units,))
        self._metrics.stage_duration.observe((stage.value, store), (seconds,))

    def batch_failed(self, phase: str, store: str, units: int, attempts: int, reason: str) -> None:
        """Tell that a batch went through in parts only."""
        self._metrics.batch_retries.labels(store).inc()
        log.info(
            LogEvent.BATCH_RETRIED,
            "A batch did not go through in one piece and was tried in parts.",
            phase=phase,
            units=units,
            attempt=attempts,
            reason=reason,
        )

    def result_unknown(self, store: str) -> None:
        """Count a reply that was lost; that the store is away is told apart."""
        self._metrics.results_unknown.labels(store).inc()

    def lease_late(self) -> None:
        """Tell that nothing new is begun, since our right to it cannot be renewed."""
        self._metrics.leases_lost.inc()
        log.error(
            LogEvent.WORKER_LEASE_LOST,
            "The lease could not be renewed in time; nothing new is begun until it is.",
        )

    def swept(self, units: int) -> None:
        """Tell how many units' undo records were swept."""
        log.debug(LogEvent.SWEEP_FINISHED, "Undo records were swept.", units=units)

    def taken_over(self, worker: int, units: int) -> None:
        """Tell that another worker's open units are ours now."""
        self._metrics.takeovers.inc()
        log.warning(
            LogEvent.WORKER_TAKEN_OVER,
            "The open units of a worker whose lease had expired were taken over.",
            worker=worker,
            units=units,
        )

    def duty_failed(self, duty: str, error: StoreError) -> None:
        """Tell that a periodic duty is tried again; softly where a store that is away is told."""
        is_told = isinstance(error, StoreUnavailable | ResultUnknown)
        say = log.debug if is_told else log.warning
        say(
            LogEvent.DUTY_RETRIED,
            "A periodic duty could not be done and is tried again.",
            task=duty,
            store=error.store,
            reason=error.message,
        )

    def _names(self, store: str) -> tuple[str, ...]:
        if store == JOURNAL and self._journal_store is not None:
            return (JOURNAL, self._journal_store)
        return (store,)


def _trace_id(unit: Unit) -> str | None:
    """The trace's id in a W3C ``traceparent`` (version-trace-parent-flags)."""
    if unit.traceparent is None:
        return None
    parts = unit.traceparent.split("-")
    return parts[1] if len(parts) >= 4 else None
