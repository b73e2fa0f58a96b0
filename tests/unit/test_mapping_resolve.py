"""Comparing declarations with catalogs that are given as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from coordinator.domain.entity import Column, Entity, Field, FieldType, Limits, Reference, StoreKind
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.domain.mapping_json import mapping_as_json, mapping_from_json
from coordinator.domain.operation import OperationKind
from coordinator.mapping import Catalog, Declaration, Resolution, resolve, tables_of
from coordinator.mapping.catalog import (
    LiveCollection,
    LiveColumn,
    LiveForeignKey,
    LiveTable,
    MongodbCatalog,
    PostgresqlCatalog,
)

ALL = frozenset(OperationKind)
RIGHTS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})


def declare(
    name: str,
    *fields: Field,
    kind: StoreKind = StoreKind.POSTGRESQL,
    says_operations: bool = False,
    **more: Any,
) -> Declaration:
    is_table = kind is StoreKind.POSTGRESQL
    key = "id" if is_table else "_id"
    all_fields = (Field(key, FieldType.INTEGER), *fields)
    shape: dict[str, Any] = {
        "store": "ledger" if is_table else "catalog",
        "schema": "public" if is_table else None,
        "table": f"{name}s",
        "key": key,
        "fields": {each.name: each for each in all_fields},
        **more,
    }
    return Declaration(f"e.toml: {name}", Entity(name=name, kind=kind, **shape), says_operations)


def column(name: str, base_type: str, modifier: int = -1, **more: Any) -> LiveColumn:
    return LiveColumn(name, more.pop("type", base_type), base_type, modifier, **more)


ID = column("id", "int8", not_null=True, type="bigint")


def table(name: str, *columns: LiveColumn, **more: Any) -> LiveTable:
    shape: dict[str, Any] = {"kind": "r", "keys": frozenset({"id"}), "rights": RIGHTS, **more}
    return LiveTable("public", name, columns=(ID, *columns), **shape)


def postgresql(*tables: LiveTable, foreign_keys: tuple[LiveForeignKey, ...] = ()) -> Catalog:
    return PostgresqlCatalog({(each.schema, each.name): each for each in tables}, foreign_keys)


def compare(
    *declarations: Declaration, journal_store: str | None = "ledger", **catalogs: Catalog
) -> Resolution:
    return resolve(declarations, catalogs, journal_store=journal_store)


def fits(
    *declarations: Declaration, journal_store: str | None = "ledger", **catalogs: Catalog
) -> bool:
    """Compare; a mismatch raises."""
    return bool(compare(*declarations, journal_store=journal_store, **catalogs).mapping.entities)


def mistakes_of(
    *declarations: Declaration, journal_store: str | None = "ledger", **catalogs: Catalog
) -> list[str]:
    with pytest.raises(ConfigurationInvalid) as caught:
        compare(*declarations, journal_store=journal_store, **catalogs)
    return [mistake.removeprefix("e.toml: ") for mistake in caught.value.mistakes]


# --- what it gives ------------------------------------------------------------------------------


def test_columns_and_limits_come_from_the_catalog() -> None:
    declared = declare("thing", Field("name", FieldType.STRING), version="v")
    live = table(
        "things",
        column("name", "varchar", 24, type="character varying(20)"),
        column("v", "int4", not_null=True, type="integer"),
        column("twice", "int4", generated=True, type="integer"),
        column("extra", "int4", identity=True, has_default=True, not_null=True, type="integer"),
    )
    found = compare(declared, ledger=postgresql(live))
    thing = found.mapping.entities["thing"]
    assert thing.fields["name"].limits == Limits(length=20)
    assert thing.fields["id"].limits == Limits(integer_min=-(2**63), integer_max=2**63 - 1)
    assert thing.columns == (
        Column("id", "bigint"),
        Column("name", "character varying(20)"),
        Column("v", "integer"),
        Column("twice", "integer", generated=True),
        Column("extra", "integer", identity=True),
    )
    assert found.mapping.stores == ("ledger",)
    assert found.warnings == ()
    assert found.missing_rights == ()


def test_the_fingerprint_is_that_of_the_journaled_form() -> None:
    declared = declare("thing", Field("name", FieldType.STRING))
    one = compare(declared, ledger=postgresql(table("things", column("name", "text")))).mapping
    again = compare(declared, ledger=postgresql(table("things", column("name", "text")))).mapping
    other = compare(declared, ledger=postgresql(table("things", column("name", "varchar", 9))))
    assert one.fingerprint == again.fingerprint != other.mapping.fingerprint
    assert mapping_from_json(mapping_as_json(one)) == one


@pytest.mark.parametrize(
    ("field_type", "live", "limits"),
    [
        (FieldType.STRING, ("text", -1), Limits()),
        (FieldType.STRING, ("bpchar", 7), Limits(length=3, padded=True)),
        (FieldType.INTEGER, ("int2", -1), Limits(integer_min=-32768, integer_max=32767)),
        (FieldType.INTEGER, ("int4", -1), Limits(integer_min=-(2**31), integer_max=2**31 - 1)),
        (FieldType.INTEGER, ("numeric", (20 << 16) + 4), Limits(precision=20, scale=0)),
        (FieldType.DECIMAL, ("numeric", -1), Limits()),
        (FieldType.DECIMAL, ("numeric", (12 << 16 | 4) + 4), Limits(precision=12, scale=4)),
        (FieldType.DECIMAL, ("numeric", (3 << 16 | 0x7FE) + 4), Limits(precision=3, scale=-2)),
        (FieldType.FLOAT, ("float4", -1), Limits(single_float=True)),
        (FieldType.FLOAT, ("float8", -1), Limits()),
        (FieldType.BOOLEAN, ("bool", -1), Limits()),
        (FieldType.TIMESTAMP, ("timestamptz", -1), Limits(fraction_digits=6)),
        (FieldType.TIMESTAMP, ("timestamptz", 0), Limits(fraction_digits=0)),
        (FieldType.DATE, ("date", -1), Limits()),
        (FieldType.UUID, ("uuid", -1), Limits()),
        (FieldType.BINARY, ("bytea", -1), Limits()),
        (FieldType.JSON, ("json", -1), Limits()),
        (FieldType.JSON, ("jsonb", -1), Limits()),
    ],
)
def test_what_a_column_holds(field_type: FieldType, live: tuple[str, int], limits: Limits) -> None:
    found = compare(
        declare("thing", Field("f", field_type)),
        ledger=postgresql(table("things", column("f", *live))),
    )
    assert found.mapping.entities["thing"].fields["f"].limits == limits


@pytest.mark.parametrize(
    ("field_type", "live", "expected"),
    [
        (FieldType.STRING, "int4", "string needs text, varchar or char"),
        (FieldType.INTEGER, "numeric", "integer needs smallint, integer, bigint or numeric(p,0)"),
        (FieldType.DECIMAL, "float8", "decimal needs numeric"),
        (FieldType.FLOAT, "numeric", "float needs real or double precision"),
        (FieldType.BOOLEAN, "int2", "boolean needs boolean"),
        (FieldType.TIMESTAMP, "timestamp", "timestamp needs timestamp with time zone"),
        (FieldType.DATE, "timestamptz", "date needs date"),
        (FieldType.UUID, "text", "uuid needs uuid"),
        (FieldType.BINARY, "text", "binary needs bytea"),
        (FieldType.JSON, "text", "json needs json or jsonb"),
    ],
)
def test_what_a_column_does_not_hold(field_type: FieldType, live: str, expected: str) -> None:
    catalog = postgresql(table("things", column("f", live)))
    assert mistakes_of(declare("thing", Field("f", field_type)), ledger=catalog) == [
        f"thing.fields.f.type: column f is {live}, but {expected}"
    ]


def test_a_type_that_is_not_postgresqls_own_holds_nothing() -> None:
    live = LiveColumn("f", "app.mood", None)
    assert mistakes_of(
        declare("thing", Field("f", FieldType.STRING)), ledger=postgresql(table("things", live))
    ) == ["thing.fields.f.type: column f is app.mood, but string needs text, varchar or char"]


def test_a_default_is_kept_as_its_column_holds_it() -> None:
    declared = declare(
        "thing", Field("f", FieldType.DECIMAL, default=Decimal("1.5"), has_default=True)
    )
    live = table("things", column("f", "numeric", (6 << 16 | 3) + 4))
    found = compare(declared, ledger=postgresql(live)).mapping.entities["thing"].fields["f"]
    assert str(found.default) == "1.500"


def test_a_default_that_its_column_cannot_hold() -> None:
    at = datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=UTC)
    declared = declare(
        "thing",
        Field("f", FieldType.STRING, default="long", has_default=True),
        Field("t", FieldType.TIMESTAMP, default=at, has_default=True),
    )
    live = table("things", column("f", "varchar", 7), column("t", "timestamptz", 3))
    assert mistakes_of(declared, ledger=postgresql(live)) == [
        "thing.fields.f.default: the value is longer than the 3 characters that its column holds",
        "thing.fields.t.default: the value has more than the 3 fraction digits of its store",
    ]


# --- PostgreSQL: mismatches ---------------------------------------------------------------------


def test_every_mismatch_is_told_at_once() -> None:
    thing = declare(
        "thing", Field("nam", FieldType.STRING), Field("size", FieldType.DATE), version="version"
    )
    found = mistakes_of(
        thing,
        declare("ghost"),
        declare("seen", kind=StoreKind.MONGODB),
        ledger=postgresql(table("things", column("name", "text"), column("size", "int4"))),
        catalog=MongodbCatalog(False, {"seens": LiveCollection("seens", "view")}),
    )
    assert found == [
        "thing.version: table public.things has no column version",
        "thing.fields.nam: table public.things has no column nam; do you mean name?",
        "thing.fields.size.type: column size is int4, but date needs date",
        "ghost.table: store ledger has no table public.ghosts",
        "seen.collection: seens is a view, not a collection",
        "stores.catalog: the server is no member of a replica set, so it has no transactions; "
        "start mongod with --replSet (one member is enough)",
    ]


@pytest.mark.parametrize(
    ("kind", "what"), [("v", "a view"), ("m", "a materialized view"), ("f", "a foreign table")]
)
def test_only_tables_are_mapped(kind: str, what: str) -> None:
    catalog = postgresql(table("things", kind=kind))
    assert mistakes_of(declare("thing"), ledger=catalog) == [
        f"thing.table: public.things is {what}, not a table"
    ]


def test_a_partitioned_table_is_a_table() -> None:
    assert fits(declare("thing"), ledger=postgresql(table("things", kind="p")))


def test_a_table_with_children_has_no_unique_key() -> None:
    (mistake,) = mistakes_of(
        declare("thing"), ledger=postgresql(table("things", has_children=True))
    )
    assert "inherit" in mistake


def key_table(key: LiveColumn, keys: frozenset[str] = frozenset({"id"})) -> Catalog:
    return postgresql(LiveTable("public", "things", "r", (key,), keys, RIGHTS))


@pytest.mark.parametrize(
    ("catalog", "expected"),
    [
        (key_table(ID, frozenset()), "must be PRIMARY KEY or UNIQUE NOT NULL"),
        (key_table(replace(ID, not_null=False)), "must be PRIMARY KEY or UNIQUE NOT NULL"),
        (key_table(replace(ID, generated=True)), "is generated, so it cannot be given"),
        (key_table(replace(ID, same_text_same_value=False)), "is not deterministic"),
        (
            key_table(replace(ID, type="character(3)", base_type="bpchar", modifier=7)),
            "column id is character(3), which is padded with blanks",
        ),
    ],
)
def test_keys_that_are_none(catalog: Catalog, expected: str) -> None:
    found = mistakes_of(declare("thing"), ledger=catalog)
    assert any(each.startswith("thing.key: ") and expected in each for each in found), found


def test_a_reference_in_a_column_of_which_two_texts_are_one_value() -> None:
    """F15: the lock on what is referred to is on the key's text."""
    parent = Field("parent", FieldType.STRING)
    declared = declare("thing", parent, references=(Reference("parent", "thing"),))
    padded = column("parent", "bpchar", 7, type="character(3)")
    found = mistakes_of(declared, ledger=postgresql(table("things", padded)))
    assert any(
        each.startswith("thing.references.parent: column parent is character(3)") for each in found
    ), found


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (column("v", "text"), "column v is text, but integer needs"),
        (column("v", "int4", generated=True), "column v is made by the store"),
        (column("v", "int4", identity=True), "column v is made by the store"),
    ],
)
def test_versions_that_are_none(version: LiveColumn, expected: str) -> None:
    (mistake,) = mistakes_of(
        declare("thing", version="v"), ledger=postgresql(table("things", version))
    )
    assert mistake.startswith(f"thing.version: {expected}")


def test_null_where_the_column_takes_none() -> None:
    nullable = Field("f", FieldType.STRING, nullable=True)
    strict = column("f", "text", not_null=True)
    assert mistakes_of(declare("thing", nullable), ledger=postgresql(table("things", strict))) == [
        "thing.fields.f.nullable: column f is NOT NULL and has no default"
    ]
    # F16: the field is left out, and the column's own default acts.
    filled = replace(strict, has_default=True)
    assert fits(declare("thing", nullable), ledger=postgresql(table("things", filled)))
    version = Field("v", FieldType.INTEGER, nullable=True)
    counted = column("v", "int4", not_null=True)
    assert fits(declare("thing", version, version="v"), ledger=postgresql(table("things", counted)))


def test_a_generated_column_is_read_only() -> None:
    generated = column("f", "text", generated=True, has_default=True)
    found = compare(
        declare("thing", Field("f", FieldType.STRING)),
        ledger=postgresql(table("things", generated)),
    )
    assert found.mapping.entities["thing"].fields["f"].read_only
    assert found.warnings == (
        "e.toml: thing.fields.f: column f is generated, so the field is read_only",
    )
    told = Field("f", FieldType.STRING, read_only=True)
    assert not compare(
        declare("thing", told), ledger=postgresql(table("things", generated))
    ).warnings
    filled = Field("f", FieldType.STRING, default="x", has_default=True)
    assert mistakes_of(declare("thing", filled), ledger=postgresql(table("things", generated))) == [
        "thing.fields.f.default: column f is generated by the store"
    ]


def test_a_column_that_inserts_cannot_fill() -> None:
    live = table("things", column("must", "text", not_null=True))
    sentence = "column must of public.things is NOT NULL without default and not mapped"
    (warning,) = compare(declare("thing"), ledger=postgresql(live)).warnings
    assert sentence in warning
    insert = frozenset({OperationKind.INSERT})
    (mistake,) = mistakes_of(
        declare("thing", operations=insert, says_operations=True), ledger=postgresql(live)
    )
    assert mistake == f"thing.operations: {sentence}, so every insert will be refused"
    update = frozenset({OperationKind.UPDATE})
    assert not compare(declare("thing", operations=update), ledger=postgresql(live)).warnings


def test_a_field_that_nobody_may_fill_is_warned_of() -> None:
    stuck = Field("f", FieldType.STRING, read_only=True)
    live = table("things", column("f", "text"))
    (warning,) = compare(declare("thing", stuck), ledger=postgresql(live)).warnings
    assert warning.startswith("e.toml: thing.fields.f: it is read_only, not nullable and has no")
    identity = table("things", column("f", "text", identity=True))
    assert not compare(declare("thing", stuck), ledger=postgresql(identity)).warnings


def test_what_also_acts_is_warned_of() -> None:
    live = table("things", triggers=("audit",), rules=("mirror",), row_security=True)
    found = compare(declare("thing"), ledger=postgresql(live)).warnings
    assert [warning.split(": ", 2)[2] for warning in found] == [
        "trigger audit of public.things also acts when a write is undone",
        "rule mirror of public.things may replace what we write",
        "row security of public.things may hide rows from us",
    ]


@pytest.mark.parametrize(
    ("operations", "rights", "lacking"),
    [
        (ALL, {"SELECT"}, "DELETE, INSERT, UPDATE"),
        ({OperationKind.UPDATE}, {"SELECT"}, "UPDATE"),
        ({OperationKind.DELETE}, {"SELECT", "UPDATE", "DELETE"}, "INSERT"),
        ({OperationKind.UPDATE}, {"SELECT", "UPDATE"}, None),
    ],
)
def test_missing_rights_are_told(
    operations: set[OperationKind], rights: set[str], lacking: str | None
) -> None:
    """Undo needs rights as well: a delete is undone by an insert."""
    declared = declare("thing", operations=frozenset(operations))
    live = table("things", rights=frozenset(rights))
    found = compare(declared, ledger=postgresql(live)).missing_rights
    expected = f"e.toml: thing.table: store ledger does not grant us {lacking} on public.things"
    assert found == (() if lacking is None else (expected,))


# --- PostgreSQL: foreign keys (F30) -------------------------------------------------------------


def foreign_key(on_delete: str = "a", **more: Any) -> LiveForeignKey:
    shape: Mapping[str, Any] = {
        "name": "fk",
        "table": ("public", "notes"),
        "columns": ("thing",),
        "referred": ("public", "things"),
        "referred_columns": ("id",),
        **more,
    }
    return LiveForeignKey(on_delete=on_delete, **shape)


@pytest.mark.parametrize(
    ("action", "name"), [("c", "CASCADE"), ("n", "SET NULL"), ("d", "SET DEFAULT")]
)
@pytest.mark.parametrize("journal_store", [None, "archive"])
def test_a_delete_that_spreads_is_refused(
    action: str, name: str, journal_store: str | None
) -> None:
    catalog = postgresql(table("things"), foreign_keys=(foreign_key(action),))
    (mistake,) = mistakes_of(declare("thing"), ledger=catalog, journal_store=journal_store)
    assert mistake.startswith("thing.operations: delete cannot be undone here")
    assert f"foreign key fk of public.notes is ON DELETE {name}" in mistake


def test_a_delete_that_spreads_is_fine_where_it_need_not_be_undone() -> None:
    catalog = postgresql(table("things"), foreign_keys=(foreign_key("c"),))
    assert fits(declare("thing"), ledger=catalog, journal_store="ledger")
    no_delete = declare("thing", operations=ALL - {OperationKind.DELETE})
    assert fits(no_delete, ledger=catalog, journal_store=None)
    kept = postgresql(table("things"), foreign_keys=(foreign_key("r"),))
    assert fits(declare("thing"), ledger=kept, journal_store=None)


NOTES = table("notes", column("thing", "int8"), column("other", "int8"))
NOTE = Field("thing", FieldType.INTEGER, nullable=True)


@pytest.mark.parametrize(
    ("foreign", "references", "advice"),
    [
        (foreign_key(), (), 'add thing = "thing.id"'),
        (foreign_key(), (Reference("other", "thing"),), 'add thing = "thing.id"'),
        (foreign_key(), (Reference("thing", "note"),), 'add thing = "thing.id"'),
        (
            foreign_key(columns=("thing", "other"), referred_columns=("id", "x")),
            (),
            "several columns",
        ),
        (foreign_key(referred_columns=("code",)), (Reference("thing", "thing"),), "not its key"),
    ],
)
def test_a_foreign_key_that_references_does_not_name(
    foreign: LiveForeignKey, references: tuple[Reference, ...], advice: str
) -> None:
    catalog = postgresql(table("things"), NOTES, foreign_keys=(foreign, foreign))
    note = declare("note", NOTE, references=references)
    (mistake,) = mistakes_of(declare("thing"), note, ledger=catalog)
    assert mistake.startswith("note.references: foreign key fk on thing")
    assert advice in mistake


def test_a_foreign_key_that_is_named_or_leaves_the_mapping() -> None:
    catalog = postgresql(table("things"), NOTES, foreign_keys=(foreign_key(),))
    note = declare("note", NOTE, references=(Reference("thing", "thing"),))
    found = compare(declare("thing"), note, ledger=catalog)
    assert found.mapping.referenced_by == {"thing": (Reference("thing", "note"),)}
    assert fits(declare("thing"), ledger=catalog)


def test_a_table_that_refers_to_itself() -> None:
    itself = foreign_key(table=("public", "things"), columns=("parent",))
    live = table("things", column("parent", "int8"))
    catalog = postgresql(live, foreign_keys=(itself,))
    parent = Field("parent", FieldType.INTEGER, nullable=True)
    (mistake,) = mistakes_of(declare("thing", parent), ledger=catalog)
    assert 'add parent = "thing.id"' in mistake
    named = declare("thing", parent, references=(Reference("parent", "thing"),))
    assert fits(named, ledger=catalog)


# --- MongoDB ------------------------------------------------------------------------------------


def test_collections_that_are_missing_are_for_run_to_make() -> None:
    catalog = MongodbCatalog(True, {"olds": LiveCollection("olds", "collection")})
    found = compare(
        declare("old", Field("at", FieldType.TIMESTAMP), kind=StoreKind.MONGODB),
        declare("new", kind=StoreKind.MONGODB),
        catalog=catalog,
    )
    assert found.missing_collections == {"catalog": ("news",)}
    old = found.mapping.entities["old"]
    assert (old.schema, old.table, old.columns) == (None, "olds", ())
    assert old.fields["at"].limits.fraction_digits == 3
    assert old.fields["_id"].limits.integer_max == 2**63 - 1


def test_a_capped_collection_cannot_be_written_in_a_transaction() -> None:
    catalog = MongodbCatalog(True, {"logs": LiveCollection("logs", "collection", capped=True)})
    (mistake,) = mistakes_of(declare("log", kind=StoreKind.MONGODB), catalog=catalog)
    assert mistake.startswith("log.collection: logs is capped")


def test_a_store_without_entities_is_compared_as_well() -> None:
    (mistake,) = mistakes_of(
        declare("thing"), ledger=postgresql(table("things")), catalog=MongodbCatalog(False, {})
    )
    assert mistake.startswith("stores.catalog: the server is no member of a replica set")


def test_tables_of_a_store() -> None:
    declared = [declare("a"), declare("b", schema="app"), declare("c", kind=StoreKind.MONGODB)]
    assert tables_of(declared, "ledger") == [("public", "as"), ("app", "bs")]
