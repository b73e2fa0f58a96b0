"""One entity's table of the file: what it says by itself, judged part by part.

Owns store, table or collection, fields, key, version and operations of one entity. A wrong part is
told and left out, so that it does not hide mistakes in the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from coordinator.domain.entity import (
    Entity,
    Field,
    FieldType,
    ForeignWritePolicy,
    Reference,
    StoreKind,
)
from coordinator.domain.errors import InvariantViolated
from coordinator.domain.operation import OperationKind
from coordinator.mapping.declaration import Declaration, EntityTable, FieldTable
from coordinator.mapping.fields import read_field
from coordinator.mapping.names import collection_fault, field_fault, split_table
from coordinator.toml_reading import Place, hint, salvage

_NO_KEYS: Final = frozenset({FieldType.JSON})
_DRAWN_KEYS: Final = frozenset({FieldType.UUID, FieldType.STRING})


class ReadEntity:
    """One entity as far as it could be read.

    ``wrong`` holds (place below the entity, sentence). ``target`` is (schema, table) or (None,
    collection); ``fields`` are those that have a type. ``references`` are filled in by the reader
    of all entities.
    """

    def __init__(
        self, name: str, given: Mapping[str, Any], kinds: Mapping[str, StoreKind | None]
    ) -> None:
        self.name = name
        self.wrong: list[tuple[Place, str]] = []
        self.references: list[Reference] = []
        self.table, wrong = salvage(EntityTable, given)
        self.wrong += wrong
        for member in ("store", "key", "fields"):
            if member not in given:
                self._complain((member,), "is missing")
        self.kind = self._kind(kinds)
        self.target = None if self.kind is None else self._target(self.kind)
        self._tables: dict[str, FieldTable] = {}
        self.fields = self._fields()
        self._judge_key()
        self._judge_version()
        self._judge_operations()

    def declaration(self, place: str) -> Declaration:
        """Give the declaration; only once nothing is wrong with any entity."""
        table = self.table
        if self.kind is None or self.target is None or table.store is None or table.key is None:
            raise InvariantViolated(f"entity {self.name} was declared in spite of its mistakes")
        schema, name = self.target
        entity = Entity(
            name=self.name,
            store=table.store,
            kind=self.kind,
            schema=schema,
            table=name,
            key=table.key,
            fields=self.fields,
            key_default=table.key_default,
            version=table.version,
            operations=frozenset(map(OperationKind, table.operations or list(OperationKind))),
            on_foreign_write=ForeignWritePolicy(table.on_foreign_write),
            references=tuple(self.references),
        )
        return Declaration(place, entity, table.operations is not None)

    def _complain(self, at: Place, sentence: str) -> None:
        self.wrong.append((at, sentence))

    # --- where it is ----------------------------------------------------------------------------

    def _kind(self, kinds: Mapping[str, StoreKind | None]) -> StoreKind | None:
        store = self.table.store
        if store is None:
            return None
        if store not in kinds:
            self._complain(("store",), f"names no configured store{hint(store, kinds)}")
        return kinds.get(store)

    def _target(self, kind: StoreKind) -> tuple[str | None, str] | None:
        is_table = kind is StoreKind.POSTGRESQL
        mine, others = ("table", "collection") if is_table else ("collection", "table")
        if getattr(self.table, others) is not None:
            self._complain((others,), f"a {kind} store has {mine}s; write {mine} instead")
        name = getattr(self.table, mine)
        if name is None:
            if not any(at == (mine,) for at, _ in self.wrong):
                self._complain((mine,), "is missing")
            return None
        schema: str | None = None
        if is_table:
            schema, table, fault = split_table(name)
        else:
            table, fault = name, collection_fault(name)
        if fault:
            self._complain((mine,), fault)
        return schema, table

    # --- fields ---------------------------------------------------------------------------------

    def _fields(self) -> dict[str, Field]:
        fields: dict[str, Field] = {}
        if "fields" in self.table.model_fields_set and not self.table.fields:
            self._complain(("fields",), "must not be empty")
        for name, given in self.table.fields.items():
            at = ("fields", name)
            fault = None if self.kind is None else field_fault(name, self.kind)
            if fault:
                self._complain(at, fault)
            if not isinstance(given, dict):
                self._complain(at, 'must be a table, such as { type = "string" }')
                continue
            field = self._field(name, given)
            if field is not None:
                fields[name] = field
        return fields

    def _field(self, name: str, given: Mapping[str, Any]) -> Field | None:
        at = ("fields", name)
        table, wrong = salvage(FieldTable, given)
        self.wrong += [((*at, *below), sentence) for below, sentence in wrong]
        if "type" not in given:
            self._complain((*at, "type"), "is missing")
        if table.type is None:
            return None
        self._tables[name] = table

        def complain(member: str, sentence: str) -> None:
            self._complain((*at, *member.split(".")), sentence)

        # Where the store is unknown, MongoDB's rules: they say less of names and types.
        kind = self.kind or StoreKind.MONGODB
        return read_field(name, FieldType(table.type), table, kind, complain)

    # --- special fields -------------------------------------------------------------------------

    def _judge_key(self) -> None:
        key = self.table.key
        if key is None:
            return
        if self.kind is StoreKind.MONGODB and key != "_id":
            self._complain(
                ("key",),
                'must be "_id": it alone is unique in every collection, and cannot be changed',
            )
        if key not in self.table.fields:
            self._complain(("key",), f"its field {key} is not declared in fields")
        field = self.fields.get(key)
        if field is None:
            return
        if field.type in _NO_KEYS:
            self._complain(("fields", key, "type"), f"a key cannot be {field.type}")
        if "default" in self._tables[key].model_fields_set:
            self._complain(("fields", key, "default"), "a key has none; key_default draws keys")
        if self.table.key_default and field.type not in _DRAWN_KEYS:
            self._complain(("key_default",), f"draws uuids, and the key is {field.type}")

    def _judge_version(self) -> None:
        version = self.table.version
        if version is None:
            return
        if version == self.table.key:
            self._complain(("version",), "is the key as well")
        fault = None if self.kind is None else field_fault(version, self.kind)
        if fault and version not in self.table.fields:
            self._complain(("version",), fault)
        field = self.fields.get(version)
        if field is None:
            return
        at = ("fields", version)
        if field.type is not FieldType.INTEGER:
            self._complain((*at, "type"), f"a version is integer, not {field.type}")
        given = self._tables[version].model_fields_set
        for member in sorted({"min", "max", "enum", "default"} & given):
            self._complain((*at, member), "only the coordinator writes a version")

    def _judge_operations(self) -> None:
        allowed = self.table.operations
        if allowed is None:
            return
        if not allowed:
            self._complain(("operations",), "must not be empty; leave it out to allow all")
        for operation in sorted({each for each in allowed if allowed.count(each) > 1}):
            self._complain(("operations",), f"names {operation} twice")
