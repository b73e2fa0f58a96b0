"""The client: submit units, await their outcomes, many at once over two connections.

One idempotent producer sends; units are handed to it without awaiting each acknowledgement. One
reader watches the outcomes topic and gives each outcome to the ticket that waits for it. The
reader stands at the topic's end before anything is sent, so no outcome can be missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from time import monotonic, time
from types import TracebackType
from typing import Any, Final, Self, overload

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from coordinator.client.encoding import EncodedUnit, encode_cancel, encode_unit
from coordinator.client.errors import (
    ClientClosed,
    KafkaUnreachable,
    OutcomeLate,
    PlaintextRefused,
    SubmissionUnknown,
    TopicMissing,
    UnitNotSendable,
)
from coordinator.client.outcome import Outcome
from coordinator.client.reader import OutcomesReader
from coordinator.client.tickets import Answer, Register, Ticket
from coordinator.kafka_access import KafkaSecurity, plaintext_leaves, why_unreachable
from coordinator.signatures import Signer

UnitInput = Mapping[str, Any] | str | bytes
"""A unit as a mapping, or as JSON text that is sent as it is."""
Key = str | bytes | None

_STOP_SECONDS: Final = 5.0
_METADATA_AGE_MS: Final = 30_000


class CoordinatorClient:
    """An async context manager. Safe for many tasks of one event loop at once."""

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        units_topic: str = "coordinator.units",
        outcomes_topic: str = "coordinator.outcomes",
        unit_bytes_max: int = 262_144,
        pending_max: int = 100_000,
        acknowledge_timeout_seconds: float = 30.0,
        topic_timeout_seconds: float = 10.0,
        signer: Signer | None = None,
        security: KafkaSecurity | None = None,
        allow_plaintext: bool = False,
        kafka_options: Mapping[str, Any] | None = None,
    ) -> None:
        """``pending_max`` bounds the unit ids whose tickets are held at once.

        ``unit_bytes_max`` is the daemon's ``units.max_bytes``. With a ``signer`` every unit and
        every cancel is signed when it is sent. ``security`` says how brokers are spoken to;
        ``kafka_options`` go to aiokafka as they are (``client_id``), and win. Brokers beyond this
        machine need TLS, or ``allow_plaintext``: else `PlaintextRefused`.
        """
        self._units_topic = units_topic
        self._outcomes_topic = outcomes_topic
        self._unit_bytes_max = unit_bytes_max
        self._acknowledge_timeout_seconds = acknowledge_timeout_seconds
        self._topic_timeout_seconds = topic_timeout_seconds
        self._signer = signer
        options = {**(security or KafkaSecurity()).options(), **(kafka_options or {})}
        if not allow_plaintext and plaintext_leaves(options, bootstrap_servers.split(",")):
            raise PlaintextRefused(bootstrap_servers)
        self._kafka_options = {"bootstrap_servers": bootstrap_servers, **options}
        self._register = Register(pending_max)
        self._producer: AIOKafkaProducer | None = None
        self._reader: OutcomesReader | None = None

    async def __aenter__(self) -> Self:
        """Connect. Raises `KafkaUnreachable`, `TopicMissing`."""
        self._producer = AIOKafkaProducer(
            **self._kafka_options,
            enable_idempotence=True,
            metadata_max_age_ms=_METADATA_AGE_MS,
            max_request_size=self._unit_bytes_max + 65_536,
        )
        self._reader = OutcomesReader(
            self._outcomes_topic,
            lambda: self._partitions(self._outcomes_topic),
            self._register.deliver,
            self._kafka_options,
        )
        try:
            await self._producer.start()
            await self._partitions(self._units_topic)
            await self._reader.start()
        except (KafkaError, OSError) as error:
            await self.close()
            servers = self._kafka_options["bootstrap_servers"]
            reason = await why_unreachable(servers, self._kafka_options) or repr(error)
            raise KafkaUnreachable(f"Kafka cannot be reached: {reason}") from error
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Let the connections go, in bounded time; tickets that are awaited fail."""
        self._register.fail(ClientClosed("The client is closed."))
        producer, self._producer = self._producer, None
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
        if producer is not None:
            with suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(producer.stop(), _STOP_SECONDS)

    @overload
    async def submit(
        self,
        units: UnitInput,
        *,
        key: Key | Callable[[UnitInput], Key] = None,
        reply_to: str | None = None,
        traceparent: str | None = None,
    ) -> Ticket: ...

    @overload
    async def submit(
        self,
        units: Sequence[Mapping[str, Any]] | Sequence[bytes],
        *,
        key: Key | Callable[[UnitInput], Key] = None,
        reply_to: str | None = None,
        traceparent: str | None = None,
    ) -> list[Ticket]: ...

    async def submit(
        self,
        units: UnitInput | Sequence[Mapping[str, Any]] | Sequence[bytes],
        *,
        key: Key | Callable[[UnitInput], Key] = None,
        reply_to: str | None = None,
        traceparent: str | None = None,
    ) -> Ticket | list[Ticket]:
        """Put a unit, or many in their order, on the topic; return when Kafka has them.

        ``key`` is the ordering key, for all of them or per unit. Units with the same key are
        admitted in their order. Nothing is sent when one is not sendable (`UnitNotSendable`,
        `TooManyPending`). Raises `SubmissionUnknown` when it is not known whether all arrived;
        then submit the same again.
        """
        alone = isinstance(units, Mapping | str | bytes)
        many: Sequence[UnitInput] = [units] if alone else units  # type: ignore[list-item, assignment]
        encoded = [encode_unit(unit, self._unit_bytes_max) for unit in many]
        tickets = [self._register.issue(unit.id, unit.digest) for unit in encoded]
        headers = _headers(reply_to, traceparent)
        keys = [_key_bytes(key(unit) if callable(key) else key) for unit in many]
        messages = zip(keys, (unit.value for unit in encoded), strict=True)
        await self._send(messages, headers, [ticket.answer for ticket in tickets])
        return tickets[0] if alone else tickets

    async def cancel(self, unit_id: str, *, key: Key = None, reason: str | None = None) -> None:
        """Ask for the end of a unit that is not committed yet; ``key`` as it was submitted (F8).

        The answer is the unit's outcome: `rejected`, `compensated`, or `committed` if too late.
        """
        value = encode_cancel(unit_id, reason)
        await self._send([(_key_bytes(key), value)], [], [None])

    async def outcome(
        self, ticket: Ticket, timeout_seconds: float = 60.0, *, accept_parked: bool = False
    ) -> Outcome:
        """Wait for the final outcome; with ``accept_parked``, for the parked one as well.

        Raises `OutcomeLate` (the ticket stays good), `ClientClosed`.
        """
        answer = ticket.answer
        if not answer.final.done():
            awaited = {answer.final, answer.parked} if accept_parked else {answer.final}
            await asyncio.wait(
                awaited, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        if answer.final.done():
            return answer.final.result()
        parked = answer.parked.result() if answer.parked.done() else None
        if accept_parked and parked is not None:
            return parked
        raise OutcomeLate(ticket.unit, parked)

    async def outcomes(
        self,
        tickets: Iterable[Ticket],
        timeout_seconds: float = 60.0,
        *,
        accept_parked: bool = False,
    ) -> list[Outcome]:
        """Wait for many, in their order, within one time limit; raises as `outcome`."""
        ends_at = monotonic() + timeout_seconds
        return [
            await self.outcome(ticket, max(0.0, ends_at - monotonic()), accept_parked=accept_parked)
            for ticket in tickets
        ]

    async def _send(
        self,
        messages: Iterable[tuple[bytes | None, bytes]],
        headers: list[tuple[str, bytes]],
        answers: Sequence[Answer | None],
    ) -> None:
        producer = self._producer
        if producer is None:
            raise ClientClosed("The client is not open.")
        sent: list[asyncio.Future[object]] = []
        try:
            async with asyncio.timeout(self._acknowledge_timeout_seconds):
                for (key, value), answer in zip(messages, answers, strict=True):
                    all_headers = self._signed(key, headers, value)
                    future = await producer.send(
                        self._units_topic, value, key=key, headers=all_headers
                    )
                    sent.append(future)
                    if answer is not None:
                        answer.sent(future)
                await asyncio.gather(*sent)
        except MessageSizeTooLargeError as error:
            raise UnitNotSendable("A unit is larger than a Kafka message may be.") from error
        except (KafkaError, TimeoutError) as error:
            # An idempotent producer goes on trying; let nobody be told of its late failures.
            for future in sent:
                future.add_done_callback(_forget)
            raise SubmissionUnknown(
                "Kafka did not acknowledge every unit; submitting the same again is safe."
            ) from error

    def _signed(
        self, key: bytes | None, headers: list[tuple[str, bytes]], value: bytes
    ) -> list[tuple[str, bytes]]:
        if self._signer is None:
            return headers
        return [*headers, self._signer.header(key, headers, value, time())]

    async def _partitions(self, topic: str) -> set[int]:
        producer = self._producer
        if producer is None:
            raise ClientClosed("The client is not open.")
        try:
            async with asyncio.timeout(self._topic_timeout_seconds):
                return set(await producer.partitions_for(topic))
        except (TimeoutError, KafkaError) as error:
            raise TopicMissing(topic) from error


def _forget(future: asyncio.Future[object]) -> None:
    if not future.cancelled():
        future.exception()


def _key_bytes(key: Key) -> bytes | None:
    return key.encode() if isinstance(key, str) else key


def _headers(reply_to: str | None, traceparent: str | None) -> list[tuple[str, bytes]]:
    named = (("reply-to", reply_to), ("traceparent", traceparent))
    return [(name, value.encode()) for name, value in named if value is not None]


__all__ = ["CoordinatorClient", "EncodedUnit", "Key", "UnitInput"]
