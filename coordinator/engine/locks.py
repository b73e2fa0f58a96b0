"""The lock queues of this worker's units, in memory: who may run, and who waits for whom.

Overview. Each unit claims every key that it touches, exclusively to write and shared to check or
refer (F15). Claims on one key stand in the order of admission (``seq``); a claim is free when no
earlier one conflicts with it. A unit may run when all its claims are free. Claims are made at
once, at admission, so there is no deadlock and no lock time-out, and since the queue is first
come first served nobody starves (I5).

Claims of units that only count the key up and down (``increment``) are exclusive like any other
write's, but for this: a batch that takes the first of the queue may take those behind it as well,
as long as nobody else stands between (`Passing`). So the sharers of a key that are under way are
always a prefix of its queue, all of one batch, and whoever is left behind holds up the rest.

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
from collections.abc import Iterator, Sequence

from coordinator.domain.operation import LockRequest

_Key = tuple[str, str]

_INCREMENT = 2
"""The mode of a claim is truthy when it is exclusive, and this one in particular."""


class LockQueues:
    """First come, first served queues of claims by ``seq``."""

    def __init__(self) -> None:
        self._queues: dict[_Key, OrderedDict[int, int]] = {}
        self._blocked: dict[int, set[_Key]] = {}
        self._claims: dict[int, Sequence[LockRequest]] = {}

    def claim(self, seq: int, requests: Sequence[LockRequest]) -> bool:
        """Queue a unit's claims; whether all of them are free at once."""
        blocked: set[_Key] = set()
        for request in requests:
            entity, key_text, exclusive, increment = request
            key = (entity, key_text)
            mode = _INCREMENT if increment else exclusive
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = OrderedDict({seq: mode})
                continue
            late = next(reversed(queue)) > seq
            if exclusive or any(queue.values()):
                blocked.add(key)
            queue[seq] = mode
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

    def passing(self) -> Passing | None:
        """Begin a batch: see who may go with those that it takes; ``None`` if nobody waits."""
        if not self._blocked:
            return None
        return Passing(self._queues, self._blocked, self._claims)

    def _free_prefix(self, key: _Key, queue: OrderedDict[int, int], freed: set[int]) -> None:
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


class Passing:
    """Who may go in the same batch as the units that it has taken: the sharers behind them.

    Lives as long as the batch is being taken; no claim may come or go meanwhile.
    """

    __slots__ = ("_blocked", "_claims", "_passed", "_queues", "_walks")

    def __init__(
        self,
        queues: dict[_Key, OrderedDict[int, int]],
        blocked: dict[int, set[_Key]],
        claims: dict[int, Sequence[LockRequest]],
    ) -> None:
        self._queues = queues
        self._blocked = blocked
        self._claims = claims
        self._walks: dict[_Key, Iterator[tuple[int, int]]] = {}
        self._passed: dict[int, int] = {}

    def take(self, seq: int) -> list[int]:
        """Note that the batch has taken a unit; give those that only waited for such ones.

        A unit is given once the batch has everybody who stands before it on any of its keys, and
        all of them, like itself, only count those keys.
        """
        found = []
        for entity, key_text, _, increment in self._claims[seq]:
            if not increment:
                continue
            key = (entity, key_text)
            queue = self._queues[key]
            if len(queue) == 1:
                continue
            walk = self._walks.get(key)
            if walk is None:
                walk = self._walks[key] = iter(queue.items())
                next(walk)  # itself: who is free and writes is the first
            other, mode = next(walk, (0, 0))
            if mode != _INCREMENT:
                continue
            passed = self._passed[other] = self._passed.get(other, 0) + 1
            if passed == len(self._blocked[other]):
                found.append(other)
        return found
