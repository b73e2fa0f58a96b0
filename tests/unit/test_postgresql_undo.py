"""What undo decides (F25, F27–F29), as plain functions over rows of texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.domain.decide import Effect
from coordinator.domain.entity import Column, FieldType, ForeignWritePolicy
from coordinator.domain.errors import ErrorCode, Problem
from coordinator.participants.postgresql.statements import Table, statements_of
from coordinator.participants.postgresql.undo import RowChange, decide_undo
from coordinator.participants.postgresql.undo_record import KeyUndo, Row, UndoStep, UndoTable
from tests.units import entity, mapping, unit, update

COLUMNS = (
    Column("id", "bigint"),
    Column("a", "text"),
    Column("n", "numeric"),
    Column("extra", "json"),
    Column("twice", "numeric", generated=True),
    Column("version", "integer"),
)
STATEMENTS = statements_of(Table("public", "t", "id", COLUMNS))
MAPPING = mapping(
    entity("t", {"id": FieldType.INTEGER, "a": FieldType.STRING}, columns=COLUMNS),
)
UNIT = unit(MAPPING, update("t", 1, a="ours"))

BEFORE: Row = ("1", "old", "10", "{}", "20", "7")
AFTER: Row = ("1", "ours", "10", "{}", "20", "8")


def step(before: Row | None, after: Row | None, **parts: Any) -> UndoStep:
    return UndoStep(
        position=0,
        before=before,
        after=after,
        written=parts.get("written", ("a",)),
        deltas=parts.get("deltas", {}),
    )


def key_of(one: UndoStep, policy: ForeignWritePolicy = ForeignWritePolicy.PARK) -> KeyUndo:
    return KeyUndo(UndoTable("t", STATEMENTS, "version", policy), "1", 1, (one,))


def changed(row: Row, **columns: str | None) -> Row:
    return tuple(columns.get(name, text) for name, text in zip(STATEMENTS.names, row, strict=True))


def undo(key: KeyUndo, row: Row | None) -> dict[str, Any] | str | None:
    """What becomes of the row: columns that change, the word "delete", nothing, or the code."""
    decided = decide_undo(UNIT, [key], {(STATEMENTS, "1"): row})
    if isinstance(decided, Problem):
        return decided.code.value
    if not decided:
        return None
    (change,) = decided
    if change.effect is Effect.DELETED:
        return "delete"
    return dict(zip(change.columns, change.values, strict=True))


STRANGERS: dict[str, tuple[UndoStep, Row | None]] = {
    "field changed": (step(BEFORE, AFTER), changed(AFTER, a="theirs")),
    "field nulled": (step(BEFORE, AFTER), changed(AFTER, a=None)),
    "version moved": (step(BEFORE, AFTER), changed(AFTER, version="9")),
    "gone": (step(BEFORE, AFTER), None),
    "there again": (step(BEFORE, None), changed(BEFORE, version="1")),
    "insert touched": (step(None, AFTER), changed(AFTER, extra="[]")),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_parks_skips_or_is_forced(name: str) -> None:
    """F28, F29, I6."""
    one, row = STRANGERS[name]
    assert undo(key_of(one), row) == ErrorCode.FOREIGN_WRITE.value
    assert undo(key_of(one, ForeignWritePolicy.SKIP), row) is None
    forced = undo(key_of(one, ForeignWritePolicy.FORCE), row)
    expected = {
        "field changed": {"a": "old", "version": "9"},
        "field nulled": {"a": "old", "version": "9"},
        "version moved": {"a": "old", "version": "10"},
        "gone": {"a": "old", "n": "10", "extra": "{}", "version": "9"},
        "there again": {"version": "2"},
        "insert touched": "delete",
    }
    assert forced == expected[name]


def test_without_strangers_the_very_row_comes_back() -> None:
    """F27, F21: no column is written that does not differ, generated ones never."""
    assert undo(key_of(step(BEFORE, AFTER)), AFTER) == {"a": "old", "version": "7"}
    assert undo(key_of(step(None, AFTER)), AFTER) == "delete"
    assert undo(key_of(step(BEFORE, None)), None) == {
        "a": "old", "n": "10", "extra": "{}", "version": "7"
    }  # fmt: skip
    assert undo(key_of(step(None, AFTER)), None) is None


@pytest.mark.parametrize(
    ("of_type", "delta", "now", "then"),
    [
        (FieldType.DECIMAL, "-2.50", "8.00", "10.50"),
        (FieldType.INTEGER, "9007199254740993", "9007199254740995", "2"),
        (FieldType.FLOAT, "0.5", "1.25", "0.75"),
        (FieldType.DECIMAL, "1", None, None),
        (FieldType.DECIMAL, "1", "NaN", "NaN"),
    ],
)
def test_increments_are_undone_by_the_inverse_delta(
    of_type: FieldType, delta: str, now: str | None, then: str | None
) -> None:
    """F28: never compared, so the stranger's increment stays."""
    one = step(BEFORE, AFTER, written=(), deltas={"n": (of_type, delta)})
    result = undo(key_of(one), changed(AFTER, n=now))
    assert isinstance(result, dict)
    assert result.get("n", now) == then


def test_an_increment_that_nobody_joined_gets_its_very_text_back() -> None:
    """F27: 0.1 + 0.2 - 0.2 is not 0.1 in floats."""
    before, after = changed(BEFORE, n="0.1"), changed(AFTER, n="0.30000000000000004")
    one = step(before, after, written=(), deltas={"n": (FieldType.FLOAT, "0.2")})
    assert undo(key_of(one), changed(after, extra="[]")) == {"a": "old", "n": "0.1", "version": "7"}


def test_what_a_trigger_wrote_comes_back_unless_somebody_changed_it() -> None:
    """F27, F28: `extra` was no field of the operation."""
    one = step(BEFORE, changed(AFTER, extra="1"))
    assert undo(key_of(one), changed(AFTER, extra="1", n="11")) == {
        "a": "old", "extra": "{}", "version": "7"
    }  # fmt: skip
    assert undo(key_of(one), changed(AFTER, extra="2")) == {"a": "old", "version": "7"}


def test_park_on_one_key_leaves_all_keys() -> None:
    """F29: the branch is left untouched as a whole."""
    bad = replace(key_of(step(BEFORE, AFTER)), key="2")
    rows: dict[Any, Row | None] = {
        (STATEMENTS, "1"): AFTER,
        (STATEMENTS, "2"): changed(AFTER, a="theirs"),
    }
    for keys in ([key_of(step(BEFORE, AFTER)), bad], [bad, key_of(step(BEFORE, AFTER))]):
        assert isinstance(decide_undo(UNIT, keys, rows), Problem)


texts = st.none() | st.sampled_from(["", "0", "1", "x"])
rows = st.tuples(st.just("1"), texts, texts, texts, st.just("g"), st.sampled_from(["1", "2"]))


@given(before=rows | st.none(), after=rows | st.none(), policy=st.sampled_from(ForeignWritePolicy))
def test_undo_of_an_untouched_row_is_exact_under_every_policy(
    before: Row | None, after: Row | None, policy: ForeignWritePolicy
) -> None:
    """F27."""
    if before is None and after is None:
        return  # nothing is recorded of it
    decided = decide_undo(UNIT, [key_of(step(before, after), policy)], {(STATEMENTS, "1"): after})
    assert not isinstance(decided, Problem)
    row = after
    for change in decided:
        row = _written(row, change)
    assert row == before


def _written(row: Row | None, change: RowChange) -> Row | None:
    if change.effect is Effect.DELETED:
        return None
    known = {"id": change.key, "twice": "g"} if row is None else {}
    base: Row = row if row is not None else tuple(None for _ in STATEMENTS.names)
    return changed(base, **known, **dict(zip(change.columns, change.values, strict=True)))
