"""Authority: what the units of one sender may do, and the ways to go beyond it.

A sender is whoever may write to an intake topic, or holds one of its signing keys; a record itself
says nothing of who wrote it that could be believed. Owns the grants (entities × operations ×
fields) and compiles them into readers that know nothing else: what is not granted is not there to
be read, so it cannot be forgotten in a check (default deny). Refuses nothing itself.

What is granted bounds everything that a unit *names*: the values that it writes, the fields of its
``expect`` (an expectation that fails or holds tells what is stored), and its ``compensate``. Three
things need no grant of their own. The key field: naming a record is what the operation does. The
version: the outcome of every write tells it (F9). Defaults and undo: they are the mapping's and
the coordinator's doing, not the sender's.

What is not granted is not told apart from what does not exist, so that refusals draw no map of
the entities for somebody who may not see them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.entity_reading import EntityReader, readers_of
from coordinator.domain.operation import OperationKind


class Breach(StrEnum):
    """In which way a record went beyond its authority: the closed list for logs and metrics."""

    GRANT = "grant"
    """An entity, operation or field that is not granted, or not allowed by the mapping."""
    REPLY_TO = "reply_to"
    UNIT_ID = "unit_id"
    CANCEL = "cancel"
    UNSIGNED = "unsigned"
    SIGNATURE_UNREADABLE = "signature_unreadable"
    KEY_UNKNOWN = "key_unknown"
    AUDIENCE = "audience"
    LIFETIME = "lifetime"
    NOT_YET = "not_yet"
    EXPIRED = "expired"
    FORGED = "forged"


@dataclass(frozen=True, slots=True)
class Grant:
    """These operations on this entity; ``fields`` None means the whole record."""

    entity: str
    operations: frozenset[OperationKind]
    fields: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Authority:
    """What the units of one sender may do, compiled against a mapping.

    ``readers`` None means everything that the mapping allows. ``cancels`` are the topics whose
    units a cancel may end, None means any. Ids must begin with ``unit_id_prefix``.
    """

    readers: Mapping[str, EntityReader] | None = None
    cancels: frozenset[str] | None = None
    unit_id_prefix: str = ""


UNBOUNDED: Final = Authority()
"""Who may write to the one topic of a configuration without intakes may do everything."""


def granted_readers(mapping: EntityMapping, grants: Iterable[Grant]) -> dict[str, EntityReader]:
    """Give readers that know what is granted, and nothing else.

    Grants add up. One that names an entity, an operation or a field that the mapping does not have
    grants nothing by it; that it is a mistake is told when the configuration is read.
    """
    fields: dict[str, dict[OperationKind, frozenset[str] | None]] = {}
    for grant in grants:
        of_entity = fields.setdefault(grant.entity, {})
        for kind in grant.operations:
            known = of_entity.get(kind, frozenset())
            whole = grant.fields is None or known is None
            of_entity[kind] = None if whole else (known or frozenset()) | (grant.fields or set())
    readers = readers_of(mapping)
    return {
        name: _granted(readers[name], of_entity)
        for name, of_entity in fields.items()
        if name in readers
    }


def _granted(
    whole: EntityReader, fields: Mapping[OperationKind, frozenset[str] | None]
) -> EntityReader:
    by_kind: dict[OperationKind, EntityReader] = {}
    for kind, names in fields.items():
        if kind in whole.entity.operations:
            narrowed = whole if names is None else _narrowed(whole, names)
            by_kind[kind] = replace(narrowed, granted=by_kind)
    return replace(whole, granted=by_kind)


def _narrowed(whole: EntityReader, names: frozenset[str]) -> EntityReader:
    entity = whole.entity
    free = {entity.key} if entity.version is None else {entity.key, entity.version}
    return replace(
        whole,
        writable={name: read for name, read in whole.writable.items() if name in names},
        deltas={name: read for name, read in whole.deltas.items() if name in names},
        operands={name: of for name, of in whole.operands.items() if name in names | free},
        fields=names | free,
    )


def lacking_for_insert(mapping: EntityMapping, grant: Grant) -> tuple[str, ...]:
    """Give the fields without which no insert succeeds, and which the grant does not hold (F16)."""
    reader = readers_of(mapping).get(grant.entity)
    if reader is None or grant.fields is None or OperationKind.INSERT not in grant.operations:
        return ()
    return tuple(name for name in reader.required if name not in grant.fields)
