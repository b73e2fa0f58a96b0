"""Sharing: units of one batch that only count a key up and down need not wait for each other.

Such units are the *sharers* of the key. Their deltas commute, and an inverse delta takes one back
whatever the others do; so they may be applied in one transaction, with one write for all. Pure;
the stores and the engine ask it three things:

- `Line`: who stays behind. Sharers go forward in the order of their admission, and nobody goes
  past one that has not: so what is announced was never built on a delta that is undone later.
- `Escrow`: whether a unit passes. While earlier sharers are uncommitted a field may yet be any sum
  of them. A debit counts only what is there without their credits, a credit only the room that is
  there without their debits; so the bounds hold at every moment, whoever of them is undone. What
  passes in some cases waits until they have ended; what passes in none is refused.
- `Share`: what a store remembers of a key whose sharers are applied: the values before them and
  their deltas. From it come what undo leaves and the images of those that run again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from enum import Enum, auto
from typing import Any, NamedTuple

from coordinator.domain.decide import Image, ImageKey, Write, decide_branch, exact_sum
from coordinator.domain.entity import Field, FieldType
from coordinator.domain.errors import Problem
from coordinator.domain.operation import Operation, Unit
from coordinator.domain.storable import DECIMAL128_DIGITS
from coordinator.domain.values import Misfit, check_storable

# --- who stays behind ---------------------------------------------------------------------------


class Line:
    """The shared keys of a batch, and behind whom their later sharers stay.

    To be asked in the order of admission: who is held is to be stopped in turn, because the
    sharers of its other keys may not pass it either. ``harmless`` are units whose refusal stops
    nobody, because it ends them at once.
    """

    __slots__ = ("_stopped", "harmless", "keys")

    def __init__(self, keys: frozenset[ImageKey], stopped: Mapping[ImageKey, int]) -> None:
        self.keys = keys
        self.harmless: frozenset[int] = frozenset()
        self._stopped = dict(stopped)

    @classmethod
    def of(cls, units: Iterable[Unit], store: str | None = None) -> Line | None:
        """Give the line of a batch; ``None`` when no key of it (of ``store``) has two sharers."""
        units = units if isinstance(units, list) else list(units)
        counted = [lock[:2] for unit in units for lock in unit.plan.locks if lock[3]]
        if len(set(counted)) == len(counted):
            return None  # nearly always: so this is all that it costs
        first: dict[ImageKey, Unit] = {}
        shared: set[ImageKey] = set()
        stopped: dict[ImageKey, int] = {}
        for unit in units:
            for entity, key_text, _, increment in unit.plan.locks:
                if not increment:
                    continue
                at = (entity, key_text)
                before = first.setdefault(at, unit)
                if before is unit:
                    continue
                if store is not None and unit.mapping.entities[entity].store != store:
                    continue
                shared.add(at)
                if before.mapping is not unit.mapping:
                    # After a change of the mapping the images of one are not those of the other.
                    stopped[at] = min(unit.seq - 1, stopped.get(at, unit.seq))
        return cls(frozenset(shared), stopped) if shared else None

    def copy(self) -> Line:
        """Give a line of its own to a stage at one store."""
        return Line(self.keys, self._stopped)

    def shares(self, unit: Unit, store: str) -> bool:
        """Whether the unit shares a key at this store with another one of the batch."""
        keys = self.keys
        return any(
            (operation.entity, operation.key_text) in keys for _, operation in unit.branch(store)
        )

    def stop(self, unit: Unit) -> None:
        """The unit stays behind: later sharers of its keys may not go past it."""
        for at in self._keys_of(unit):
            self._stopped[at] = min(unit.seq, self._stopped.get(at, unit.seq))

    def stop_all(self, units: Iterable[Unit]) -> None:
        """Stop each of these units."""
        for unit in units:
            self.stop(unit)

    def refused(self, unit: Unit) -> None:
        """The unit is refused: that stops the later ones unless it has ended by that."""
        if unit.seq not in self.harmless:
            self.stop(unit)

    def holds(self, unit: Unit) -> bool:
        """Whether the unit has to stay behind an earlier one; then it is stopped as well."""
        stopped = self._stopped
        if stopped and any(stopped.get(at, unit.seq) < unit.seq for at in self._keys_of(unit)):
            self.stop(unit)
            return True
        return False

    def followed(self, units: Iterable[Unit]) -> set[int]:
        """Give those of the units, in the order of admission, that have a sharer behind them."""
        last: dict[ImageKey, int] = {}
        found: set[int] = set()
        for unit in units:
            for at in self._keys_of(unit):
                if at in last:
                    found.add(last[at])
                last[at] = unit.seq
        return found

    def _keys_of(self, unit: Unit) -> Iterator[ImageKey]:
        keys = self.keys
        for entity, key_text, _, increment in unit.plan.locks:
            if increment and (entity, key_text) in keys:
                yield entity, key_text


# --- whether a unit passes ----------------------------------------------------------------------


class Verdict(Enum):
    """What may become of a sharer's increments, whoever of the earlier ones is undone."""

    PASSES = auto()
    WAITS = auto()
    FAILS = auto()


class Escrow:
    """Between what bounds the counters of shared keys are while their sharers are uncommitted.

    ``images`` hold every earlier sharer's deltas already, as if all of them would commit.
    """

    def __init__(self, line: Line) -> None:
        self._keys = line.keys
        self._spans: dict[tuple[ImageKey, str], tuple[Any, Any]] = {}

    def decide(
        self, unit: Unit, store: str, images: Mapping[ImageKey, Image | None]
    ) -> tuple[Write, ...] | Problem | None:
        """Decide a unit's branch; ``None``: it has to wait until the earlier sharers have ended.

        The caller puts the images that the writes leave in the place of those given.
        """
        verdict = self.judge(unit, store, images)
        if verdict is Verdict.WAITS:
            return None
        decided = decide_branch(unit, store, images)
        if not isinstance(decided, Problem):
            self.take(unit, store, images)
        return decided

    def judge(self, unit: Unit, store: str, images: Mapping[ImageKey, Image | None]) -> Verdict:
        """Judge a unit's increments of shared keys at one store by all that may become of them."""
        verdict = Verdict.PASSES
        moved: dict[tuple[ImageKey, str], Any] = {}
        for at, name, field, delta in self._increments(unit, store):
            span = self._spans.get((at, name))
            if span is None:
                continue  # no earlier sharer counts it: the image tells all there is to know
            moved[at, name] = exact_sum(moved.get((at, name), 0), delta)
            low, high = (exact_sum(end, moved[at, name]) for end in span)
            one = _judged(field, low, high)
            if one is Verdict.FAILS:
                return one
            if one is Verdict.WAITS:
                verdict = one
        return verdict

    def take(self, unit: Unit, store: str, images: Mapping[ImageKey, Image | None]) -> None:
        """Count a unit that passes; ``images`` are those that it was decided on."""
        nets: dict[tuple[ImageKey, str], Any] = {}
        for at, name, _, delta in self._increments(unit, store):
            place = at, name
            nets[place] = exact_sum(nets[place], delta) if place in nets else delta
        for (at, name), net in nets.items():
            image = images[at]
            assert image is not None
            low, high = self._spans.get((at, name)) or (image[name], image[name])
            # Either end takes the exponent of the delta as well: how fine a sum may come out.
            none = net - net
            self._spans[at, name] = (
                exact_sum(low, min(net, none)),
                exact_sum(high, max(net, none)),
            )

    def _increments(self, unit: Unit, store: str) -> Iterator[tuple[ImageKey, str, Field, Any]]:
        for _, operation in unit.branch(store):
            at = (operation.entity, operation.key_text)
            if at in self._keys:
                fields = unit.mapping.entities[operation.entity].fields
                for name, delta in (operation.increment or {}).items():
                    yield at, name, fields[name], delta


def _judged(field: Field, low: Any, high: Any) -> Verdict:
    if isinstance(low, Decimal) and not (low.is_finite() and high.is_finite()):
        return Verdict.WAITS
    limits = field.limits
    waits = False
    for least, most in ((field.min, field.max), (limits.integer_min, limits.integer_max)):
        if least is not None:
            if high < least:
                return Verdict.FAILS
            waits |= low < least
        if most is not None:
            if low > most:
                return Verdict.FAILS
            waits |= high > most
    return Verdict.WAITS if waits or not _fit_all(field, low, high) else Verdict.PASSES


def _fit_all(field: Field, low: Any, high: Any) -> bool:
    """Whether the column holds every sum there may be; if in doubt it does not."""
    try:
        check_storable(field, low)
        check_storable(field, high)
    except Misfit:
        return False
    limits = field.limits
    if field.type is not FieldType.DECIMAL or limits.scale is not None or limits.precision is None:
        return True
    # A Decimal128 holds 34 digits: from the first of the largest sum to the last of the finest.
    finest = min(low.as_tuple().exponent, high.as_tuple().exponent)
    largest = max(low.adjusted(), high.adjusted())
    return bool(largest - finest < DECIMAL128_DIGITS)


# --- what a store remembers ---------------------------------------------------------------------


class Member(NamedTuple):
    """A sharer that is applied and not undone: its net deltas, and how often it wrote.

    ``parked``: its undo has been left to a person, who may since have ended it by hand.
    """

    seq: int
    unit: str
    deltas: Mapping[str, Any]
    writes: int
    parked: bool = False


class Share(NamedTuple):
    """The sharers of one key that one transaction applied, in the order of admission.

    ``base`` and ``version`` are the counters and the version (``None``: there is none) as they
    were before all of them, ``bare`` tells that the row had no version though its entity has one;
    ``drift`` is how far our own undo has moved the version from what the writes of the members
    make it (F29: ``force``).
    """

    base: Mapping[str, Any]
    version: int | None
    members: tuple[Member, ...]
    drift: int = 0
    bare: bool = False

    @classmethod
    def begin(cls, image: Image, version: str | None, members: Sequence[Member]) -> Share:
        """Remember the sharers of a row that was as ``image`` tells before them."""
        names = dict.fromkeys(name for member in members for name in member.deltas)
        held = image.get(version) if version is not None else None
        return cls(
            {name: image[name] for name in names},
            None if version is None else held or 0,
            tuple(members),
            bare=version is not None and held is None,
        )

    def member(self, seq: int) -> Member | None:
        """Give a sharer that is one of them."""
        return next((each for each in self.members if each.seq == seq), None)

    def without(self, seq: int) -> Share:
        """Give what is left without one of them."""
        return self._replace(members=tuple(each for each in self.members if each.seq != seq))

    def parked(self, seq: int) -> Share:
        """Note that the undo of one of them is a person's by now."""
        return self._replace(
            members=tuple(
                each._replace(parked=True) if each.seq == seq else each for each in self.members
            )
        )

    def value(self, name: str, before: int | None = None) -> Any:
        """Sum a counter up, over all members or over those before a sharer."""
        value = self.base[name]
        for member in self.members:
            if (before is None or member.seq < before) and name in member.deltas:
                value = exact_sum(value, member.deltas[name])
        return value

    def version_left(self) -> int | None:
        """Give the version that we left."""
        return None if self.version is None else self.version_before(None) + self.drift

    def version_before(self, seq: int | None) -> int:
        """Give the version as it was announced before a sharer wrote; ``None``: after all."""
        return (self.version or 0) + sum(
            each.writes for each in self.members if seq is None or each.seq < seq
        )

    def settled(self, open_seqs: frozenset[int], version: int | None) -> Share:
        """Leave out those that a person has ended: parked, and open no more.

        What that person left is what we left: ``version`` is the row's present one.
        """
        kept = tuple(each for each in self.members if not each.parked or each.seq in open_seqs)
        if len(kept) == len(self.members):
            return self
        share = self._replace(members=kept)
        if share.version is None or version is None:
            return share
        return share._replace(drift=version - share.version_before(None))


def member_of(unit: Unit, operations: Iterable[Operation]) -> Member:
    """Give what a unit's operations on one key add up to."""
    deltas: dict[str, Any] = {}
    writes = 0
    for operation in operations:
        writes += 1
        for name, delta in (operation.increment or {}).items():
            deltas[name] = exact_sum(deltas[name], delta) if name in deltas else delta
    return Member(unit.seq, unit.id, deltas, writes)


def shared_operations(
    unit: Unit, store: str, keys: Collection[ImageKey]
) -> dict[ImageKey, list[tuple[int, Operation]]]:
    """Give a unit's (position, operation) pairs at one store on these keys, by key."""
    found: dict[ImageKey, list[tuple[int, Operation]]] = {}
    for position, operation in unit.branch(store):
        at = (operation.entity, operation.key_text)
        if at in keys:
            found.setdefault(at, []).append((position, operation))
    return found


def images_of(
    share: Share,
    seq: int,
    version: str | None,
    image: Image,
    operations: Iterable[tuple[int, Operation]],
) -> Iterator[tuple[int, Image, Image]]:
    """Give (position, before, after) of a sharer's operations without those undone since.

    ``image`` is the row as it was when the first of them was applied. The counters and the
    version come from the share, all else is as of apply.
    """
    before = {**image, **{name: share.value(name, before=seq) for name in share.base}}
    held = share.version_before(seq)
    if version is not None:
        before[version] = None if share.bare and not held else held
    for position, operation in operations:
        after = dict(before)
        for name, delta in (operation.increment or {}).items():
            after[name] = exact_sum(after[name], delta)
        if version is not None:
            held += 1
            after[version] = held
        yield position, before, after
        before = after
