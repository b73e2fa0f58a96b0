"""Domain values as PostgreSQL's texts, statements, and how a batch is spread over them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from coordinator.domain.decide import decide_branch
from coordinator.domain.entity import Column, FieldType
from coordinator.domain.errors import Problem
from coordinator.domain.operation import Unit
from coordinator.domain.values import Alien, JsonText
from coordinator.participants.postgresql.mapped_table import mapped_table
from coordinator.participants.postgresql.statements import (
    SHAPES_MAX,
    RowLock,
    Table,
    quote_identifier,
    statements_of,
)
from coordinator.participants.postgresql.text_values import reader, writer
from coordinator.participants.postgresql.waves import Step, spread
from tests.units import delete, entity, insert, mapping, unit, update

VALUES: list[tuple[FieldType, Any, str]] = [
    (FieldType.STRING, "", ""),
    (FieldType.STRING, "NULL", "NULL"),
    (FieldType.INTEGER, -(2**63), "-9223372036854775808"),
    (FieldType.DECIMAL, Decimal("-0.120"), "-0.120"),
    (FieldType.FLOAT, 0.1, "0.1"),
    (FieldType.FLOAT, float("inf"), "inf"),
    (FieldType.BOOLEAN, True, "true"),
    (FieldType.BOOLEAN, False, "false"),
    (
        FieldType.TIMESTAMP,
        datetime(2026, 1, 2, 3, 4, 5, 120000, tzinfo=UTC),
        "2026-01-02 03:04:05.120000+00",
    ),
    (FieldType.DATE, date(1, 1, 1), "0001-01-01"),
    (FieldType.UUID, UUID(int=255), "00000000-0000-0000-0000-0000000000ff"),
    (FieldType.BINARY, b"\x00\xff", "\\x00ff"),
    (FieldType.BINARY, b"", "\\x"),
    (FieldType.JSON, JsonText('{"b": 1.0}'), '{"b": 1.0}'),
]


@pytest.mark.parametrize(("field_type", "value", "text"), VALUES)
def test_values_and_texts_are_each_others_inverse(
    field_type: FieldType, value: Any, text: str
) -> None:
    assert writer(field_type)(value) == text
    back = reader(field_type)(text)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("field_type", "text"),
    [
        (FieldType.TIMESTAMP, "infinity"),
        (FieldType.TIMESTAMP, "0044-03-15 12:00:00+00 BC"),
        (FieldType.TIMESTAMP, "294276-12-31 23:59:59+00"),
        (FieldType.TIMESTAMP, "2026-01-02 03:04:05"),
        (FieldType.DATE, "-infinity"),
        (FieldType.DATE, "10000-01-01"),
        (FieldType.DECIMAL, "NaN"),
        (FieldType.DECIMAL, "Infinity"),
        (FieldType.INTEGER, "1.5"),
        (FieldType.BOOLEAN, "maybe"),
        (FieldType.UUID, "x"),
        (FieldType.BINARY, "\\xzz"),
    ],
)
def test_what_has_no_domain_value_is_an_alien(field_type: FieldType, text: str) -> None:
    """F33: shown as it is, compared with nothing."""
    assert reader(field_type)(text) == Alien(text)


def test_a_shortened_fraction_of_a_second_is_read() -> None:
    """PostgreSQL drops trailing zeros."""
    read = reader(FieldType.TIMESTAMP)("2026-01-02 03:04:05.12+00")
    assert read == datetime(2026, 1, 2, 3, 4, 5, 120000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "quoted"),
    [("plain", '"plain"'), ('we"ird', '"we""ird"'), ('"; DROP --', '"""; DROP --"')],
)
def test_identifiers_are_quoted(name: str, quoted: str) -> None:
    """I10."""
    assert quote_identifier(name) == quoted


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_what_is_no_identifier_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name in SQL"):
        quote_identifier(name)


TABLE = Table(
    "public", "t", "id", (Column("id", "bigint"), Column("a", "text"), Column("b", "numeric(3,1)"))
)


def test_statements_hold_no_values_and_are_made_once() -> None:
    statements = statements_of(TABLE)
    assert statements is statements_of(Table("public", "t", "id", TABLE.columns))
    assert statements.update(("b",)) is statements.update(("b",))
    assert statements.update(("b",)) == (
        'UPDATE "public"."t" AS t SET "b" = v.p2::numeric(3,1)'
        " FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS v(p1, p2, n)"
        ' WHERE t."id" = v.p1::bigint RETURNING v.n, t."id"::text, t."a"::text, t."b"::text'
    )
    assert statements.lock(RowLock.NO_KEY_UPDATE).endswith("FOR NO KEY UPDATE OF t SKIP LOCKED")


def test_statements_remember_a_bounded_number_of_shapes() -> None:
    """I12: which columns are written together is the clients' choice."""
    columns = tuple(Column(f"c{at}", "int") for at in range(SHAPES_MAX + 10))
    statements = statements_of(Table("public", "wide", "c0", columns))
    for column in columns:
        statements.update((column.name,))
    assert len(statements._shapes) <= SHAPES_MAX


# --- waves --------------------------------------------------------------------------------------

MAPPING = mapping(
    entity("t", {"id": FieldType.INTEGER, "a": FieldType.STRING}, columns=[
        Column("id", "bigint"), Column("a", "text"), Column("version", "integer")
    ]),
    entity("s", {"id": FieldType.INTEGER, "a": FieldType.STRING}, columns=[
        Column("id", "bigint"), Column("a", "text"), Column("version", "integer")
    ]),
)  # fmt: skip
ROW = {"id": 1, "a": "x", "version": 1}


def levels_of(*units: Unit) -> list[list[tuple[str, str, str]]]:
    levels: list[list[Step]] = []
    for each in units:
        images = {
            (operation.entity, operation.key_text): None if operation.kind == "insert" else ROW
            for operation in reversed(each.plan.operations)
        }
        decided = decide_branch(each, "ledger", images)
        assert not isinstance(decided, Problem), decided
        steps = [
            Step(each, mapped_table(MAPPING, write.operation.entity), write, False)
            for write in decided
        ]
        spread(levels, steps)
    return [[(*step.at, step.write.effect.value) for step in level] for level in levels]


def test_operations_that_can_share_a_statement_share_a_level() -> None:
    assert levels_of(
        unit(MAPPING, update("t", 1, a="y"), update("t", 2, a="y")),
        unit(MAPPING, update("t", 3, a="y")),
    ) == [[("t", "1", "u"), ("t", "2", "u"), ("t", "3", "u")]]


def test_a_key_is_written_once_per_level() -> None:
    """F14."""
    assert levels_of(unit(MAPPING, update("t", 1, a="y"), update("t", 1, a="z"))) == [
        [("t", "1", "u")],
        [("t", "1", "u")],
    ]


def test_the_plans_order_is_kept_between_tables() -> None:
    """F13."""
    assert levels_of(
        unit(MAPPING, insert("t", 1), insert("s", 1), insert("t", 2)),
        unit(MAPPING, delete("s", 3), delete("t", 3)),
    ) == [
        [("t", "1", "c"), ("s", "3", "d")],
        [("s", "1", "c"), ("t", "3", "d")],
        [("t", "2", "c")],
    ]
