"""`resolve`: declarations against catalogs that were never read from a server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from coordinator.domain.entity import Column, Entity, FieldType, Limits, Reference
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.domain.operation import OperationKind
from coordinator.domain.values import MONGODB_LIMITS
from coordinator.mapping import (
    Catalog,
    Declaration,
    MongodbCatalog,
    PostgresqlCatalog,
    Resolution,
    resolve,
    tables_of,
)
from coordinator.mapping.catalog import LiveCollection, LiveColumn, LiveForeignKey, LiveTable
from coordinator.mapping.columns import limits_of
from tests.mapping_samples import MONGODB, POSTGRESQL, entity, field

T = FieldType
ALL_RIGHTS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
ID = LiveColumn("id", "bigint", "int8", not_null=True)
MONEY = LiveColumn("balance", "numeric(12,2)", "numeric", modifier=(12 << 16 | 2) + 4)
VERSION = LiveColumn("version", "integer", "int4", not_null=True)

ACCOUNT = entity(
    "account",
    POSTGRESQL,
    [field("id", T.INTEGER), field("balance", T.DECIMAL, nullable=True)],
    version="version",
)
ORDER = entity("order", MONGODB, [field("_id", T.STRING), field("at", T.TIMESTAMP)], key="_id")


def declared(each: Entity, *, says_operations: bool = False) -> Declaration:
    return Declaration(f"e.toml: {each.name}", each, says_operations)


def table(name: str, columns: Iterable[LiveColumn], **more: Any) -> LiveTable:
    more = {"kind": "r", "keys": frozenset({"id"}), "rights": ALL_RIGHTS, **more}
    return LiveTable("public", name, columns=tuple(columns), **more)


def relational(*tables: LiveTable, foreign_keys: Iterable[LiveForeignKey] = ()) -> Catalog:
    return PostgresqlCatalog({(each.schema, each.name): each for each in tables}, (*foreign_keys,))


def documents(*collections: LiveCollection, has_transactions: bool = True) -> Catalog:
    return MongodbCatalog(has_transactions, {each.name: each for each in collections})


def resolved(
    each: Entity, live: LiveTable, *, says_operations: bool = False, journal: str | None = None
) -> Resolution:
    return resolve(
        [declared(each, says_operations=says_operations)],
        {"ledger": relational(live)},
        journal_store=journal,
    )


def mistakes(*declarations: Declaration, journal: str | None = None, **found: Catalog) -> list[str]:
    with pytest.raises(ConfigurationInvalid) as caught:
        resolve(declarations, found, journal_store=journal)
    return list(caught.value.mistakes)


def account_with(*columns: LiveColumn, **more: Any) -> LiveTable:
    return table("accounts", [ID, MONEY, VERSION, *columns], **more)


# --- what is filled in --------------------------------------------------------------------------


def test_limits_and_all_live_columns_are_filled_in() -> None:
    hidden = LiveColumn("hidden", "app.mood", None)
    made = LiveColumn("made", "integer", "int4", generated=True)
    serial = LiveColumn("no", "integer", "int4", not_null=True, identity=True, has_default=True)
    resolution = resolved(ACCOUNT, account_with(hidden, made, serial))
    found = resolution.mapping.entities["account"]
    assert found.fields["id"].limits == Limits(integer_min=-(2**63), integer_max=2**63 - 1)
    assert found.fields["balance"].limits == Limits(precision=12, scale=2)
    assert found.columns == (
        Column("id", "bigint"),
        Column("balance", "numeric(12,2)"),
        Column("version", "integer"),
        Column("hidden", "app.mood"),
        Column("made", "integer", generated=True),
        Column("no", "integer", identity=True),
    )
    assert resolution.warnings == resolution.missing_rights == ()
    assert resolution.mapping.stores == ("ledger",)


def test_another_column_is_another_fingerprint() -> None:
    one = resolved(ACCOUNT, account_with())
    two = resolved(ACCOUNT, account_with(LiveColumn("more", "text", "text")))
    assert one.mapping.fingerprint != two.mapping.fingerprint
    assert one.mapping.fingerprint == resolved(ACCOUNT, account_with()).mapping.fingerprint


def test_a_default_is_kept_as_its_column_holds_it() -> None:
    given = field("balance", T.DECIMAL, has_default=True, default=Decimal("0.1"))
    each = replace(ACCOUNT, fields={**ACCOUNT.fields, "balance": given})
    found = resolved(each, account_with()).mapping.entities["account"]
    assert str(found.fields["balance"].default) == "0.10"


def test_a_default_that_its_column_cannot_hold() -> None:
    given = field("balance", T.DECIMAL, has_default=True, default=Decimal("0.001"))
    each = replace(ACCOUNT, fields={**ACCOUNT.fields, "balance": given})
    (mistake,) = mistakes(declared(each), ledger=relational(account_with()))
    assert mistake.startswith("e.toml: account.fields.balance.default: the value has more than")


def test_missing_collections_are_listed_and_not_refused() -> None:
    carts = replace(ORDER, name="cart", table="carts")
    resolution = resolve(
        [declared(ORDER), declared(carts)],
        {"catalog": documents(LiveCollection("carts", "collection"))},
        journal_store=None,
    )
    assert resolution.missing_collections == {"catalog": ("orders",)}
    found = resolution.mapping.entities["order"].fields["at"]
    assert found.limits == MONGODB_LIMITS[T.TIMESTAMP]


def test_tables_are_asked_for_in_their_own_store_only() -> None:
    far = replace(ACCOUNT, name="far", store="archive", schema="old")
    declarations = [declared(ACCOUNT), declared(far), declared(ORDER)]
    assert tables_of(declarations, "ledger") == [("public", "accounts")]
    assert tables_of(declarations, "archive") == [("old", "accounts")]


# --- types --------------------------------------------------------------------------------------

INT2, INT4 = (
    Limits(integer_min=-(2**15), integer_max=2**15 - 1),
    Limits(integer_min=-(2**31), integer_max=2**31 - 1),
)


@pytest.mark.parametrize(
    ("field_type", "base_type", "modifier", "limits"),
    [
        (T.STRING, "text", -1, Limits()),
        (T.STRING, "varchar", 24, Limits(length=20)),
        (T.STRING, "bpchar", 7, Limits(length=3, padded=True)),
        (T.INTEGER, "int2", -1, INT2),
        (T.INTEGER, "int4", -1, INT4),
        (T.INTEGER, "numeric", (20 << 16) + 4, Limits(precision=20, scale=0)),
        (T.DECIMAL, "numeric", -1, Limits()),
        (T.DECIMAL, "numeric", (12 << 16 | 2) + 4, Limits(precision=12, scale=2)),
        (T.DECIMAL, "numeric", (5 << 16 | 0x7FD) + 4, Limits(precision=5, scale=-3)),
        (T.FLOAT, "float4", -1, Limits(single_float=True)),
        (T.FLOAT, "float8", -1, Limits()),
        (T.BOOLEAN, "bool", -1, Limits()),
        (T.TIMESTAMP, "timestamptz", -1, Limits(fraction_digits=6)),
        (T.TIMESTAMP, "timestamptz", 0, Limits(fraction_digits=0)),
        (T.DATE, "date", -1, Limits()),
        (T.UUID, "uuid", -1, Limits()),
        (T.BINARY, "bytea", -1, Limits()),
        (T.JSON, "json", -1, Limits()),
        (T.JSON, "jsonb", -1, Limits()),
    ],
)
def test_columns_that_hold_a_type(
    field_type: FieldType, base_type: str, modifier: int, limits: Limits
) -> None:
    assert limits_of(LiveColumn("c", base_type, base_type, modifier), field_type) == limits


@pytest.mark.parametrize(
    ("field_type", "base_type", "modifier"),
    [
        (T.STRING, "name", -1),
        (T.STRING, None, -1),  # an enum or another type of the user's
        (T.INTEGER, "numeric", -1),
        (T.INTEGER, "numeric", (12 << 16 | 2) + 4),
        (T.DECIMAL, "int8", -1),
        (T.DECIMAL, "float8", -1),
        (T.FLOAT, "numeric", -1),
        (T.TIMESTAMP, "timestamp", -1),
        (T.DATE, "timestamptz", -1),
        (T.UUID, "text", -1),
        (T.JSON, "text", -1),
        (T.OBJECTID, "text", -1),
    ],
)
def test_columns_that_do_not(field_type: FieldType, base_type: str | None, modifier: int) -> None:
    assert limits_of(LiveColumn("c", "shown", base_type, modifier), field_type) is None


# --- mistakes -----------------------------------------------------------------------------------


def test_every_mismatch_of_every_store_is_told_at_once() -> None:
    wide = entity(
        "wide",
        POSTGRESQL,
        [
            field("id", T.STRING),
            field("statsu", T.STRING),
            field("at", T.TIMESTAMP),
            field("must", T.STRING, nullable=True),
        ],
        version="rev",
    )
    live = table(
        "wides",
        [
            LiveColumn("id", "text", "text"),  # unique, but may be null
            LiveColumn("status", "text", "text"),
            LiveColumn("at", "timestamp without time zone", "timestamp"),
            LiveColumn("must", "text", "text", not_null=True),
            LiveColumn("rev", "text", "text"),
        ],
    )
    view = entity("view", POSTGRESQL, [field("id", T.INTEGER)])
    gone = entity("gone", POSTGRESQL, [field("id", T.INTEGER)])
    capped = entity("log", MONGODB, [field("_id", T.STRING)], key="_id")
    folded = entity("word", MONGODB, [field("_id", T.STRING)], key="_id")
    assert mistakes(
        *map(declared, (wide, view, gone, ORDER, capped, folded)),
        ledger=relational(live, table("views", [ID], kind="v")),
        catalog=documents(
            LiveCollection("orders", "view"),
            LiveCollection("logs", "collection", capped=True),
            LiveCollection("words", "collection", has_collation=True),
            has_transactions=False,
        ),
    ) == [
        "e.toml: wide.key: column id must be PRIMARY KEY or UNIQUE NOT NULL by itself, and not "
        "DEFERRABLE",
        "e.toml: wide.version: column rev is text, but integer needs smallint, integer, bigint or "
        "numeric(p,0)",
        "e.toml: wide.fields.statsu: table public.wides has no column statsu; do you mean status?",
        "e.toml: wide.fields.at.type: column at is timestamp without time zone, but timestamp "
        "needs timestamp with time zone",
        "e.toml: wide.fields.must.nullable: column must is NOT NULL and has no default",
        "e.toml: view.table: public.views is a view, not a table",
        "e.toml: gone.table: store ledger has no table public.gones",
        "e.toml: order.collection: orders is a view, not a collection",
        "e.toml: log.collection: logs is capped, and MongoDB takes no writes to it in transactions",
        "e.toml: word.collection: words has a default collation, under which different keys could "
        "be one document; make it again without one",
        "stores.catalog: the server is no member of a replica set, so it has no transactions; "
        "start mongod with --replSet (one member is enough)",
    ]


def test_a_key_that_is_not_unique_by_itself() -> None:
    live = account_with(keys=frozenset())
    (mistake,) = mistakes(declared(ACCOUNT), ledger=relational(live))
    assert mistake.startswith("e.toml: account.key: column id must be PRIMARY KEY or UNIQUE")


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (replace(ID, generated=True), "column id is generated, so it cannot be given"),
        (
            replace(ID, same_text_same_value=False),
            "the collation of column id is not deterministic, so different keys could be one row",
        ),
    ],
)
def test_keys_that_cannot_name_one_row(column: LiveColumn, why: str) -> None:
    # The key is read_only, as a generated column must be, so that only its being a key is wrong.
    key = field("id", T.INTEGER, read_only=True)
    each = replace(ACCOUNT, fields={**ACCOUNT.fields, "id": key})
    live = table("accounts", [column, MONEY, VERSION])
    assert mistakes(declared(each), ledger=relational(live)) == [f"e.toml: account.key: {why}"]


def test_a_table_with_heirs_has_no_unique_key() -> None:
    assert mistakes(declared(ACCOUNT), ledger=relational(account_with(has_children=True))) == [
        "e.toml: account.table: public.accounts has tables that inherit from it, where its key is "
        "not unique"
    ]


def test_partitioned_tables_are_tables() -> None:
    assert resolved(ACCOUNT, account_with(kind="p")).warnings == ()


def test_a_required_field_over_a_nullable_column_is_fine() -> None:
    strict = field("balance", T.DECIMAL)
    each = replace(ACCOUNT, fields={**ACCOUNT.fields, "balance": strict})
    assert resolved(each, account_with()).warnings == ()


@pytest.mark.parametrize(
    "made",
    [
        LiveColumn("version", "integer", "int4", generated=True),
        LiveColumn("version", "integer", "int4", identity=True, not_null=True),
    ],
)
def test_a_version_that_the_store_makes(made: LiveColumn) -> None:
    assert mistakes(declared(ACCOUNT), ledger=relational(table("accounts", [ID, MONEY, made]))) == [
        "e.toml: account.version: column version is made by the store; we must write it"
    ]


def test_a_generated_column_becomes_read_only() -> None:
    each = replace(ACCOUNT, fields={**ACCOUNT.fields, "made": field("made", T.INTEGER)})
    live = account_with(LiveColumn("made", "integer", "int4", generated=True))
    resolution = resolved(each, live)
    assert resolution.mapping.entities["account"].fields["made"].read_only
    assert resolution.warnings == (
        "e.toml: account.fields.made: column made is generated, so the field is read_only",
    )
    silent = replace(each, fields={**each.fields, "made": field("made", T.INTEGER, read_only=True)})
    assert resolved(silent, live).warnings == ()
    drawn = replace(
        each, fields={**each.fields, "made": field("made", T.INTEGER, has_default=True, default=1)}
    )
    assert mistakes(declared(drawn), ledger=relational(live)) == [
        "e.toml: account.fields.made.default: column made is generated by the store"
    ]


NEEDED = LiveColumn("needed", "text", "text", not_null=True)


def test_an_unmapped_column_that_every_insert_would_miss() -> None:
    sentence = (
        "column needed of public.accounts is NOT NULL without default and not mapped, so every "
        "{} will be refused"
    )
    (warning,) = resolved(ACCOUNT, account_with(NEEDED)).warnings
    assert warning == f"e.toml: account: {sentence.format('insert and upsert')}"
    meant = replace(ACCOUNT, operations=frozenset({OperationKind.INSERT, OperationKind.CHECK}))
    assert mistakes(
        declared(meant, says_operations=True), ledger=relational(account_with(NEEDED))
    ) == [f"e.toml: account.operations: {sentence.format('insert')}"]


@pytest.mark.parametrize(
    "column",
    [
        replace(NEEDED, has_default=True),
        replace(NEEDED, generated=True),
        replace(NEEDED, not_null=False),
    ],
)
def test_an_unmapped_column_that_no_insert_misses(column: LiveColumn) -> None:
    assert resolved(ACCOUNT, account_with(column), says_operations=True).warnings == ()


def test_an_update_misses_no_column() -> None:
    updates = replace(ACCOUNT, operations=frozenset({OperationKind.UPDATE}))
    assert resolved(updates, account_with(NEEDED), says_operations=True).warnings == ()


# --- what an operator should know ---------------------------------------------------------------


def test_triggers_rules_and_row_security_are_warned_of() -> None:
    live = account_with(triggers=("audit",), rules=("copy",), row_security=True)
    assert resolved(ACCOUNT, live).warnings == (
        "e.toml: account.table: trigger audit of public.accounts also acts when a write is undone",
        "e.toml: account.table: rule copy of public.accounts may replace what we write",
        "e.toml: account.table: row security of public.accounts may hide rows from us",
    )


def test_rights_that_undo_needs_are_told() -> None:
    live = account_with(rights=frozenset({"SELECT", "UPDATE"}))
    assert resolved(ACCOUNT, live).missing_rights == (
        "e.toml: account.table: store ledger does not grant us DELETE, INSERT on public.accounts",
    )
    updates = replace(ACCOUNT, operations=frozenset({OperationKind.UPDATE}))
    assert resolved(updates, live).missing_rights == ()


# --- foreign keys (F30) -------------------------------------------------------------------------

HOLD = entity("hold", POSTGRESQL, [field("id", T.INTEGER), field("account", T.INTEGER)])
HOLDS = table("holds", [ID, LiveColumn("account", "bigint", "int8")])
OF_ACCOUNT = LiveForeignKey(
    "holds_account_fkey", ("public", "holds"), ("account",), ("public", "accounts"), ("id",), "a"
)
NAMED = replace(HOLD, references=(Reference("account", "account"),))


def with_key(key: LiveForeignKey) -> Catalog:
    return relational(account_with(), HOLDS, foreign_keys=[key])


def test_a_foreign_key_between_mapped_tables_must_be_named() -> None:
    assert mistakes(declared(ACCOUNT), declared(HOLD), ledger=with_key(OF_ACCOUNT)) == [
        "e.toml: hold.references: foreign key holds_account_fkey on account refers to entity "
        'account; add account = "account.id"'
    ]
    found = {"ledger": with_key(OF_ACCOUNT)}
    resolution = resolve([declared(ACCOUNT), declared(NAMED)], found, journal_store=None)
    assert resolution.mapping.referenced_by == {"account": (Reference("account", "hold"),)}


def test_a_foreign_key_from_an_unmapped_table_needs_no_name() -> None:
    found = {"ledger": with_key(OF_ACCOUNT)}
    assert resolve([declared(ACCOUNT)], found, journal_store=None).warnings == ()


def test_foreign_keys_that_references_cannot_name() -> None:
    by_two = replace(OF_ACCOUNT, columns=("account", "id"), referred_columns=("id", "version"))
    by_other = replace(OF_ACCOUNT, referred_columns=("version",))
    for key, why in ((by_two, "by several columns"), (by_other, "by version, which is not its")):
        (mistake,) = mistakes(declared(ACCOUNT), declared(NAMED), ledger=with_key(key))
        assert mistake.startswith("e.toml: hold.references: ")
        assert why in mistake


@pytest.mark.parametrize(
    ("action", "shown"), [("c", "CASCADE"), ("n", "SET NULL"), ("d", "SET DEFAULT")]
)
def test_a_delete_that_the_store_spreads_is_refused_outside_the_journals_store(
    action: str, shown: str
) -> None:
    spreading = with_key(replace(OF_ACCOUNT, on_delete=action))
    (mistake,) = mistakes(declared(ACCOUNT), ledger=spreading, journal="other")
    assert mistake.startswith("e.toml: account.operations: delete cannot be undone here")
    assert f"public.holds is ON DELETE {shown}" in mistake


def test_a_delete_that_the_store_spreads_is_fine_in_the_pivot_or_when_nobody_may_delete() -> None:
    found = {"ledger": with_key(replace(OF_ACCOUNT, on_delete="c"))}
    assert resolve([declared(ACCOUNT)], found, journal_store="ledger").mapping.entities
    updates = replace(ACCOUNT, operations=frozenset({OperationKind.UPDATE}))
    assert resolve([declared(updates)], found, journal_store=None).mapping.entities


@pytest.mark.parametrize("action", ["a", "r"])
def test_a_delete_that_the_store_refuses_by_itself_is_fine(action: str) -> None:
    found = {"ledger": with_key(replace(OF_ACCOUNT, on_delete=action))}
    assert resolve([declared(ACCOUNT)], found, journal_store=None).mapping.entities
