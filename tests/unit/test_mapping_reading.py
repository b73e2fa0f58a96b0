"""Reading entities: every mistake at once with its place, and what a valid file becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from textwrap import dedent
from types import MappingProxyType
from typing import Any

import pytest

from coordinator.domain.entity import (
    Entity,
    Field,
    FieldType,
    ForeignWritePolicy,
    Reference,
    StoreKind,
)
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.domain.operation import OperationKind
from coordinator.mapping import load_entities
from coordinator.settings import load_settings
from coordinator.settings.intakes import Intake


@dataclass(frozen=True)
class Store:
    kind: str


@dataclass(frozen=True)
class Topics:
    units: str = "coordinator.units"
    outcomes: str = "coordinator.outcomes"
    dead_letters: str = "coordinator.units-dlt"
    changes: str = "coordinator.changes.{entity}"


@dataclass(frozen=True)
class Configured:
    entities: Path
    topics: Topics = field(default_factory=Topics)
    stores: Mapping[str, Store] = field(
        default_factory=lambda: MappingProxyType(
            {"ledger": Store("postgresql"), "catalog": Store("mongodb")}
        )
    )
    intake: tuple[Intake, ...] = ()


def write(tmp_path: Path, text: str, name: str = "entities.toml") -> Configured:
    path = tmp_path / name
    path.write_text(dedent(text))
    return Configured(path)


def entities_of(tmp_path: Path, text: str) -> dict[str, Entity]:
    return {each.entity.name: each.entity for each in load_entities(write(tmp_path, text))}


def mistakes_of(configured: Configured) -> list[str]:
    """Load, which must fail; give the mistakes without the file's folder."""
    with pytest.raises(ConfigurationInvalid) as caught:
        load_entities(configured)
    return [each.replace(f"{configured.entities.parent}/", "") for each in caught.value.mistakes]


def field_mistakes(tmp_path: Path, declared: str, store: str = "ledger") -> list[str]:
    """Give the mistakes of one field ``f``, without file and place of the entity."""
    target, key = ("table", "id") if store == "ledger" else ("collection", "_id")
    configured = write(
        tmp_path,
        f"""
        [e]
        store = "{store}"
        {target} = "t"
        key = "{key}"
        [e.fields]
        {key} = {{ type = "integer" }}
        f = {declared}
        """,
    )
    return [each.replace("entities.toml: e.fields.f", "") for each in mistakes_of(configured)]


def read_one(tmp_path: Path, declared: str, store: str = "ledger") -> Field:
    target, key = ("table", "id") if store == "ledger" else ("collection", "_id")
    found = entities_of(
        tmp_path,
        f"""
        [e]
        store = "{store}"
        {target} = "t"
        key = "{key}"
        [e.fields]
        {key} = {{ type = "integer" }}
        f = {declared}
        """,
    )
    return found["e"].fields["f"]


# --- what is valid ------------------------------------------------------------------------------


def test_an_entity_of_postgresql(tmp_path: Path) -> None:
    found = entities_of(
        tmp_path,
        """
        [account]
        store = "ledger"
        table = "bank.accounts"
        key = "id"
        key_default = "uuid7"
        version = "v"
        operations = ["update", "check"]
        on_foreign_write = "skip"
        references = { owner = "the.owner.no" }
        [account.fields]
        id = { type = "uuid" }
        owner = { type = "integer", nullable = true }
        balance = { type = "decimal", min = 0, max = 999.5, default = "0.10" }

        ["the.owner"]
        store = "ledger"
        table = "owners"
        key = "no"
        ["the.owner".fields]
        no = { type = "integer" }
        """,
    )
    account, owner = found["account"], found["the.owner"]
    assert (account.schema, account.table, account.kind) == (
        "bank",
        "accounts",
        StoreKind.POSTGRESQL,
    )
    assert (account.key, account.key_default, account.version) == ("id", "uuid7", "v")
    assert account.operations == {OperationKind.UPDATE, OperationKind.CHECK}
    assert account.on_foreign_write is ForeignWritePolicy.SKIP
    assert account.references == (Reference("owner", "the.owner"),)
    assert list(account.fields) == ["id", "owner", "balance"]
    assert account.fields["owner"].nullable
    balance = account.fields["balance"]
    assert (balance.min, balance.max) == (Decimal(0), Decimal("999.5"))
    assert (balance.default, balance.has_default) == (Decimal("0.10"), True)
    assert (owner.schema, owner.table) == ("public", "owners")
    assert owner.operations == frozenset(OperationKind)
    assert owner.on_foreign_write is ForeignWritePolicy.PARK


def test_the_shipped_mapping_is_valid() -> None:
    settings = load_settings(Path("config/coordinator.toml"), {}, {})
    names = {each.entity.name for each in load_entities(settings)}
    assert names == {"customer", "account", "stock", "order", "cart", "hold"}


def test_a_folder_of_files(tmp_path: Path) -> None:
    for name, store, target in (("b", "ledger", "table"), ("a", "catalog", "collection")):
        key = "id" if store == "ledger" else "_id"
        write(
            tmp_path,
            f"""
            [{name}]
            store = "{store}"
            {target} = "t"
            key = "{key}"
            fields = {{ {key} = {{ type = "string" }} }}
            """,
            f"{name}.toml",
        )
    (tmp_path / "README.md").write_text("no TOML")
    found = load_entities(Configured(tmp_path))
    assert [each.entity.name for each in found] == ["a", "b"]
    assert found[1].place == f"{tmp_path}/b.toml: b"


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ('{ type = "string", default = "x" }', "x"),
        ('{ type = "integer", default = "9007199254740993" }', 9007199254740993),
        ('{ type = "decimal", default = 0.1 }', Decimal("0.1")),
        ('{ type = "decimal", default = 12.500 }', Decimal("12.500")),
        ('{ type = "float", default = 0.1 }', 0.1),
        ('{ type = "boolean", default = false }', False),
        (
            '{ type = "timestamp", default = 2026-01-02T03:04:05+01:00 }',
            datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC),
        ),
        ('{ type = "date", default = 2026-01-02 }', date(2026, 1, 2)),
        ('{ type = "binary", default = "AAE=" }', b"\x00\x01"),
        ('{ type = "json", default = { a = [1, 0.5] } }', '{"a":[1,0.5]}'),
    ],
)
def test_defaults_are_values_of_their_type(tmp_path: Path, declared: str, value: Any) -> None:
    found = read_one(tmp_path, declared)
    assert found.has_default
    assert found.default == value
    assert isinstance(found.default, type(value))
    assert str(found.default) == str(value)


@pytest.mark.parametrize(
    ("of_type", "generator"), [("uuid", "uuid7"), ("timestamp", "now"), ("date", "now")]
)
def test_drawn_defaults(tmp_path: Path, of_type: str, generator: str) -> None:
    found = read_one(tmp_path, f'{{ type = "{of_type}", default = "{generator}" }}')
    assert (found.default_generator, found.has_default) == (generator, False)


def test_now_is_a_word_for_strings(tmp_path: Path) -> None:
    found = read_one(tmp_path, '{ type = "string", default = "now" }')
    assert (found.default, found.default_generator) == ("now", None)


def test_objectid_belongs_to_mongodb(tmp_path: Path) -> None:
    found = read_one(tmp_path, '{ type = "objectid", nullable = true }', "catalog")
    assert found.type is FieldType.OBJECTID
    assert field_mistakes(tmp_path, '{ type = "objectid" }') == [
        ".type: objectid is a type of MongoDB; a PostgreSQL table cannot hold it"
    ]


# --- mistakes -----------------------------------------------------------------------------------


def test_every_mistake_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    configured = write(
        tmp_path,
        """
        [account]
        store = "ledgr"
        tabel = "accounts"
        key = "number"
        version = "v"
        operations = ["update", "erase"]
        on_foreign_write = "ask"
        references = { owner = "customer.email", ghost = "customer.id", v = "customer.id" }
        [account.fields]
        id = { type = "integer", key = true }
        v = { type = "string", default = "1" }
        owner = { type = "integer" }
        balance = { type = "money", min = 0 }
        status = { type = "string", enum = ["a", 2], defautl = "a" }
        since = "timestamp"

        [customer]
        store = "ledger"
        table = "customers"
        collection = "customers"
        key = "id"
        key_default = "uuid7"
        references = { parent = "person.id", twin = "customer.id" }
        [customer.fields]
        id = { type = "integer", default = 1 }
        parent = { type = "integer" }
        twin = { type = "string" }

        [order]
        store = "catalog"
        table = "orders"
        key = "id"
        fields = { id = { type = "string" }, "a.b" = { type = "string" }, "$c" = { } }

        ["no name"]
        store = "catalog"
        collection = "system.users"
        key = "_id"
        fields = {}
        """,
    )
    types = (
        "'string', 'integer', 'decimal', 'float', 'boolean', 'timestamp', 'date', 'uuid', "
        "'binary', 'json' or 'objectid'"
    )
    name_fault = "a field's name in MongoDB must not begin with $, nor hold a dot or a NUL"
    assert [each.removeprefix("entities.toml: ") for each in mistakes_of(configured)] == [
        "account.operations.1: must be 'insert', 'update', 'upsert', 'delete' or 'check'",
        "account.on_foreign_write: must be 'park', 'force' or 'skip'",
        "account.tabel: is not known; do you mean table?",
        "account.store: names no configured store; do you mean ledger?",
        "account.fields.id.key: is not known",
        f"account.fields.balance.type: must be {types}",
        "account.fields.status.defautl: is not known; do you mean default?",
        "account.fields.status.enum.1: the value must be a string",
        'account.fields.since: must be a table, such as { type = "string" }',
        "account.key: its field number is not declared in fields",
        "account.fields.v.type: a version is integer, not string",
        "account.fields.v.default: only the coordinator writes a version",
        "customer.collection: a postgresql store has tables; write table instead",
        "customer.fields.id.default: a key has none; key_default draws keys",
        "customer.key_default: draws uuids, and the key is integer",
        "order.table: a mongodb store has collections; write collection instead",
        "order.collection: is missing",
        f'order.fields."a.b": {name_fault}',
        f'order.fields."$c": {name_fault}',
        'order.fields."$c".type: is missing',
        'order.key: must be "_id": it alone is unique in every collection, and cannot be changed',
        "\"no name\": an entity's name becomes part of a topic's: 1 to 200 letters, digits, dots, "
        "_ and -",
        '"no name".collection: collections system.… belong to MongoDB',
        '"no name".fields: must not be empty',
        '"no name".key: its field _id is not declared in fields',
        "account.references.owner: must name the key of customer, which is id",
        "account.references.ghost: the field ghost is not declared in fields",
        "account.references.v: the version refers to nothing",
        "customer.references.parent: names no declared entity",
        "customer.references.twin: this field is string, but customer.id is integer",
    ]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ('{ type = "integer", min = "a" }', ".min: the value must be a whole number"),
        ('{ type = "integer", min = 5, max = 4 }', ".min: is more than max"),
        ('{ type = "integer", default = 1.5 }', ".default: the value must be a whole number"),
        ('{ type = "integer", min = 5, default = 4 }', ".default: the value is below the field's"),
        ('{ type = "integer", max = 5, enum = [4, 6] }', ".enum.1: the value is above the field's"),
        ('{ type = "string", enum = ["a", "a"] }', ".enum.1: is there already"),
        ('{ type = "string", enum = [] }', ".enum: must not be empty"),
        ('{ type = "string", enum = ["a"], default = "b" }', ".default: the value is none of the"),
        ('{ type = "boolean", min = false }', ".min: is for values with an order"),
        ('{ type = "decimal", min = nan }', ".min: the value must be a decimal number"),
        ('{ type = "float", max = inf }', ".max: the value is beyond the range of a double"),
        ('{ type = "integer", max_length = 3 }', ".max_length: is for strings and binaries"),
        ('{ type = "string", max_length = -1 }', ".max_length: must be at least 0"),
        ('{ type = "integer", pattern = "a" }', ".pattern: is for strings"),
        ('{ type = "string", pattern = "(" }', ".pattern: is no regular expression: "),
        ('{ type = "string", pattern = "(a+)+" }', ".pattern: could take for ever"),
        ('{ type = "uuid", default = "now" }', ".default: the value must be a uuid of 8-4-4-4-12"),
        ('{ type = "timestamp", default = 2026-01-02 }', ".default: the value must be an RFC 3339"),
        ('{ type = "json", nullable = "yes" }', ".nullable: must be true or false"),
        ("{ nullable = true }", ".type: is missing"),
    ],
)
def test_mistakes_of_a_field(tmp_path: Path, declared: str, expected: str) -> None:
    (mistake,) = field_mistakes(tmp_path, declared)
    assert mistake.startswith(expected)


def test_values_are_judged_by_their_store(tmp_path: Path) -> None:
    assert field_mistakes(tmp_path, '{ type = "integer", max = "9223372036854775808" }', "catalog")
    assert read_one(tmp_path, '{ type = "integer", max = "9223372036854775808" }').max == 2**63


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("coordinator.units", "schema coordinator holds the coordinator's own tables"),
        ("pg_catalog.pg_class", "schema pg_catalog belongs to PostgreSQL"),
        ("a.b.c", 'must be "table" or "schema.table"'),
        (".b", 'must be "table" or "schema.table"'),
        ("x" * 64, "a name in PostgreSQL has at most 63 bytes"),
    ],
)
def test_tables_that_cannot_be_mapped(tmp_path: Path, table: str, sentence: str) -> None:
    configured = write(
        tmp_path,
        f"""
        [e]
        store = "ledger"
        table = "{table}"
        key = "id"
        fields = {{ id = {{ type = "integer" }} }}
        """,
    )
    assert mistakes_of(configured) == [f"entities.toml: e.table: {sentence}"]


def test_our_own_collections_cannot_be_mapped(tmp_path: Path) -> None:
    configured = write(
        tmp_path,
        """
        [e]
        store = "catalog"
        collection = "_coordinator_undo"
        key = "_id"
        fields = { _id = { type = "string" } }
        """,
    )
    assert mistakes_of(configured) == [
        "entities.toml: e.collection: collections _coordinator… are the coordinator's own"
    ]


def same_table(name: str, table: str = "t") -> str:
    return f"""
        ["{name}"]
        store = "ledger"
        table = "{table}"
        key = "id"
        fields = {{ id = {{ type = "integer" }} }}
        """


def test_one_table_is_one_entity(tmp_path: Path) -> None:
    configured = write(tmp_path, same_table("a") + same_table("b", "public.t"))
    assert mistakes_of(configured) == ["entities.toml: b.table: is mapped as a already"]


def test_an_entity_is_declared_once_over_all_files(tmp_path: Path) -> None:
    write(tmp_path, same_table("a"), "one.toml")
    write(tmp_path, same_table("a", "u"), "two.toml")
    with pytest.raises(ConfigurationInvalid) as caught:
        load_entities(Configured(tmp_path))
    assert caught.value.mistakes == (
        f"{tmp_path}/two.toml: a: is declared in {tmp_path}/one.toml as well",
    )


def test_topics_that_kafka_or_we_would_mix_up(tmp_path: Path) -> None:
    configured = write(
        tmp_path, same_table("a.b") + same_table("a_b", "u") + same_table("units", "v")
    )
    configured = Configured(configured.entities, Topics(changes="coordinator.{entity}"))
    assert mistakes_of(configured) == [
        "entities.toml: a_b: Kafka takes . and _ for the same: it clashes with a.b",
        "entities.toml: units: its topic coordinator.units is topics.units as well",
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert mistakes_of(Configured(tmp_path / "missing.toml")) == [
        "missing.toml: cannot be read: No such file or directory"
    ]
    assert mistakes_of(write(tmp_path, "")) == ["entities.toml: declares no entity"]
    assert mistakes_of(write(tmp_path, "[a\n"))[0].startswith("entities.toml: is not TOML: ")
    assert mistakes_of(write(tmp_path, "a = 3\n")) == ["entities.toml: a: must be a table"]
    (tmp_path / "folder").mkdir()
    assert mistakes_of(Configured(tmp_path / "folder")) == [
        "folder: the folder holds no .toml file"
    ]
