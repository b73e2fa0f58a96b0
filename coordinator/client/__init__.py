"""What a service imports to submit units of work and to await their outcomes.

::

    async with CoordinatorClient("127.0.0.1:9092") as client:
        ticket = await client.submit(
            unit(
                update("account", 42, increment={"balance": "-12.50"}),
                insert("order", "o-77", {"customer": 5, "total": "12.50"}),
            ),
            key="o-77",
        )
        outcome = await client.outcome(ticket)

Owns the client's side of the contract: the digest, the matching of outcomes, typed results. It
needs aiokafka and the domain's JSON, and nothing of the daemon.
"""

from coordinator.client.client import CoordinatorClient
from coordinator.client.errors import (
    ClientClosed,
    ClientError,
    KafkaUnreachable,
    OutcomeLate,
    PlaintextRefused,
    SubmissionUnknown,
    TooManyPending,
    TopicMissing,
    UnitNotSendable,
)
from coordinator.client.operations import check, delete, insert, unit, update, upsert
from coordinator.client.outcome import Outcome, OutcomeError
from coordinator.client.tickets import Ticket
from coordinator.kafka_access import KafkaSecurity
from coordinator.signatures import KeyUnusable, Signer, load_private_key

__all__ = [
    "ClientClosed",
    "ClientError",
    "CoordinatorClient",
    "KafkaSecurity",
    "KafkaUnreachable",
    "KeyUnusable",
    "Outcome",
    "OutcomeError",
    "OutcomeLate",
    "PlaintextRefused",
    "Signer",
    "SubmissionUnknown",
    "Ticket",
    "TooManyPending",
    "TopicMissing",
    "UnitNotSendable",
    "check",
    "delete",
    "insert",
    "load_private_key",
    "unit",
    "update",
    "upsert",
]
