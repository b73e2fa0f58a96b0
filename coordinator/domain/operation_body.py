"""Reading one operation's members: values, set, unset, increment, expect, compensate.

Owns the shape rules of F16–F20, F23, F25 and F42. Its head is known already. Refuses in passing:
each mistake is reported and reading goes on, so that a sender learns all of them at once (F10).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from coordinator.domain.entity import FieldType
from coordinator.domain.entity_reading import EntityReader
from coordinator.domain.errors import ErrorCode, clipped
from coordinator.domain.expect_reading import read_expect
from coordinator.domain.operation import Condition, Operation, OperationKind
from coordinator.domain.operation_shape import (
    ABSENT,
    COMPENSATE_MEMBERS,
    MEMBERS,
    Head,
    read_kind,
)
from coordinator.domain.storable import Misfit
from coordinator.domain.value_reading import Reader

_EXPECTING: Final = frozenset(kind for kind, each in MEMBERS.items() if "expect" in each)
_MISSING: Final = frozenset(kind for kind, each in MEMBERS.items() if "if_missing" in each)
_ASSIGNING: Final = ("set", "unset", "increment")


class Surroundings(Protocol):
    """What an operation needs of the unit that it is part of."""

    def read_value(self, index: int, path: str, what: str, read: Reader, given: Any) -> Any:
        """Read a value or a ``$ref`` in its place; `ABSENT` when it was wrong (and reported)."""

    def default(self, reader: EntityReader, name: str) -> Any:
        """Give the default of a field, drawn if need be."""

    def report(
        self, index: int, path: str, message: str, *, code: ErrorCode = ErrorCode.INVALID
    ) -> None:
        """Report a problem of one operation."""


class OperationBody:
    """Reads what follows an operation's head; also that of its ``compensate`` (F25)."""

    __slots__ = ("_above", "_given", "_head", "_index", "_nested", "_unit")

    def __init__(
        self,
        unit: Surroundings,
        index: int,
        given: dict[str, Any],
        head: Head,
        above: str = "",
    ) -> None:
        self._unit = unit
        self._index = index
        self._given = given
        self._head = head
        self._above = above
        self._nested = bool(above)

    def read(self) -> Operation:
        """Read it; what is wrong is reported and left out."""
        return _READ[self._head.kind](self)

    def _insert(self) -> Operation:
        reader = self._head.reader
        values = self._values()
        given = self._given.get("values")
        if type(given) is dict:
            for name in reader.required:
                if name not in given:
                    self._wrong(f"values.{name}", f"The required field {name} is not given.")
        for field in reader.defaults:
            if field.name not in values:
                values[field.name] = self._unit.default(reader, field.name)
        return self._operation(values)

    def _upsert(self) -> Operation:
        reader = self._head.reader
        values = self._values()
        defaults = {
            field.name: self._unit.default(reader, field.name)
            for field in reader.defaults
            if field.name not in values
        }
        return self._operation(values, defaults=defaults or None)

    def _update(self) -> Operation:
        given = self._given
        sections = [member for member in _ASSIGNING if given.get(member)]
        assigned = self._assigned("set", self._head.reader.writable) if "set" in given else {}
        unset = self._unset() if "unset" in given else ()
        increment = None
        if "increment" in given:
            increment = self._assigned("increment", self._head.reader.deltas) or None
        if not sections:
            self._wrong("", "An update must write something: set, unset or increment.")
        elif len(sections) > 1:
            self._refuse_double_use()
        return self._operation(assigned, unset=unset, increment=increment)

    def _delete(self) -> Operation:
        return self._operation({})

    def _check(self) -> Operation:
        absent = self._given.get("absent", False)
        if not isinstance(absent, bool):
            self._wrong("absent", "absent must be true or false.")
        elif absent and "expect" in self._given:
            self._wrong("absent", "A check takes expect or absent, not both.")
        return self._operation({}, absent=absent is True)

    def _operation(
        self,
        assigned: dict[str, Any],
        *,
        unset: tuple[str, ...] = (),
        increment: dict[str, Any] | None = None,
        defaults: dict[str, Any] | None = None,
        absent: bool = False,
    ) -> Operation:
        head, given = self._head, self._given
        expect: tuple[Condition, ...] = ()
        if "expect" in given and not self._nested and head.kind in _EXPECTING:
            expect = read_expect(head.reader, given["expect"], self._wrong, self._withheld)
        return Operation(
            self._index,
            head.kind,
            head.reader.entity.name,
            head.key,
            head.key_text,
            assigned,
            unset,
            increment,
            expect,
            "if_missing" in given and self._ignores_missing(),
            absent,
            defaults,
            self._compensate() if "compensate" in given else None,
        )

    # --- members --------------------------------------------------------------------------------

    def _values(self) -> dict[str, Any]:
        if "values" not in self._given:
            self._wrong("values", f"{self._head.kind.value} needs values.")
            return {}
        return self._assigned("values", self._head.reader.writable)

    def _assigned(self, member: str, readers: dict[str, Reader]) -> dict[str, Any]:
        given = self._given[member]
        if type(given) is not dict:
            self._wrong(member, f"{member} must be an object of fields and values.")
            return {}
        assigned: dict[str, Any] = {}
        for name, each in given.items():
            read = readers.get(name)
            if read is None:
                self._not_writable(member, name, each)
                continue
            try:
                assigned[name] = read(each)
            except Misfit as misfit:
                value = self._reread(member, name, each, read, misfit)
                if value is not ABSENT:
                    assigned[name] = value
        return assigned

    def _reread(
        self,
        member: str,
        name: str,
        given: Any,
        read: Reader,
        misfit: Misfit,
    ) -> Any:
        """Take a misfit for a ``$ref`` if it is one and may be one here, else report it."""
        path = f"{member}.{name}"
        is_json = self._head.reader.entity.fields[name].type is FieldType.JSON
        if type(given) is dict and "$ref" in given and not is_json:
            if self._nested or member == "increment":
                place = "compensate" if self._nested else member
                self._wrong(path, f"A $ref cannot stand in {place}.")
                return ABSENT
            return self._unit.read_value(self._index, path, name, read, given)
        sentence = "must not be null" if given is None else misfit.sentence
        self._wrong(path, f"The value of {name} {sentence}.")
        return ABSENT

    def _not_writable(self, member: str, name: str, given: Any) -> None:
        reader = self._head.reader
        path = f"{member}.{name}"
        if member == "values" and name == reader.entity.key:
            self._same_key(path, given)
        elif reader.withholds(name):
            self._withheld(path, name)
        elif name in reader.protected:
            self._wrong(path, f"The field {name} {reader.protected[name]}.")
        elif name in reader.writable:
            self._wrong(path, f"The field {name} is no number and cannot be incremented.")
        else:
            self._wrong(path, f"The entity {reader.entity.name} has no field {clipped(name)}.")

    def _same_key(self, path: str, given: Any) -> None:
        """The key field may stand among the values if it is the key (F20)."""
        head = self._head
        if self._nested and type(given) is dict:
            self._wrong(path, "A $ref cannot stand in compensate.")
            return
        above = f"{self._above}{path}"
        name = head.reader.entity.key
        value = self._unit.read_value(self._index, above, name, head.reader.found_key, given)
        if value is not ABSENT and head.key is not ABSENT and value != head.key:
            self._wrong(path, f"The field {name} is not equal to the key of the operation.")

    def _unset(self) -> tuple[str, ...]:
        given = self._given["unset"]
        if type(given) is not list or not all(isinstance(name, str) for name in given):
            self._wrong("unset", "unset must be a list of field names.")
            return ()
        fields = self._head.reader.entity.fields
        for at, name in enumerate(given):
            path = f"unset.{at}"
            if name not in self._head.reader.writable:
                self._not_writable("unset", name, None)
            elif not fields[name].nullable:
                self._wrong(path, f"The field {name} is not nullable and cannot be unset.")
        if len(set(given)) != len(given):
            self._wrong("unset", "unset names a field twice.")
        return tuple(given)

    def _refuse_double_use(self) -> None:
        seen: set[Any] = set()
        for member in _ASSIGNING:
            given = self._given.get(member)
            if not isinstance(given, dict | list):
                continue
            for name in {each for each in given if isinstance(each, str)} & seen:
                message = f"The field {clipped(name)} stands in {member} and in another of them."
                self._wrong(f"{member}.{name}", message)
            seen.update(each for each in given if isinstance(each, str))

    def _ignores_missing(self) -> bool:
        if self._nested or self._head.kind not in _MISSING:
            return False  # reported as an unknown member
        given = self._given["if_missing"]
        if given not in ("ignore", "fail"):
            self._wrong("if_missing", 'if_missing must be "ignore" or "fail".')
        return bool(given == "ignore")

    # --- compensate -----------------------------------------------------------------------------

    def _compensate(self) -> Operation | None:
        if self._nested or self._head.kind is OperationKind.CHECK:
            return None  # reported as an unknown member
        given = self._given["compensate"]
        above = "compensate."
        if type(given) is not dict:
            self._wrong("compensate", "compensate must be an operation.")
            return None
        kind = read_kind(given.get("op", ABSENT))
        if kind is None or kind is OperationKind.CHECK:
            self._wrong(f"{above}op", "op must be one of insert, update, upsert, delete.")
            return None
        reader = self._head.reader.acting(kind)
        name = self._head.reader.entity.name
        if reader is None:
            message = f"There is no grant for {kind.value} on the entity {name}."
            self._unit.report(self._index, f"{above}op", message, code=ErrorCode.FORBIDDEN)
            return None
        if kind not in reader.entity.operations:
            message = f"The entity {name} does not allow {kind.value}."
            self._unit.report(self._index, f"{above}op", message, code=ErrorCode.FORBIDDEN)
        for member in given:
            if member not in COMPENSATE_MEMBERS[kind]:
                message = f"{kind.value} in compensate has no member {clipped(member)}."
                self._wrong(f"{above}{member}", message)
        self._judge_target(given, above)
        head = self._head._replace(kind=kind, reader=reader)
        return OperationBody(self._unit, self._index, given, head, above).read()

    def _judge_target(self, given: dict[str, Any], above: str) -> None:
        """``entity`` and ``key`` may be left out, or must be those of the operation (F25)."""
        head = self._head
        if given.get("entity", head.reader.entity.name) != head.reader.entity.name:
            self._wrong(f"{above}entity", "compensate must be on the entity of its operation.")
        key = given.get("key", ABSENT)
        if key is ABSENT or head.key is ABSENT:
            return
        try:
            same = head.reader.found_key(key) == head.key
        except Misfit:
            same = False
        if not same:
            self._wrong(f"{above}key", "compensate must be on the key of its operation.")

    def _withheld(self, path: str, name: str) -> None:
        """There is no grant for a field, which may not even exist."""
        kind, entity = self._head.kind.value, self._head.reader.entity.name
        message = f"There is no grant for a field {clipped(name)} in {kind} on the entity {entity}."
        self._unit.report(self._index, f"{self._above}{path}", message, code=ErrorCode.FORBIDDEN)

    def _wrong(self, path: str, message: str) -> None:
        below = f"{self._above}{path}" if path else self._above.rstrip(".")
        self._unit.report(self._index, below, message)


_READ: Final[dict[OperationKind, Callable[[OperationBody], Operation]]] = {
    OperationKind.INSERT: OperationBody._insert,
    OperationKind.UPSERT: OperationBody._upsert,
    OperationKind.UPDATE: OperationBody._update,
    OperationKind.DELETE: OperationBody._delete,
    OperationKind.CHECK: OperationBody._check,
}
