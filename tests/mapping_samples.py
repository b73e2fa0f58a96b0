"""A small mapping over both stores for tests of pure code: every field type, references, bounds."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from coordinator.domain.entity import (
    Entity,
    Field,
    FieldType,
    Limits,
    Mapping,
    Reference,
    StoreKind,
)
from coordinator.domain.mapping_json import make_mapping
from coordinator.domain.operation import OperationKind
from coordinator.domain.values import MONGODB_LIMITS

POSTGRESQL, MONGODB = StoreKind.POSTGRESQL, StoreKind.MONGODB
INT4 = Limits(integer_min=-(2**31), integer_max=2**31 - 1)
INT8 = Limits(integer_min=-(2**63), integer_max=2**63 - 1)
MONEY = Limits(precision=12, scale=2)
DRAWN_AT = datetime(2026, 5, 17, 9, 30, 0, 123456, tzinfo=UTC)


class FixedDraw:
    """Draws 1, 2, 3 … as uuids, and always the same time."""

    def __init__(self) -> None:
        self.drawn = 0

    def uuid7(self) -> UUID:
        self.drawn += 1
        return UUID(int=self.drawn)

    def now(self) -> datetime:
        return DRAWN_AT


def field(name: str, field_type: FieldType, kind: StoreKind = POSTGRESQL, **more: Any) -> Field:
    if kind is MONGODB:
        more.setdefault("limits", MONGODB_LIMITS[field_type])
    return Field(name, field_type, **more)


def entity(
    name: str, kind: StoreKind, fields: Iterable[Field], *, key: str = "id", **more: Any
) -> Entity:
    is_table = kind is POSTGRESQL
    return Entity(
        name=name,
        store="ledger" if is_table else "catalog",
        kind=kind,
        schema="public" if is_table else None,
        table=f"{name}s",
        key=key,
        fields={each.name: each for each in fields},
        **more,
    )


T = FieldType

ACCOUNT = entity(
    "account",
    POSTGRESQL,
    [
        field("id", T.INTEGER, limits=INT4),
        field("balance", T.DECIMAL, min=Decimal(0), limits=MONEY),
        field("status", T.STRING, enum=("active", "closed"), nullable=True),
        field("note", T.STRING, nullable=True, max_length=10),
        field("created_at", T.TIMESTAMP, read_only=True, default_generator="now"),
    ],
    version="version",
)
CUSTOMER = entity("customer", POSTGRESQL, [field("id", T.INTEGER, limits=INT8)])
ORDER = entity(
    "order",
    MONGODB,
    [
        field("_id", T.STRING, MONGODB),
        field("customer", T.INTEGER, MONGODB, nullable=True),
        field("total", T.DECIMAL, MONGODB, nullable=True),
    ],
    key="_id",
    key_default="uuid7",
    references=(Reference("customer", "customer"),),
)
HOLD = entity(
    "hold",
    POSTGRESQL,
    [field("id", T.UUID), field("amount", T.INTEGER, limits=INT4, has_default=True, default=1)],
    key_default="uuid7",
    operations=frozenset({OperationKind.INSERT, OperationKind.DELETE}),
)
NODE = entity(
    "node",
    POSTGRESQL,
    [field("id", T.INTEGER, limits=INT8), field("parent", T.INTEGER, limits=INT8, nullable=True)],
    references=(Reference("parent", "node"),),
)


def _of_every_type(name: str, kind: StoreKind, types: Iterable[FieldType]) -> Entity:
    fields = [field("id", T.STRING, kind)]
    fields += [field(each.value, each, kind, nullable=True) for each in types]
    return entity(name, kind, fields, version="rev")


PG_THING = _of_every_type("pg_thing", POSTGRESQL, [each for each in T if each is not T.OBJECTID])
MONGO_THING = _of_every_type("mongo_thing", MONGODB, T)

MAPPING: Mapping = make_mapping(
    [ACCOUNT, CUSTOMER, ORDER, HOLD, NODE, PG_THING, MONGO_THING],
)
