"""The lock queues of this worker's units, in memory: who may run, and who waits for whom.

Overview. Each unit claims every key that it touches, exclusively to write and shared to check or
refer (F15). Claims on one key stand in the order of admission (``seq``); a claim is free when no
earlier one conflicts with it. A unit may run when all its claims are free. Claims are made at
once, at admission, so there is no deadlock and no lock time-out, and since the queue is first
come first served nobody starves (I5).

The journal's ``locks`` table says the same for all workers; this is the part of it whose units
are ours. A unit that also waits for another worker's is held back by `Schedule` until the journal
says otherwise. What can fail: nothing here does I/O; after a crash the queues are built again
from the journal's rows.

::

    key (account, 42):   17 exclusive │ 21 shared  23 shared │ 30 exclusive
                         free           wait       wait        wait
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from coordinator.domain.operation import LockRequest

_Key = tuple[str, str]


class LockQueues:
    """First come, first served queues of claims by ``seq``."""

    def __init__(self) -> None:
        self._queues: dict[_Key, OrderedDict[int, bool]] = {}
        self._blocked: dict[int, set[_Key]] = {}
        self._claims: dict[int, Sequence[LockRequest]] = {}

    def claim(self, seq: int, requests: Sequence[LockRequest]) -> bool:
        """Queue a unit's claims; whether all of them are free at once."""
        blocked: set[_Key] = set()
        for request in requests:
            key = (request.entity, request.key_text)
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = OrderedDict({seq: request.exclusive})
                continue
            late = next(reversed(queue)) > seq
            if request.exclusive or any(queue.values()):
                blocked.add(key)
            queue[seq] = request.exclusive
            if late:
                self._reorder(key)
                if self._is_free(key, seq):
                    blocked.discard(key)
                else:
                    blocked.add(key)
        self._claims[seq] = requests
        if blocked:
            self._blocked[seq] = blocked
        return not blocked

    def release(self, seq: int) -> list[int]:
        """Drop a unit's claims; give the units that became free by it, in order."""
        freed: set[int] = set()
        self._blocked.pop(seq, None)
        for request in self._claims.pop(seq, ()):
            key = (request.entity, request.key_text)
            queue = self._queues[key]
            was_exclusive = queue.pop(seq)
            if not queue:
                del self._queues[key]
            elif was_exclusive or queue[next(iter(queue))]:
                # A sharer that goes frees nobody but an exclusive claim that is first now; so a
                # key that thousands share is not walked through at each release.
                self._free_prefix(key, queue, freed)
        return sorted(freed)

    def is_free(self, seq: int) -> bool:
        """Whether no earlier claim of ours conflicts with any of this unit's."""
        return seq not in self._blocked

    def blockers(self, seq: int) -> list[int]:
        """The earlier units that hold keys this unit waits for, in order."""
        found: set[int] = set()
        for key in self._blocked.get(seq, ()):
            queue = self._queues[key]
            mine = queue[seq]
            for other, exclusive in queue.items():
                if other == seq:
                    break
                if mine or exclusive:
                    found.add(other)
        return sorted(found)

    def _free_prefix(self, key: _Key, queue: OrderedDict[int, bool], freed: set[int]) -> None:
        first = True
        for seq, exclusive in queue.items():
            if exclusive and not first:
                break
            blocked = self._blocked.get(seq)
            if blocked is not None and key in blocked:
                blocked.discard(key)
                if not blocked:
                    del self._blocked[seq]
                    freed.add(seq)
            if exclusive:
                break
            first = False

    def _reorder(self, key: _Key) -> None:
        queue = OrderedDict(sorted(self._queues[key].items()))
        self._queues[key] = queue
        for seq in queue:
            if not self._is_free(key, seq):
                self._blocked.setdefault(seq, set()).add(key)

    def _is_free(self, key: _Key, seq: int) -> bool:
        queue = self._queues[key]
        mine = queue[seq]
        for other, exclusive in queue.items():
            if other == seq:
                return True
            if mine or exclusive:
                return False
        return True
