"""The catalogue of log events: every name that a log line's ``event`` can have.

Owns the names, and for each its level, fields, meaning and remedy; ``docs/reference/log-events.md``
is generated from it (``python -m coordinator.log_events``). A name is stable: alerts are built on
it. It has no dynamic part. To add one: a member, and its `Entry` below; a test refuses a member
without an entry, and a page that was not generated again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class LogEvent(StrEnum):
    """What happened, as a stable dotted name."""

    DAEMON_STARTING = "daemon.starting"
    DAEMON_READY = "daemon.ready"
    DAEMON_DRAINING = "daemon.draining"
    DAEMON_DRAIN_LATE = "daemon.drain_late"
    DAEMON_STOPPED = "daemon.stopped"
    DAEMON_TASK_FAILED = "daemon.task_failed"
    CONFIG_INVALID = "config.invalid"
    CONFIG_WARNING = "config.warning"
    TRANSPORT_UNPROTECTED = "transport.unprotected"
    JOURNAL_MIGRATED = "journal.migrated"
    DEPENDENCY_AWAY = "dependency.away"
    DEPENDENCY_LOST = "dependency.lost"
    DEPENDENCY_RESTORED = "dependency.restored"
    INTAKE_ASSIGNED = "intake.assigned"
    INTAKE_REVOKED = "intake.revoked"
    INTAKE_PAUSED = "intake.paused"
    INTAKE_RESUMED = "intake.resumed"
    INTAKE_SLOWED = "intake.slowed"
    INTAKE_UNSLOWED = "intake.unslowed"
    INTAKE_POSITION_LOST = "intake.position_lost"
    INTAKE_REBUILT = "intake.rebuilt"
    INTAKE_RECORDS_LOST = "intake.records_lost"
    INTAKE_PARTITION_PARKED = "intake.partition_parked"
    INTAKE_SUSPICIOUS = "intake.suspicious"
    INTAKE_RECORD_SET_ASIDE = "intake.record_set_aside"
    INTAKE_RETRIED = "intake.retried"
    INTAKE_UNAVAILABLE = "intake.unavailable"
    INTAKE_COMMIT_FAILED = "intake.commit_failed"
    DUTY_RETRIED = "duty.retried"
    UNIT_ACCEPTED = "unit.accepted"
    UNIT_FINISHED = "unit.finished"
    UNIT_PARKED = "unit.parked"
    UNIT_DUPLICATE = "unit.duplicate"
    UNIT_REFUSED = "unit.refused"
    UNIT_FORBIDDEN = "unit.forbidden"
    UNIT_SET_ASIDE = "unit.set_aside"
    UNIT_CANCEL_IGNORED = "unit.cancel_ignored"
    UNIT_CANCEL_UNKNOWN = "unit.cancel_unknown"
    UNIT_CANCEL_FORBIDDEN = "unit.cancel_forbidden"
    BATCH_RETRIED = "batch.retried"
    COMPENSATION_STARTED = "compensation.started"
    WORKER_LEASE_LOST = "worker.lease_lost"
    WORKER_TAKEN_OVER = "worker.taken_over"
    WORKER_FENCED = "worker.fenced"
    RELAY_STARTED = "relay.started"
    RELAY_LEASE_LOST = "relay.lease_lost"
    RELAY_PUBLISHED = "relay.published"
    RELAY_RETRIED = "relay.retried"
    RELAY_TOPIC_SET_ASIDE = "relay.topic_set_aside"
    RELAY_MESSAGE_TOO_LARGE = "relay.message_too_large"
    RELAY_TOPIC_RESTORED = "relay.topic_restored"
    RELAY_REBUILT = "relay.rebuilt"
    TOPIC_CREATED = "topic.created"
    TOPIC_COMPACTED = "topic.compacted"
    TOPIC_TOO_SMALL = "topic.too_small"
    COLLECTION_CREATED = "collection.created"
    DEAD_LETTER_WRITTEN = "dead_letter.written"
    SWEEP_FINISHED = "sweep.finished"
    OPERATOR_ACTION = "operator.action"
    HTTP_FAILED = "http.failed"
    LIBRARY_MESSAGE = "library.message"
    LOG_DROPPED = "log.dropped"


@dataclass(frozen=True, slots=True)
class Entry:
    """One event's row in the catalogue. ``fields`` are those beyond timestamp to message."""

    event: LogEvent
    level: str
    fields: tuple[str, ...]
    meaning: str
    remedy: str = "None needed."


_E = LogEvent
_ERROR_FIELDS = ("error.type", "error.message")

CATALOGUE: Final[tuple[Entry, ...]] = (
    Entry(_E.DAEMON_STARTING, "info", ("worker", "version"), "The process is up."),
    Entry(
        _E.DAEMON_READY,
        "info",
        ("worker", "duration_ms"),
        "Configuration, mappings and every server are checked; units are being taken in.",
    ),
    Entry(
        _E.DAEMON_DRAINING,
        "info",
        ("reason",),
        "Intake stops, what is in flight is finished, the relay is flushed.",
    ),
    Entry(
        _E.DAEMON_DRAIN_LATE,
        "warning",
        ("step", "duration_ms", *_ERROR_FIELDS),
        "A step of the drain did not end in its time; the daemon leaves without it.",
        "None for the data: what is unfinished goes on at the next start or at another daemon. "
        "Look for a server that is away.",
    ),
    Entry(_E.DAEMON_STOPPED, "info", ("exit_code", "duration_ms"), "The process leaves."),
    Entry(
        _E.DAEMON_TASK_FAILED,
        "error",
        ("task", *_ERROR_FIELDS, "error.stack"),
        "A supervised task ended that should not; the daemon drains and exits non-zero.",
        "Let the daemon be started again. If it repeats, report the stack: it is a bug.",
    ),
    Entry(
        _E.CONFIG_INVALID,
        "error",
        ("mistake",),
        "A mistake in the configuration or a mapping; one line each, then exit code 2.",
        "Correct the place that the message names; `coordinator check` tells all at once.",
    ),
    Entry(
        _E.CONFIG_WARNING,
        "warning",
        ("entity", "store"),
        "Something in the mapping works but may surprise, such as user triggers on a table.",
        "Read the message; nothing is refused for it.",
    ),
    Entry(
        _E.TRANSPORT_UNPROTECTED,
        "warning",
        ("connection",),
        "A connection leaves the machine unencrypted, or to a server whose certificate or name is "
        "not checked; a setting allows it. One line each at every start.",
        "Protect it as docs/how-to/tls.md tells, and take `allow_plaintext` away.",
    ),
    Entry(
        _E.JOURNAL_MIGRATED,
        "info",
        ("migration",),
        "A step that makes the journal's tables, or brings them to this version's shape, was done.",
    ),
    Entry(
        _E.DEPENDENCY_AWAY,
        "warning",
        ("store", "attempt", "retry_ms", "task", "reason", *_ERROR_FIELDS),
        "An attempt to reach a server failed; one line per attempt, with backoff (F35).",
        "Bring the server back; units wait within their deadlines.",
    ),
    Entry(
        _E.DEPENDENCY_LOST,
        "warning",
        ("store", "reason", *_ERROR_FIELDS),
        "A server that was there is away; `/readyz` names it.",
        "Bring the server back; nothing is lost meanwhile.",
    ),
    Entry(
        _E.DEPENDENCY_RESTORED, "info", ("store", "duration_ms"), "A server that was away is back."
    ),
    Entry(
        _E.INTAKE_ASSIGNED,
        "info",
        ("topic", "partitions"),
        "Partitions were assigned; reading goes on at the journal's positions.",
    ),
    Entry(_E.INTAKE_REVOKED, "info", ("topic", "partitions"), "Partitions went elsewhere."),
    Entry(
        _E.INTAKE_PAUSED,
        "warning",
        ("bound", "units", "bytes", "parked"),
        "No more is read from Kafka. `bound` tells why: the open units are at `backlog.max_units` "
        "(`units`) or `backlog.max_bytes` (`bytes`), or `backlog.max_parked` of them are parked "
        "(`parked`).",
        "If it lasts, find what is away or slow; for `parked`, see to the parked units. The rest "
        "waits in the topic.",
    ),
    Entry(_E.INTAKE_RESUMED, "info", ("units", "bytes", "parked"), "Reading goes on."),
    Entry(
        _E.INTAKE_SLOWED,
        "warning",
        ("topic", "records"),
        "More comes than `backlog.max_units_per_second`; the rest waits in the topic. Told once, "
        "until `intake.unslowed`.",
        "None if the limit is meant; else raise it.",
    ),
    Entry(
        _E.INTAKE_UNSLOWED,
        "info",
        ("topic",),
        "Less comes than the limit: everything is read as it comes.",
    ),
    Entry(
        _E.INTAKE_POSITION_LOST,
        "warning",
        ("topic", "partition", "offset"),
        "Another daemon read this partition too; its records were dropped and are sought again.",
        "None if it happens around a rebalance.",
    ),
    Entry(
        _E.INTAKE_REBUILT,
        "warning",
        ("attempt", *_ERROR_FIELDS),
        "The consumer failed and was made anew from the journal's positions.",
        "If it repeats, look at the brokers.",
    ),
    Entry(
        _E.INTAKE_RECORDS_LOST,
        "error",
        ("topic", "partition", "offset", "records"),
        "Kafka's retention deleted records before they were read; reading goes on at `offset`, the "
        "first that is left. `records` counts offsets.",
        "Tell the senders: these submissions have no outcome. Keep records longer than the longest "
        "outage.",
    ),
    Entry(
        _E.INTAKE_SUSPICIOUS,
        "warning",
        ("topic", "partition", "offset", "attempt"),
        "Whoever read this partition before did not let it go: it died, or is frozen. The next "
        "records are read one at a time, each marked in the journal before it is touched. "
        "`attempt` counts those who stood here.",
        "See why the daemon died. Once is no record's fault; a record that ends three daemons is "
        "set aside by itself.",
    ),
    Entry(
        _E.INTAKE_RECORD_SET_ASIDE,
        "error",
        ("topic", "partition", "offset", "records"),
        "Reading this record ended the process three times, or its compressed batch would unpack "
        "to more than `kafka.unpacked_batch_max_bytes`. It is a dead letter now, unread; "
        "`records` is more than 1 where a whole batch was passed over.",
        "Look at the dead letter with a tool of its own, not with a unit's reader; report what "
        "is in it.",
    ),
    Entry(
        _E.INTAKE_PARTITION_PARKED,
        "error",
        ("topic", "partition", "offset"),
        "A partition is not read any more, the others are: its log ends before the journal's "
        "position (made again, or its tail is lost), or a record cannot even be unpacked.",
        "Bring the log back, or set `next_offset` in `coordinator.positions` for this partition; "
        "reading goes on by itself.",
    ),
    Entry(
        _E.INTAKE_RETRIED,
        "warning",
        ("attempt", "retry_ms", *_ERROR_FIELDS),
        "Records could not be admitted, or a position not be asked for; both are tried again.",
        "Bring the journal or the brokers back; nothing is lost meanwhile.",
    ),
    Entry(
        _E.INTAKE_UNAVAILABLE,
        "warning",
        ("attempt", *_ERROR_FIELDS),
        "The brokers do not answer; the units wait in their topics.",
        "Bring the brokers back.",
    ),
    Entry(
        _E.INTAKE_COMMIT_FAILED,
        "debug",
        _ERROR_FIELDS,
        "Kafka did not take our offsets. Only its lag tools use them: the journal's count.",
    ),
    Entry(
        _E.DUTY_RETRIED,
        "warning",
        ("task", "store", "reason"),
        "A periodic duty such as a takeover or a sweep could not be done; it is tried again.",
        "If it lasts, the reason says which right or server is missing.",
    ),
    Entry(
        _E.UNIT_ACCEPTED,
        "debug",
        ("unit", "topic", "partition", "offset", "trace_id"),
        "The intent is durable in the journal.",
    ),
    Entry(
        _E.UNIT_FINISHED,
        "info",
        ("unit", "status", "duration_ms", "code", "entity", "trace_id"),
        "The one canonical line per unit, when its final decision is durable.",
    ),
    Entry(
        _E.UNIT_PARKED,
        "error",
        ("unit", "code", "entity", "store", "reason"),
        "A compensation needs a person; the locks are kept (F11).",
        "`coordinator units show ID`, put the data right, then `units retry ID` or "
        "`units resolve ID --as compensated --reason TEXT`.",
    ),
    Entry(
        _E.UNIT_DUPLICATE,
        "info",
        ("unit", "count", "code", "topic", "partition", "offset"),
        "An id that is known came again: answered, not applied (F4).",
    ),
    Entry(
        _E.UNIT_REFUSED,
        "info",
        ("unit", "code", "path", "topic", "partition", "offset"),
        "Refused before admission: nothing of it is in the journal (F2).",
        "The sender's: the outcome names every mistake.",
    ),
    Entry(
        _E.UNIT_FORBIDDEN,
        "warning",
        ("unit", "breach", "path", "count", "topic", "partition", "offset"),
        "A submission went beyond what its topic or key is granted, or its signature does not "
        "count. `breach` says which; `path` is the first slot of `count`. It stands beside "
        "`unit.refused`.",
        "Find out who wrote the record at that place: a mistake of a service, or somebody trying.",
    ),
    Entry(
        _E.UNIT_SET_ASIDE,
        "info",
        ("unit", "entity", "store", "attempt", "reason"),
        "An outsider holds a row of the unit; it is tried again, the batch goes on without it.",
        "If it lasts, find the outsider's long transaction.",
    ),
    Entry(
        _E.UNIT_CANCEL_IGNORED,
        "info",
        ("unit", "status"),
        "A cancel came for a unit that is compensating or parked (F8).",
    ),
    Entry(
        _E.UNIT_CANCEL_UNKNOWN,
        "info",
        ("unit", "topic", "partition", "offset"),
        "A cancel came for a unit that is not known; it is forgotten (F8).",
    ),
    Entry(
        _E.UNIT_CANCEL_FORBIDDEN,
        "warning",
        ("unit", "breach", "topic", "partition", "offset"),
        "A cancel came for a unit of another topic, or is not signed as it must be. It is "
        "forgotten.",
        "As for `unit.forbidden`; if the topic may cancel such units, say so in `cancels`.",
    ),
    Entry(
        _E.BATCH_RETRIED,
        "info",
        ("units", "phase", "attempt", "reason"),
        "A batch did not go through in one piece; it was halved until the unit was found that "
        "fails alone. `attempt` counts the transactions.",
    ),
    Entry(
        _E.COMPENSATION_STARTED,
        "info",
        ("unit", "code"),
        "A unit that may have written something is being undone.",
    ),
    Entry(
        _E.WORKER_LEASE_LOST,
        "error",
        (),
        "The lease could not be renewed in time; nothing new is begun until it is.",
        "Look at the journal's database and at the load of this machine.",
    ),
    Entry(
        _E.WORKER_TAKEN_OVER,
        "warning",
        ("worker", "units", "duration_ms"),
        "A worker whose lease expired was fenced, and its units go on here.",
        "None for the data; see why the other daemon went away.",
    ),
    Entry(
        _E.WORKER_FENCED,
        "error",
        ("worker", "task"),
        "Another daemon has taken over this worker's units; this one leaves with exit code 3 (I9).",
        "Start it again: it will be a new worker. See why it did not renew its lease.",
    ),
    Entry(_E.RELAY_STARTED, "info", (), "This daemon publishes the outbox now."),
    Entry(
        _E.RELAY_LEASE_LOST,
        "warning",
        (),
        "The right to publish could not be renewed in time; another daemon publishes.",
        "None if another daemon was started; else look at the journal's database.",
    ),
    Entry(
        _E.RELAY_PUBLISHED,
        "debug",
        ("messages", "rows", "duration_ms"),
        "Everything in these rows of the outbox is acknowledged, or set aside.",
    ),
    Entry(
        _E.RELAY_RETRIED,
        "warning",
        ("store", "attempt", *_ERROR_FIELDS),
        "Publishing failed and is tried again; the messages wait in the outbox.",
        "If it lasts, look at the brokers.",
    ),
    Entry(
        _E.RELAY_TOPIC_SET_ASIDE,
        "error",
        ("topic", "messages", *_ERROR_FIELDS),
        "A topic refuses messages; they are kept in order under its own queue, others go on.",
        "Make the topic, or give the rights; publishing resumes by itself.",
    ),
    Entry(
        _E.RELAY_MESSAGE_TOO_LARGE,
        "error",
        ("topic", "bytes"),
        "One message is larger than its topic takes, compressed as well. It is kept in "
        "`coordinator.outbox_aside` under the topic's name and `#too-large`; the others go on.",
        "Raise the topic's `max.message.bytes` and give the message its topic back there, or "
        "delete it: see the page on topics.",
    ),
    Entry(
        _E.RELAY_TOPIC_RESTORED,
        "info",
        ("topic", "messages"),
        "A topic that refused takes messages again; those set aside are published.",
    ),
    Entry(
        _E.RELAY_REBUILT,
        "warning",
        _ERROR_FIELDS,
        "The producer failed for good and was made anew; some messages may be sent twice.",
        "None: consumers drop repeats by `ce_id`.",
    ),
    Entry(
        _E.TOPIC_CREATED,
        "info",
        ("topic", "partitions"),
        "A topic was missing and was made (`topics.create`).",
    ),
    Entry(
        _E.TOPIC_COMPACTED,
        "warning",
        ("topic",),
        "The topic of the units is compacted: Kafka may drop units that were never read.",
        "Set its `cleanup.policy` to `delete`.",
    ),
    Entry(
        _E.TOPIC_TOO_SMALL,
        "warning",
        ("topic", "bytes"),
        "The largest records of the units' topic do not fit into the dead-letter topic; `bytes` is "
        "what it takes.",
        "Raise its `max.message.bytes` as the message says.",
    ),
    Entry(
        _E.COLLECTION_CREATED,
        "info",
        ("store", "entity"),
        "A mapped collection was missing and was made.",
    ),
    Entry(
        _E.DEAD_LETTER_WRITTEN,
        "warning",
        ("topic", "partition", "offset", "code"),
        "A record could not be read as a unit; it is kept in the dead-letter topic (F1).",
        "`coordinator dead-letters show`; correct the sender.",
    ),
    Entry(
        _E.SWEEP_FINISHED,
        "debug",
        ("units",),
        "Undo records of units that are final for long were deleted.",
    ),
    Entry(
        _E.OPERATOR_ACTION,
        "warning",
        ("unit", "action", "reason"),
        "A person retried, resolved or cancelled a unit over HTTP; every such act is also a row of "
        "`coordinator.audit`.",
    ),
    Entry(
        _E.HTTP_FAILED,
        "error",
        ("path", *_ERROR_FIELDS, "error.stack"),
        "A request to the HTTP port failed in a way that is ours.",
        "Report the stack: it is a bug.",
    ),
    Entry(
        _E.LIBRARY_MESSAGE,
        "warning",
        ("logger", "repeated", *_ERROR_FIELDS, "error.stack"),
        "A warning or an error of a library (drivers, asyncio); repeats are counted, not shown. "
        "The level is the library's, but for aiokafka's retries, which are warnings.",
        "Usually none: what matters has an event of its own.",
    ),
    Entry(
        _E.LOG_DROPPED,
        "warning",
        ("lines",),
        "Whoever reads stdout was too slow; this many log lines were thrown away.",
        "Read stdout faster, or raise `log.level`.",
    ),
)

_PREFACE = """\
# Log events

<!-- Generated by `python -m coordinator.log_events`; a test compares. Do not edit by hand. -->

One JSON object per line on stdout. Every line has `timestamp` (RFC 3339, UTC, microseconds),
`level`, `event` (a name of this page, never changed) and `message` (a sentence; its wording may
change). Then come the fields of the event, in any order; a field that does not apply is left out.
Row values never stand in a line above level `debug`, secrets in none.

| Field | Means |
|---|---|
| `unit` | the unit's id |
| `entity`, `store` | names from the configuration; `store` is also `journal` or `kafka` |
| `attempt` | the number of this attempt, from 1 |
| `duration_ms`, `retry_ms` | milliseconds that it took, and until the next attempt |
| `topic`, `partition`, `offset` | a place in Kafka |
| `code` | an error code of the outcome |
| `error.type`, `error.message`, `error.stack` | a fault: class, text, traceback (errors only) |
| `reason` | why, in words |
| `trace_id` | from the submission's `traceparent` |

| Event | Level | Means | Do | Fields |
|---|---|---|---|---|
"""


def render_page() -> str:
    """Give the Markdown of ``docs/reference/log-events.md``."""
    rows = (
        f"| `{entry.event}` | {entry.level} | {entry.meaning} | {entry.remedy} "
        f"| {', '.join(f'`{name}`' for name in entry.fields)} |"
        for entry in CATALOGUE
    )
    return _PREFACE + "\n".join(rows) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(render_page())
