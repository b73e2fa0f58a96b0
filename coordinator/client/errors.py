"""What can go wrong at the client's side. A unit that is refused is an outcome and not an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordinator.client.outcome import Outcome


class ClientError(Exception):
    """The root of the client's errors."""


class UnitNotSendable(ClientError, ValueError):
    """The unit would become a dead letter, for which there is no outcome; nothing was sent (F1)."""


class KafkaUnreachable(ClientError):
    """The brokers cannot be reached, or refuse us; what the call should send was not sent."""


class PlaintextRefused(ClientError, ValueError):
    """What is submitted would leave this machine unprotected, and nobody said that it may."""

    def __init__(self, servers: str) -> None:
        super().__init__(
            f"{servers} is not on this machine: give security=KafkaSecurity('SASL_SSL', …) or "
            "KafkaSecurity('SSL', …), or say allow_plaintext=True."
        )


class TopicMissing(ClientError):
    """A topic does not exist. A daemon makes its topics when it starts."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"There is no topic {topic}; has a coordinator with this name ever run?")
        self.topic = topic


class SubmissionUnknown(ClientError):
    """Kafka did not acknowledge in time: the unit may be in the topic or not.

    Submitting the very same unit again is safe: its id makes it happen once (F4).
    """


class TooManyPending(ClientError):
    """More tickets are held than ``pending_max``: await outcomes, and let tickets go."""


class OutcomeLate(ClientError, TimeoutError):
    """No final outcome came in time; ``parked`` is the parked one, if that has come."""

    def __init__(self, unit: str, parked: Outcome | None) -> None:
        what = "is parked and waits for a person" if parked else "has no outcome yet"
        super().__init__(f"Unit {unit} {what}.")
        self.unit = unit
        self.parked = parked


class ClientClosed(ClientError):
    """The client was closed while, or before, this was awaited."""
