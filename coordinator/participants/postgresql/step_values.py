"""What the steps of a batch send to the store, column by column, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.domain.decide import Effect, Image, ImageKey
from coordinator.domain.publishing import Done
from coordinator.participants.postgresql.mapped_table import MappedTable
from coordinator.participants.postgresql.waves import Step


def columnwise(
    table: MappedTable, columns: tuple[str, ...], steps: Sequence[Step]
) -> list[list[str | None]]:
    """Give one array of texts per column, a text per step."""
    parameters: list[list[str | None]] = []
    for name in columns:
        write = table.write[name]
        parameters.append(
            [
                None if (value := step.write.assigned.get(name)) is None else write(value)
                for step in steps
            ]
        )
    return parameters


def done_of(steps: Sequence[Step]) -> tuple[Done, ...]:
    """Give what a unit's steps did, as it will be announced."""
    if len(steps) == 1:
        step = steps[0]
        return (_one_done(step, step.write.before, {}),)
    shown: dict[ImageKey, bytes | None] = {}
    return tuple([_one_done(step, step.write.before, shown) for step in steps])


def _one_done(step: Step, before: Image | None, shown: dict[ImageKey, bytes | None]) -> Done:
    table, write = step.table, step.write
    if write.effect is Effect.NOTHING:
        return Done(write.position, write.effect, None, None, table.version(step.image))
    at = step.at
    before_json = shown[at] if at in shown else table.show(before)
    after_json = shown[at] = table.show(step.image)
    return Done(write.position, write.effect, before_json, after_json, table.version(step.image))
