"""Undo of shared keys: each of several units is taken out of a document that all have written.

Pure. What undo of a key alone takes from its record it takes from the key's share: the version
that we left, and the sums without the unit (see `shares`). So all of them undone, in any order,
give the very document before all of them back (F21, F27).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from coordinator.domain.entity import FieldType
from coordinator.domain.operation import Unit
from coordinator.participants.mongodb.elements import Elements, document_of
from coordinator.participants.mongodb.going_back import (
    DocumentKey,
    Standing,
    bump,
    can_take_back,
    document_key,
    read_element,
    without,
    writes_back,
)
from coordinator.participants.mongodb.shares import KeyShare
from coordinator.participants.mongodb.undo_record import KeyUndo
from coordinator.participants.mongodb.writes import DocumentWrite


@dataclass(slots=True)
class SharedUndo:
    """Shared keys while units of a batch are undone: each finds what the former has left.

    ``shares`` by their ids. ``in_order`` holds a write per unit and key, ``net_writes`` gives one
    per key.
    """

    shares: dict[str, KeyShare]
    in_order: list[DocumentWrite] = field(default_factory=list)
    changed: dict[str, KeyShare] = field(default_factory=dict)
    _standing: dict[DocumentKey, Standing] = field(default_factory=dict)
    _targets: dict[DocumentKey, Elements] = field(default_factory=dict)

    def of(self, unit: Unit, key: KeyUndo) -> KeyShare | None:
        """Give the share that a unit's undo of a key goes by, if it is shared."""
        share = None if key.share is None else self.shares.get(key.share)
        return None if share is None or share.share.member(unit.seq) is None else share

    def current(self, standing: Standing) -> Standing:
        """Give a key as those that were undone before it have left it."""
        at = document_key(standing.key)
        first = self._standing.setdefault(at, standing)
        left = self._targets.get(at)
        return replace(
            standing,
            raw=first.raw if left is None else document_of(left),
            elements=first.elements if left is None else left,
        )

    def keep(self, left: Mapping[str, KeyShare], targets: Mapping[DocumentKey, Elements]) -> None:
        """Take over what the undo of one unit leaves."""
        self.shares.update(left)
        self.changed.update(left)
        self._targets.update(targets)

    def park(self, unit: Unit, keys: Sequence[KeyUndo]) -> None:
        """Note in the shares of a unit that its undo is left to a person."""
        for key in keys:
            if (share := self.of(unit, key)) is not None:
                self.keep({share.id: replace(share, share=share.share.parked(unit.seq))}, {})

    def net_writes(self) -> list[DocumentWrite]:
        """Give the writes that bring each shared document where it shall be, in one step."""
        return [
            write
            for at, target in self._targets.items()
            for write in writes_back(self._standing[at], target)
        ]


def is_shared_foreign(standing: Standing, share: KeyShare) -> bool:
    """The same for a shared key: the version is that after the last sharer's write or undo."""
    current, version = standing.elements, share.version_field
    if current is None or (version is not None and current.get(version) != share.version()):
        return True
    deltas = standing.key.steps[0].deltas
    return any(not can_take_back(of[0], current.get(name)) for name, of in deltas.items())


def taken_out(standing: Standing, share: KeyShare, *, forced: bool) -> tuple[Elements, KeyShare]:
    """Take one sharer's deltas and its steps of the version out of the document."""
    unit, step, version = standing.unit, standing.key.steps[0], share.version_field
    rest = share.without(unit.seq)
    if standing.elements is None:
        # A deleted document comes back (F29), as it was when this one was applied.
        back = dict(step.before or {})
        _put(back, {name: share.counter(name) for name in share.types})
        _put(back, {} if version is None else {version: share.version()})
    else:
        back = dict(standing.elements)
    for name, (of_type, amount) in step.deltas.items():
        current = back.get(name)
        if current == share.counter(name) or not can_take_back(of_type, current):
            _put(back, {name: rest.counter(name)})
        else:
            back[name] = without(of_type, amount, current, share.base[name])
    if version is not None and not forced:
        _put(back, {version: rest.version()})
    elif version is not None and version in back:
        bump(standing, back, 1)
        bumped = read_element(FieldType.INTEGER, back[version])
        if isinstance(bumped, int):
            rest = share.without(unit.seq, bumped)
    return back, rest


def _put(elements: Elements, values: Mapping[str, bytes | None]) -> None:
    for name, element in values.items():
        if element is None:
            elements.pop(name, None)
        else:
            elements[name] = element
