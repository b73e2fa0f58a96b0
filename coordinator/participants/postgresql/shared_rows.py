"""Rows that several units of a batch only count up and down: one write for all of them.

Pure. In the pivot nothing is uncommitted but its own transaction, so sharers are decided one after
the other, each on what the former leaves; what is written is the sum, and what is told of each is
foretold. That holds only where nobody judges what stands in between, and a row becomes what was
written and nothing else. A table with rules of its own (`row_rules`) or with generated columns is
written one unit after the other; and so is one whose row has come back as something else, from that
time on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from coordinator.domain.decide import Image, ImageKey
from coordinator.domain.operation import Unit
from coordinator.domain.sharing import Line
from coordinator.participants.postgresql.mapped_table import Texts
from coordinator.participants.postgresql.waves import Step, spread


class SharedRows:
    """The shared rows of one store in one transaction.

    ``one_by_one`` names the entities whose rows are more than what was written; it is the
    caller's, who keeps it for the next batch. ``ruled`` are those that have rules now.
    """

    def __init__(self, line: Line, store: str, one_by_one: set[str]) -> None:
        self.line = line
        self._store = store
        self._one_by_one = one_by_one
        self.ruled: set[str] = set()
        self._chains: dict[ImageKey, list[Step]] = {}
        self._ends: list[tuple[Step, Texts | None]] = []
        self._singly: set[ImageKey] = set()

    def counters(self, units: Iterable[Unit]) -> dict[str, set[str]]:
        """Give the columns of shared rows that these units count, by entity."""
        found: dict[str, set[str]] = {}
        for unit in units:
            for _, operation in unit.branch(self._store):
                if (operation.entity, operation.key_text) in self.line.keys:
                    columns = found.setdefault(operation.entity, set())
                    columns.update(operation.increment or ())
                    version = unit.mapping.entities[operation.entity].version
                    columns.update(() if version is None else (version,))
        return found

    def begin(self) -> None:
        """Begin a part of the batch."""
        self._chains = {}
        self._ends = []
        self._singly = set()

    def take(
        self, levels: list[list[Step]], steps: list[Step], images: dict[ImageKey, Image | None]
    ) -> None:
        """Take a unit's steps: those on shared rows are chained, the others go to their levels.

        ``images`` then hold what the next sharer finds.
        """
        others = []
        follows = False
        for step in steps:
            if step.at not in self.line.keys:
                others.append(step)
            elif self._is_one_by_one(step):
                others.append(step)
                follows = True
                # The first finds the row as it is, the others what the former's write made of it.
                step.chained = step.at in self._singly
                self._singly.add(step.at)
            else:
                self._chains.setdefault(step.at, []).append(step)
            images[step.at] = step.write.after
        if others:
            spread(levels, others, len(levels) - 1 if follows else -1)

    def ends(self, texts: Mapping[ImageKey, Texts | None]) -> list[Step]:
        """Give one step per shared row that writes what all of its chain add up to."""
        self._ends = []
        for at, chain in self._chains.items():
            last = chain[-1]
            assigned: dict[str, Any] = {}
            for step in chain:
                assigned.update(step.write.assigned)
            end = Step(last.unit, last.table, last.write._replace(assigned=assigned), False)
            self._ends.append((end, texts[at]))
        return [end for end, _ in self._ends]

    def uneven(self, texts: Mapping[ImageKey, Texts | None]) -> str | None:
        """Name an entity whose row has become something else than was foretold, if there is one."""
        for end, before in self._ends:
            table, after = end.table, texts[end.at]
            foretold = table.show(end.write.after)
            if foretold != table.show(end.image) or not _only(end, before, after):
                self._one_by_one.add(end.write.operation.entity)
                return table.entity.name
        return None

    def _is_one_by_one(self, step: Step) -> bool:
        if any(column.generated for column in step.table.statements.table.columns):
            return True
        entity = step.write.operation.entity
        return entity in self._one_by_one or entity in self.ruled


def _only(end: Step, before: Texts | None, after: Texts | None) -> bool:
    """Whether nothing but what was assigned has changed."""
    if before is None or after is None:
        return False
    names = end.table.statements.names
    return all(
        name in end.write.assigned or was == now
        for name, was, now in zip(names, before[1:], after[1:], strict=True)
    )
