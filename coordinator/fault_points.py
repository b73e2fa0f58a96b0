"""Named fault points: where a test makes the process die, stand still, or lose an answer.

One stands on either side of every durable effect, so that windows which chance hits once in a
thousand kills are hit on purpose. They are switched on by the environment variable
``COORDINATOR_FAULTS`` only; without it a point costs one look at an empty mapping.

``COORDINATOR_FAULTS`` holds rules separated by ``;``, each ``point=action``, ``point/store=action``
or ``point=action@number``: the action is taken when the point is reached for that time (the first,
if not given), at that store (any, if not given), and once only. ``point[text]=action`` counts only
where what is at hand holds that text, such as the record that is being read. With ``@FILE``
instead, the rules are in a file, which is looked at again whenever a point is reached: so a running
process can be given its faults at a moment of the test's choice. Actions:

=================== ===========================================================================
``kill``            the process ends at once, as by kill -9
``freeze``          the whole process stands still, by SIGSTOP, until somebody sends SIGCONT
``freeze:SECONDS``  its event loop stands still for so long
``fail``            the store does not answer and nothing was done: `StoreUnavailable`
``lose``            the effect is done, its answer is lost: `ResultUnknown`
=================== ===========================================================================

The last two are opposites: `FaultPoint.answer` tells which of them a point can honestly have, and
a rule with the other one is a mistake.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from coordinator.domain.errors import ConfigurationInvalid, ResultUnknown, StoreUnavailable

VARIABLE: Final = "COORDINATOR_FAULTS"
_DONE: Final = frozenset({"after", "sent", "acknowledged", "deleted"})
_NOBODY_ASKED: Final = frozenset({"", "read"})


class FaultPoint(StrEnum):
    """Every point, by what is about to be durable (``before``) or just became so (``after``).

    Between the two stand points inside a transaction, of which nothing is durable yet. The relay's
    say what has just happened to the messages of a batch.
    """

    REGISTER_BEFORE = "register.before"
    REGISTER_AFTER = "register.after"
    ENROL_BEFORE = "enrol.before"
    ENROL_AFTER = "enrol.after"
    BEGIN_READING_BEFORE = "begin_reading.before"
    BEGIN_READING_AFTER = "begin_reading.after"
    MARK_BEFORE = "mark.before"
    MARK_AFTER = "mark.after"
    SET_ASIDE_BEFORE = "set_aside.before"
    SET_ASIDE_AFTER = "set_aside.after"
    RELEASE_BEFORE = "release.before"
    RELEASE_AFTER = "release.after"
    UNPACK = "unpack"
    ADMIT_READ = "admit.read"
    ADMIT_BEFORE = "admit.before"
    ADMIT_AFTER = "admit.after"
    APPLY_BEFORE = "apply.before"
    APPLY_FENCED = "apply.fenced"
    APPLY_WRITTEN = "apply.written"
    APPLY_AFTER = "apply.after"
    PIVOT_BEFORE = "pivot.before"
    PIVOT_HELD = "pivot.held"
    PIVOT_WRITTEN = "pivot.written"
    PIVOT_CONCLUDED = "pivot.concluded"
    PIVOT_AFTER = "pivot.after"
    FORETOLD_BEFORE = "foretold.before"
    FORETOLD_AFTER = "foretold.after"
    COMPENSATE_BEFORE = "compensate.before"
    COMPENSATE_FENCED = "compensate.fenced"
    COMPENSATE_WRITTEN = "compensate.written"
    COMPENSATE_AFTER = "compensate.after"
    FINISH_BEFORE = "finish.before"
    FINISH_CONCLUDED = "finish.concluded"
    FINISH_AFTER = "finish.after"
    NEWCOMERS_BEFORE = "newcomers.before"
    NEWCOMERS_WRITTEN = "newcomers.written"
    NEWCOMERS_AFTER = "newcomers.after"
    HEARTBEAT_BEFORE = "heartbeat.before"
    HEARTBEAT_AFTER = "heartbeat.after"
    FENCE_JOURNAL_BEFORE = "fence_journal.before"
    FENCE_JOURNAL_AFTER = "fence_journal.after"
    FENCE_STORE_BEFORE = "fence_store.before"
    FENCE_STORE_AFTER = "fence_store.after"
    FENCE_RECORDED = "fence_recorded.after"
    TAKE_OVER_BEFORE = "take_over.before"
    TAKE_OVER_AFTER = "take_over.after"
    BURY_BEFORE = "bury.before"
    BURY_AFTER = "bury.after"
    RELAY_CLAIMED = "relay.claimed"
    RELAY_SENT = "relay.sent"
    RELAY_ACKNOWLEDGED = "relay.acknowledged"
    RELAY_DELETED = "relay.deleted"
    ASIDE_BEFORE = "aside.before"
    ASIDE_AFTER = "aside.after"
    SWEEP_STORE_BEFORE = "sweep_store.before"
    SWEEP_STORE_AFTER = "sweep_store.after"
    SWEPT_BEFORE = "swept.before"
    SWEPT_AFTER = "swept.after"
    FORGET_BEFORE = "forget.before"
    FORGET_AFTER = "forget.after"
    FORGET_WORKERS_BEFORE = "forget_workers.before"
    FORGET_WORKERS_AFTER = "forget_workers.after"
    VERB_BEFORE = "verb.before"
    VERB_AFTER = "verb.after"
    LEAVE_BEFORE = "leave.before"
    LEAVE_AFTER = "leave.after"

    @property
    def step(self) -> str:
        """What is being done, without where in it."""
        return self.value.partition(".")[0]

    @property
    def is_done(self) -> bool:
        """Whether the effect is durable here: its answer can be lost, but it cannot have failed."""
        return self.value.partition(".")[2] in _DONE

    @property
    def answer(self) -> str | None:
        """What can become of an answer here: ``lose``, ``fail``, or none if nobody was asked."""
        if self.value.partition(".")[2] in _NOBODY_ASKED:
            return None
        return "lose" if self.is_done else "fail"


@dataclass(slots=True)
class _Rule:
    action: str
    seconds: float
    number: int
    store: str = ""
    about: bytes = b""
    reached: int = 0


def reach(point: FaultPoint, store: str = "journal", about: bytes | None = None) -> None:
    """Take the action that is due here, if any; ``store`` is whose answer fails or is lost.

    ``about`` is what is at hand, for rules that ask for a text in it.
    """
    if _FILE is not None:
        _FILE.look()
    if not _RULES:
        return
    rule = _RULES.get(point)
    if rule is None or rule.store not in {"", store} or rule.about not in (about or b""):
        return
    rule.reached += 1
    if rule.reached == rule.number:
        _act(point, rule, store)


def _act(point: FaultPoint, rule: _Rule, store: str) -> None:
    # Unbuffered and by hand: the process may be gone before any logger has written.
    os.write(sys.stderr.fileno(), f"fault point {point}: {rule.action}\n".encode())
    if rule.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif rule.action == "freeze" and rule.seconds:
        time.sleep(rule.seconds)
    elif rule.action == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif rule.action == "fail":
        raise StoreUnavailable(store, f"made to fail at {point}")
    else:
        raise ResultUnknown(store, f"made to lose the answer at {point}")


def read_rules(text: str) -> dict[FaultPoint, _Rule]:
    """Read the rules of a text; raise `ConfigurationInvalid` with every mistake."""
    rules: dict[FaultPoint, _Rule] = {}
    mistakes = []
    for part in filter(None, (each.strip() for each in text.split(";"))):
        place, _, rest = part.partition("=")
        place, _, about = place.partition("[")
        name, _, store = place.partition("/")
        action, _, number = rest.partition("@")
        action, _, seconds = action.partition(":")
        try:
            point = FaultPoint(name)
            text_about = about.removesuffix("]").encode()
            rule = _Rule(action, float(seconds or 0), int(number or 1), store, text_about)
        except ValueError as error:
            mistakes.append(f"{VARIABLE}: {part}: {error}")
            continue
        if action not in {"kill", "freeze", "fail", "lose"}:
            mistakes.append(f"{VARIABLE}: {part}: the action is none of kill, freeze, fail, lose")
        if action in {"fail", "lose"} and action != point.answer:
            mistakes.append(f"{VARIABLE}: {part}: no answer can {action} at this point")
        rules[point] = rule
    if mistakes:
        raise ConfigurationInvalid(mistakes)
    return rules


def switch(text: str) -> None:
    """Replace the rules."""
    _RULES.clear()
    _RULES.update(read_rules(text))


class _RulesFile:
    """A file of rules, which are taken anew whenever another text stands in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = ""

    def look(self) -> None:
        text = self._path.read_text() if self._path.exists() else ""
        if text != self._text:
            self._text = text
            switch(text)


_GIVEN: Final = os.environ.get(VARIABLE, "")
_FILE: Final = _RulesFile(Path(_GIVEN[1:])) if _GIVEN.startswith("@") else None
_RULES: Final[dict[FaultPoint, _Rule]] = {} if _FILE else read_rules(_GIVEN)
