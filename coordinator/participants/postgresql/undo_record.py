"""Undo records: what a branch has done, as it is stored in the store itself beside its effect.

Pure. A record is JSON. It holds what each operation did, for its events, because a branch that is
found applied is never decided again (rule 7); and per key the rows before and after as texts,
the fields written and the increments, with the names and types of all columns: undo never asks
the live mapping (rule 8). Refuses to decide what undo does: see `undo`.

Consecutive operations on one key are merged into one *step*, a net change, unless the sender
gave one of them an undo of its own (F25): that one stays a step by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from coordinator.domain.decide import Effect, exact_sum, key_as_json
from coordinator.domain.entity import Column, Entity, FieldType, ForeignWritePolicy
from coordinator.domain.publishing import Done
from coordinator.participants.postgresql.mapped_table import MappedTable, Texts
from coordinator.participants.postgresql.statements import Statements, Table, statements_of
from coordinator.participants.postgresql.text_values import reader, writer
from coordinator.participants.postgresql.waves import Step

Row: TypeAlias = tuple[str | None, ...]
"""One text or null per column, in the order of the table's columns."""

Delta: TypeAlias = tuple[FieldType, str]
"""An increment: the field's type and the amount as text."""

FORMAT = 1


@dataclass(frozen=True, slots=True)
class UndoTable:
    """The table of a key, with every name that undo needs."""

    entity: str
    statements: Statements
    version: str | None
    policy: ForeignWritePolicy


@dataclass(frozen=True, slots=True)
class UndoStep:
    """A net change of one key. ``before`` or ``after`` is ``None`` where there was no row.

    ``written``: the fields that were set or unset, without the version; ``deltas``: those that
    were only incremented. ``position`` is that of its last operation in the plan;
    ``compensated``: that operation brought its own undo, which is in the plan (F25).
    """

    position: int
    before: Row | None
    after: Row | None
    written: tuple[str, ...]
    deltas: Mapping[str, Delta]
    compensated: bool = False


@dataclass(frozen=True, slots=True)
class KeyUndo:
    """What was done to one key; ``key`` is its text, ``shown`` the key as outcomes show it."""

    table: UndoTable
    key: str
    shown: Any
    steps: tuple[UndoStep, ...]


@dataclass(frozen=True, slots=True)
class UndoRecord:
    """A branch as it was applied; ``keys`` in the order of their first writes."""

    done: tuple[Done, ...]
    keys: tuple[KeyUndo, ...]


def wrote_something(done: Sequence[Done]) -> bool:
    """Whether a branch wrote anything: it has more than checks and ignored misses (F6)."""
    return any(each.effect is not Effect.NOTHING for each in done)


# --- from what was done to steps ----------------------------------------------------------------


def net_steps(steps: Sequence[Step]) -> list[UndoStep]:
    """Merge what the operations on one key did, in their order."""
    merged: list[UndoStep] = []
    for step in steps:
        if step.write.effect is Effect.NOTHING:
            continue
        one = _undo_step(step)
        if merged and not one.compensated and not merged[-1].compensated:
            merged[-1] = _merge(step.table, merged[-1], one)
        else:
            merged.append(one)
    return merged


def _undo_step(step: Step) -> UndoStep:
    write, entity = step.write, step.table.entity
    deltas = write.deltas or {}
    return UndoStep(
        position=write.position,
        before=_row(step.before),
        after=_row(step.after),
        written=(
            *[name for name in write.assigned if name != entity.version and name not in deltas],
            *write.unset,
        ),
        deltas={
            name: (entity.fields[name].type, step.table.write[name](delta))
            for name, delta in deltas.items()
        },
        compensated=write.operation.compensate is not None,
    )


def _row(texts: Texts | None) -> Row | None:
    return None if texts is None else tuple(texts)[1:]


def _merge(table: MappedTable, one: UndoStep, other: UndoStep) -> UndoStep:
    if one.before is not None and one.after is None and other.after is not None:
        # Deleted and made anew: the whole row is of our writing.
        written: tuple[str, ...] = table.statements.restorable
    else:
        written = tuple(dict.fromkeys((*one.written, *other.written)))
    deltas = dict(one.deltas)
    for name, (of_type, text) in other.deltas.items():
        if name in deltas:
            read = reader(of_type)
            text = writer(of_type)(exact_sum(read(deltas[name][1]), read(text)))  # noqa: PLW2901
        deltas[name] = (of_type, text)
    return UndoStep(
        position=other.position,
        before=one.before,
        after=other.after,
        written=written,
        deltas={name: delta for name, delta in deltas.items() if name not in written},
    )


# --- JSON ---------------------------------------------------------------------------------------


def encode(steps: Sequence[Step], done: Sequence[Done]) -> bytes:
    """Write the record of one branch: its operations as the store took them, and their images."""
    by_key: dict[tuple[str, str], list[Step]] = {}
    for step in steps:
        by_key.setdefault(step.at, []).append(step)
    tables: dict[str, orjson.Fragment] = {}
    keys = []
    for of_key in by_key.values():
        merged = net_steps(of_key)
        if all(each.before is None and each.after is None for each in merged):
            continue  # nothing, or made and deleted again: whatever is there is not ours
        table = of_key[0].table
        entity = table.entity
        tables[entity.name] = _table_json(entity)
        operation = of_key[0].write.operation
        keys.append(
            {
                "entity": entity.name,
                "key": table.write_key(operation.key),
                "shown": key_as_json(operation),
                "steps": [_step_json(each) for each in merged],
            }
        )
    return orjson.dumps(
        {
            "format": FORMAT,
            "done": [_done_json(each) for each in done],
            "tables": tables,
            "keys": keys,
        }
    )


_table_fragments: dict[int, tuple[Entity, orjson.Fragment]] = {}
_FRAGMENTS_MAX = 512


def _table_json(entity: Entity) -> orjson.Fragment:
    known = _table_fragments.get(id(entity))
    if known is None:
        table = Table.of(entity)
        text = orjson.dumps(
            {
                "schema": table.schema,
                "table": table.name,
                "key": table.key,
                "version": entity.version,
                "on_foreign_write": entity.on_foreign_write.value,
                "columns": [
                    [column.name, column.type, column.generated, column.identity]
                    for column in table.columns
                ],
            }
        )
        if len(_table_fragments) >= _FRAGMENTS_MAX:
            _table_fragments.clear()
        # The entity is kept with it, or its id might come again for another.
        known = _table_fragments[id(entity)] = (entity, orjson.Fragment(text))
    return known[1]


def _step_json(step: UndoStep) -> dict[str, Any]:
    return {
        "position": step.position,
        "before": step.before,
        "after": step.after,
        "written": step.written,
        "deltas": {name: (of_type.value, text) for name, (of_type, text) in step.deltas.items()},
        "compensated": step.compensated,
    }


def _done_json(done: Done) -> tuple[Any, ...]:
    # Images stay strings inside: they may hold numbers that no JSON reader keeps as written.
    before = None if done.before is None else done.before.decode()
    after = None if done.after is None else done.after.decode()
    return (done.position, done.effect.value, before, after, _version_json(done.version))


def _version_json(version: int | None) -> int | str | None:
    return version if version is None or -(2**63) <= version < 2**63 else str(version)


def decode_done(record: Mapping[str, Any]) -> tuple[Done, ...]:
    """Read what each operation did (rule 7)."""
    return tuple(
        Done(
            position,
            Effect(effect),
            None if before is None else before.encode(),
            None if after is None else after.encode(),
            None if version is None else int(version),
        )
        for position, effect, before, after, version in record["done"]
    )


def decode(text: str) -> UndoRecord:
    """Read a record back; raise `ValueError` for a format that we do not know."""
    record = orjson.loads(text)
    if record.get("format") != FORMAT:
        raise ValueError(f"the undo record has format {record.get('format')!r}, not {FORMAT}")
    tables = {name: _decode_table(name, table) for name, table in record["tables"].items()}
    return UndoRecord(
        done=decode_done(record),
        keys=tuple(
            KeyUndo(
                table=tables[key["entity"]],
                key=key["key"],
                shown=key["shown"],
                steps=tuple(_decode_step(step) for step in key["steps"]),
            )
            for key in record["keys"]
        ),
    )


def _decode_table(entity: str, table: Mapping[str, Any]) -> UndoTable:
    columns = tuple(Column(*column) for column in table["columns"])
    return UndoTable(
        entity=entity,
        statements=statements_of(Table(table["schema"], table["table"], table["key"], columns)),
        version=table["version"],
        policy=ForeignWritePolicy(table["on_foreign_write"]),
    )


def _decode_step(step: Mapping[str, Any]) -> UndoStep:
    before, after = step["before"], step["after"]
    return UndoStep(
        position=step["position"],
        before=None if before is None else tuple(before),
        after=None if after is None else tuple(after),
        written=tuple(step["written"]),
        deltas={
            name: (FieldType(of_type), text) for name, (of_type, text) in step["deltas"].items()
        },
        compensated=step["compensated"],
    )
