"""Reading ``expect``: from the submission to conditions, or all that is wrong with it (F22)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from coordinator.domain.entity_reading import EntityReader, Operands
from coordinator.domain.errors import clipped
from coordinator.domain.operation import Comparison, Condition
from coordinator.domain.storable import Misfit

Report = Callable[[str, str], None]
"""Takes (path below the operation, sentence)."""

Withhold = Callable[[str, str], None]
"""Takes (path below the operation, the name of a field that is not granted)."""

_COMPARISONS: Final = {comparison.value: comparison for comparison in Comparison}
_ON_JSON: Final = frozenset({Comparison.EQ, Comparison.NE})
_ON_ALL: Final = frozenset({Comparison.EQ, Comparison.NE, Comparison.IN})


def read_expect(
    reader: EntityReader, given: Any, report: Report, withhold: Withhold
) -> tuple[Condition, ...]:
    """Read all conditions; what is wrong goes to ``report``, and its condition is left out.

    So is one on a field that the sender may not name, which goes to ``withhold``.
    """
    if type(given) is not dict or not given:
        report("expect", "expect must be an object that names at least one field.")
        return ()
    reading = _Expect(report)
    for name, wanted in given.items():
        operands = reader.operands.get(name)
        path = f"expect.{name}"
        if operands is None and reader.withholds(name):
            withhold(path, name)
        elif operands is None:
            report(path, f"The entity {reader.entity.name} has no field {clipped(name)}.")
        elif type(wanted) is dict:
            reading.read_operators(name, operands, wanted)
        elif operands.is_json:
            report(path, f"The json field {name} takes eq or ne, not a bare value.")
        else:
            reading.read_one(name, Comparison.EQ, operands, wanted, path)
    return tuple(reading.conditions)


class _Expect:
    """The conditions of one operation, as far as they are read."""

    __slots__ = ("_report", "conditions")

    def __init__(self, report: Report) -> None:
        self._report = report
        self.conditions: list[Condition] = []

    def read_operators(self, name: str, operands: Operands, wanted: dict[str, Any]) -> None:
        if not wanted:
            self._report(f"expect.{name}", f"What is expected of {name} is empty.")
        for operator, operand in wanted.items():
            path = f"expect.{name}.{operator}"
            comparison = _COMPARISONS.get(operator)
            if comparison is None:
                known = ", ".join(_COMPARISONS)
                self._report(path, f"{clipped(operator)} is no operator; there are {known}.")
            elif (objection := _objection(name, operands, comparison, operand)) is not None:
                self._report(path, objection)
            elif comparison is Comparison.IN:
                self._read_choices(name, operands, operand, path)
            else:
                self.read_one(name, comparison, operands, operand, path)

    def read_one(
        self, name: str, comparison: Comparison, operands: Operands, operand: Any, path: str
    ) -> None:
        try:
            self.conditions.append(Condition(name, comparison, operands.read(operand)))
        except Misfit as misfit:
            self._report(path, f"The value expected of {name} {misfit.sentence}.")

    def _read_choices(self, name: str, operands: Operands, given: Any, path: str) -> None:
        if type(given) is not list or not given:
            self._report(path, "in takes a list with at least one value.")
            return
        choices: list[Any] = []
        for at, each in enumerate(given):
            try:
                choices.append(operands.read(each))
            except Misfit as misfit:
                self._report(f"{path}.{at}", f"The value expected of {name} {misfit.sentence}.")
        self.conditions.append(Condition(name, Comparison.IN, tuple(choices)))


def _objection(name: str, operands: Operands, comparison: Comparison, operand: Any) -> str | None:
    """Say why the operator cannot be used on this field with this operand, if so."""
    if operands.is_json and comparison not in _ON_JSON:
        return f"The json field {name} takes eq and ne only."
    if comparison in _ON_ALL:
        return None
    if not operands.is_ordered:
        return f"The values of {name} have no order; it takes eq, ne and in."
    return f"{comparison.value} cannot compare with null." if operand is None else None
