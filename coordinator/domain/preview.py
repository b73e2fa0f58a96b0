"""A preview: what an unlocked read showed of a batch, and what was decided on it.

Most refusals are found so before anything is written anywhere. What was decided is decided again
under the locks, where it counts; but a decision is a function of the rows alone, so where a row
is still the very same, to the last byte, the preview's decision is the one that would be made.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from coordinator.domain.decide import Image, ImageKey, Write, decide_branch
from coordinator.domain.errors import Problem
from coordinator.domain.operation import Unit


class Loaded(NamedTuple):
    """Images by key, ``None`` for a missing row; and ``rows``, as the store itself gives them.

    Only the participant that has read the rows knows their form, and that they are equal when
    nothing at all has changed. A missing row is in ``images`` only, and so is one that is too large
    to be held.
    """

    images: Mapping[ImageKey, Image | None]
    rows: Mapping[ImageKey, Any]


class Preview(NamedTuple):
    """What was loaded at one store, and the writes decided on it, by ``seq``.

    ``unread`` are units that were never tried before and were not loaded either. ``None`` stands
    for writes that follow from what other units of the batch do: of sharers. What those will
    write if all before them commit is in ``chained``, where nothing can be uncommitted.
    """

    images: Mapping[ImageKey, Image | None]
    rows: Mapping[ImageKey, Any]
    writes: Mapping[int, tuple[Write, ...] | None]
    unread: frozenset[int] = frozenset()
    chained: Mapping[int, tuple[Write, ...]] = MappingProxyType({})

    def tried_before(self, seq: int) -> bool:
        """Whether a unit may have been applied by an earlier attempt."""
        return seq not in self.writes and seq not in self.unread

    def decide(
        self,
        unit: Unit,
        store: str,
        images: Mapping[ImageKey, Image | None],
        unchanged: Collection[ImageKey],
    ) -> tuple[Write, ...] | Problem:
        """Decide a unit's branch; ``unchanged`` are the keys whose rows are as they were."""
        writes = self.writes.get(unit.seq)
        if writes is None:
            return decide_branch(unit, store, images)
        for write in writes:
            operation = write.operation
            if (operation.entity, operation.key_text) not in unchanged:
                return decide_branch(unit, store, images)
        return writes

    def is_missing_still(self, key: ImageKey) -> bool:
        """Whether a row that is missing now was missing then."""
        return key in self.images and self.images[key] is None


NOTHING_SEEN = Preview({}, {}, {})
"""The preview of units that run again: their rows may show their own earlier attempt."""
