"""What a column will show is told for types where it can be known, and for no others."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from coordinator.domain.entity import Column, FieldType
from coordinator.participants.postgresql.canonical import canonical_of
from tests.units import entity


def shown(of_type: FieldType, column: str, value: Any) -> tuple[str, Any] | None:
    columns = (Column("id", "bigint"), Column("a", column), Column("version", "integer"))
    made = entity("thing", {"id": FieldType.INTEGER, "a": of_type}, columns=columns)
    known = canonical_of(made).get("a")
    return None if known is None else known(value)


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("numeric(12,2)", "7", "7.00"),
        ("numeric(12,2)", "7.10", "7.10"),
        ("numeric(12,2)", "1E+3", "1000.00"),
        ("numeric(12,0)", "7", "7"),
        ("numeric", "1E+3", "1000"),
        ("numeric", "-0.0010", "-0.0010"),
        ("numeric", "1E-9", "0.000000001"),
    ],
)
def test_a_decimal_has_the_scale_of_its_column(column: str, value: str, text: str) -> None:
    found = shown(FieldType.DECIMAL, column, Decimal(value))
    assert found is not None
    assert (found[0], str(found[1])) == (text, text if "00000" not in text else str(Decimal(text)))


def test_a_text_that_depends_on_more_than_the_value_is_not_told() -> None:
    assert shown(FieldType.STRING, "character(4)", "x") is None
    assert shown(FieldType.FLOAT, "real", 0.5) is None
    assert shown(FieldType.JSON, "jsonb", "{}") is None
    assert shown(FieldType.TIMESTAMP, "timestamp without time zone", None) is None
    assert shown(FieldType.STRING, "text", "x") == ("x", "x")


def test_nothing_is_told_of_a_table_whose_images_hold_a_generated_column() -> None:
    columns = (Column("id", "bigint"), Column("a", "text"), Column("b", "text", generated=True))
    fields = {"id": FieldType.INTEGER, "a": FieldType.STRING, "b": FieldType.STRING}
    assert canonical_of(entity("thing", fields, version=None, columns=columns)) == {}
    fields.pop("b")
    assert "a" in canonical_of(entity("thing", fields, version=None, columns=columns))
