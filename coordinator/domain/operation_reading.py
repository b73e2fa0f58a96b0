"""Reading a unit's operations: from parsed JSON to typed operations, or all that is wrong (F10).

Owns the heads of operations (what they are, and their keys) and the resolving of ``$ref`` (F24);
what follows a head is read by `coordinator.domain.operation_body`. A unit is read in one pass in
its written order; only a head may be read earlier, when an operation before it refers to its key.
Refuses to decide anything that needs a store: that a row is there, or an expectation holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from coordinator.domain.entity import FieldType
from coordinator.domain.entity_reading import EntityReader
from coordinator.domain.errors import ErrorCode, clipped
from coordinator.domain.findings import EnoughFound, Findings
from coordinator.domain.operation import Operation, OperationKind
from coordinator.domain.operation_body import OperationBody
from coordinator.domain.operation_shape import ABSENT, CREATING, KINDS, MEMBERS, Head, read_kind
from coordinator.domain.storable import Misfit
from coordinator.domain.value_reading import Reader
from coordinator.domain.values import Draw, default_value, key_text, wire

_REF: Final = re.compile(r"(0|[1-9][0-9]{0,2})\.key")


_UNREAD: Final[Any] = object()
_IN_READING: Final[Any] = object()


class OperationsReader:
    """Reads the operations of one unit; what is wrong goes to ``findings``.

    ``readers`` hold what may be named; with ``bounded`` that is not all there is, and what they do
    not hold is forbidden rather than unknown.
    """

    __slots__ = ("_bounded", "_draw", "_findings", "_given", "_heads", "_readers")

    def __init__(
        self,
        readers: Mapping[str, EntityReader],
        given: Sequence[Any],
        draw: Draw,
        findings: Findings,
        *,
        bounded: bool = False,
    ) -> None:
        self._bounded = bounded
        self._readers = readers
        self._given = given
        self._draw = draw
        self._findings = findings
        self._heads: list[Any] = [_UNREAD] * len(given)

    def read(self) -> list[Operation]:
        """Read them all, in written order; those with a broken head are left out."""
        operations = []
        for index, given in enumerate(self._given):
            head = self._heads[index]
            if head is _UNREAD:
                head = self._read_head(index)
            if head is None:
                continue
            try:
                operation = OperationBody(self, index, given, head).read()
            except EnoughFound:
                continue
            operations.append(operation)
        return operations

    # --- heads ----------------------------------------------------------------------------------

    def _read_head(self, index: int) -> Head | None:
        self._heads[index] = _IN_READING
        try:
            head = self._head(index, self._given[index])
        except EnoughFound:
            head = None
        self._heads[index] = head
        return head

    def _head(self, index: int, given: Any) -> Head | None:
        if type(given) is not dict:
            self._findings.add_to(index, "", "An operation must be an object.")
            return None
        kind = read_kind(given.get("op", ABSENT))
        name = given.get("entity")
        reader = self._readers.get(name) if isinstance(name, str) else None
        if kind is None or reader is None:
            self._report_unknown(index, given, kind, reader)
            return None
        reader = reader.acting(kind)
        if reader is None:
            message = f"There is no grant for {kind.value} on the entity {name}."
            self.report(index, "op", message, code=ErrorCode.FORBIDDEN)
            return None
        if kind not in reader.entity.operations:
            message = f"The entity {name} does not allow {kind.value}."
            self.report(index, "op", message, code=ErrorCode.FORBIDDEN)
        if not MEMBERS[kind].issuperset(given):
            self._report_members(index, given, kind)
        key = self._key(index, given, kind, reader)
        if key is ABSENT:
            return Head(kind, reader, key, "")
        return Head(kind, reader, key, key_text(reader.entity.key_field.type, key))

    def _report_unknown(
        self,
        index: int,
        given: dict[str, Any],
        kind: OperationKind | None,
        reader: EntityReader | None,
    ) -> None:
        if kind is None:
            known = ", ".join(KINDS)
            self.report(index, "op", f"op must be one of {known}.")
        name = given.get("entity")
        if not isinstance(name, str):
            self.report(index, "entity", "entity must be the name of an entity.")
        elif reader is None and self._bounded:
            message = f"There is no grant for an entity {clipped(name)}."
            self.report(index, "entity", message, code=ErrorCode.FORBIDDEN)
        elif reader is None:
            message = f"There is no entity {clipped(name)}."
            self.report(index, "entity", message, code=ErrorCode.UNKNOWN_ENTITY)

    def _report_members(self, index: int, given: dict[str, Any], kind: OperationKind) -> None:
        for member in given:
            if member not in MEMBERS[kind]:
                self.report(index, member, f"{kind.value} has no member {clipped(member)}.")

    def _key(
        self, index: int, given: dict[str, Any], kind: OperationKind, reader: EntityReader
    ) -> Any:
        key = given.get("key", ABSENT)
        if key is ABSENT:
            if kind is OperationKind.INSERT and reader.entity.key_default is not None:
                drawn = self._draw.uuid7()
                return drawn if reader.entity.key_field.type is FieldType.UUID else str(drawn)
            self.report(index, "key", f"{kind.value} needs a key.")
            return ABSENT
        read = reader.key if kind in CREATING else reader.found_key
        return self.read_value(index, "key", "the key", read, key)

    # --- values ---------------------------------------------------------------------------------

    def read_value(self, index: int, path: str, what: str, read: Reader, given: Any) -> Any:
        """Read one value or a ``$ref`` in its place; `ABSENT` when it was wrong (and reported)."""
        try:
            return read(given)
        except Misfit as misfit:
            sentence = "must not be null" if given is None else misfit.sentence
        if type(given) is dict and "$ref" in given:
            given = self._resolve(index, path, given)
            if given is ABSENT:
                return ABSENT
            try:
                return read(given)
            except Misfit as misfit:
                sentence = misfit.sentence
        self.report(index, path, f"The value of {what} {sentence}.")
        return ABSENT

    def _resolve(self, index: int, path: str, given: dict[str, Any]) -> Any:
        """Give the JSON of the key that a ``$ref`` names (F24)."""
        named = given["$ref"]
        parts = _REF.fullmatch(named) if isinstance(named, str) and len(given) == 1 else None
        target = int(parts[1]) if parts is not None else -1
        if not 0 <= target < len(self._given):
            self.report(index, path, '$ref must be "N.key", N the index of an insert.')
            return ABSENT
        head = self._heads[target]
        if head is _IN_READING:
            self.report(index, path, f"The key that $ref {target}.key names depends on itself.")
            return ABSENT
        if head is _UNREAD:
            head = self._read_head(target)
        if head is None or head.key is ABSENT:
            # The mistake is the target's, and is reported there.
            return ABSENT
        if head.kind is not OperationKind.INSERT:
            self.report(index, path, f"$ref {target}.key names no insert.")
            return ABSENT
        return wire(head.reader.entity.key_field.type, head.key)

    def default(self, reader: EntityReader, name: str) -> Any:
        """Give the default of a field, drawn if need be."""
        return default_value(reader.entity.fields[name], reader.entity.kind, self._draw)

    def report(
        self, index: int, path: str, message: str, *, code: ErrorCode = ErrorCode.INVALID
    ) -> None:
        """Report a problem of one operation."""
        given = self._given[index]
        name = given.get("entity")
        self._findings.add_to(
            index,
            path,
            message,
            code=code,
            entity=name if isinstance(name, str) else None,
            key=self._shown_key(index, given),
        )

    def _shown_key(self, index: int, given: dict[str, Any]) -> Any:
        head = self._heads[index]
        if not isinstance(head, Head) or head.key is ABSENT:
            return given.get("key")
        return wire(head.reader.entity.key_field.type, head.key)
