"""One store's database: its rows, its undo records and fences, and the rules that it enforces.

A `Draft` is a transaction: it sees its own writes over the rows, and nothing is changed before
`StoreTables.keep` takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from coordinator.domain.decide import Image, ImageKey
from coordinator.domain.entity import StoreKind
from coordinator.domain.errors import Fenced
from coordinator.domain.publishing import Done
from coordinator.domain.sharing import Share
from coordinator.memory.undo import KeyUndo


class Forbidden(Exception):
    """The store refuses a write; the text is a sentence."""


class Rows(dict[ImageKey, Image | None]):
    """Rows by key; a key that is not there is None."""

    def __missing__(self, at: ImageKey) -> Image | None:
        return None


class Draft(dict[ImageKey, Image | None]):
    """Rows as a transaction sees them."""

    def __init__(self, tables: StoreTables) -> None:
        super().__init__()
        self._tables = tables

    def __missing__(self, at: ImageKey) -> Image | None:
        return self._tables.rows[at]

    def write(self, at: ImageKey, after: Image | None) -> None:
        """Write one row, or delete it with None; raise `Forbidden` when a rule is broken."""
        tables = self._tables
        if after is not None:
            broken = tables.judge(at, self[at], after)
            if broken is not None:
                raise Forbidden(broken)
            for name in tables.unique:
                if after.get(name) is not None and self._is_taken(at, name, after[name]):
                    raise Forbidden(f"another row holds this {name} already.")
        self[at] = after

    def _is_taken(self, at: ImageKey, name: str, value: object) -> bool:
        return any(
            other[0] == at[0]
            and other != at
            and row is not None
            and row.get(name) == value
            and self[other] is row
            for other, row in (*self._tables.rows.items(), *self.items())
        )


@dataclass(slots=True)
class UndoRecord:
    """What became of a branch: ``applied``, ``undone`` or a ``tombstone``.

    ``shared`` are the keys that it was applied to together with others.
    """

    seq: int
    digest: str
    state: str
    wrote: bool = False
    keys: tuple[KeyUndo, ...] = ()
    done: tuple[Done, ...] = ()
    shared: frozenset[ImageKey] = frozenset()


def _no_rule(at: ImageKey, before: Image | None, after: Image) -> str | None:
    return None


@dataclass(slots=True)
class StoreTables:
    """One store. ``held`` are the rows that a stranger's open transaction holds.

    ``judge`` is the CHECK constraint: (key, before, after) → a sentence when it is broken.
    ``unique`` names fields whose values no two rows of an entity may share.
    """

    name: str
    kind: StoreKind
    rows: Rows = field(default_factory=Rows)
    undo: dict[str, UndoRecord] = field(default_factory=dict)
    shares: dict[ImageKey, Share] = field(default_factory=dict)
    fences: dict[int, bool] = field(default_factory=dict)
    forgotten_worker: int = 0
    held: set[ImageKey] = field(default_factory=set)
    unique: tuple[str, ...] = ()
    judge: Callable[[ImageKey, Image | None, Image], str | None] = _no_rule

    def hold_fence(self, worker: int) -> None:
        """Write this worker's fence; refuse for good once it is fenced (rule 3, I9)."""
        if self.fences.get(worker, True):
            raise Fenced(f"worker {worker} has been fenced at {self.name}")

    def keep(self, draft: Draft) -> None:
        """Commit what a transaction wrote."""
        for at, row in draft.items():
            if row is None:
                self.rows.pop(at, None)
            else:
                self.rows[at] = row
