"""Running a batch's statements inside a transaction, and naming the unit whose write is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from coordinator.domain.errors import BatchRefused, StoreBusy, StoreError, clipped
from coordinator.domain.operation import Unit
from coordinator.participants.mongodb.errors import of_reply, violation
from coordinator.participants.mongodb.transactions import Transaction
from coordinator.participants.mongodb.undo import operation_problem
from coordinator.participants.mongodb.writes import Statement


class WriteRefused(BatchRefused):
    """A write of a batch was refused, and it is known whose, if it was written in order."""


def write_batch(
    transaction: Transaction, store: str, statements: Iterable[Statement], units: Sequence[Unit]
) -> None:
    """Let the statements run; `WriteRefused` is raised for the first write that is refused."""
    for statement in statements:
        took = partial(_check, store, statement, units)
        transaction.later(statement.command(), took)


def _check(
    store: str, statement: Statement, units: Sequence[Unit], reply: Mapping[str, Any]
) -> None:
    errors = reply.get("writeErrors")
    if errors:
        raise _refusal(store, reply, statement, errors[0], units)
    if reply["n"] != len(statement.writes):
        raise StoreBusy(store, "a document has gone since it was read")


def _refusal(
    store: str,
    reply: Mapping[str, Any],
    statement: Statement,
    error: Mapping[str, Any],
    units: Sequence[Unit],
) -> StoreError:
    general = of_reply(store, reply)
    if not isinstance(general, BatchRefused):
        return general
    write = statement.writes[error["index"]]
    unit = next(each for each in units if each.seq == write.seq)
    operation = unit.plan.operations[write.position]
    code, what = violation(error, statement.collection) or (
        general.problem.code,
        f"the store refused it with error {error.get('code')}",
    )
    problem = operation_problem(
        unit,
        write.position,
        code,
        f"{operation.kind.value} of {operation.entity} {clipped(operation.key_text)}: {what}.",
    )
    return WriteRefused(store, problem, {unit.seq: problem})
