"""Putting a day on the topic: units by the client, broken records by a bare producer.

Owns the order in which things are sent. The client refuses to send what would become a dead letter,
so broken records need a producer that lets them through.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from coordinator.client import CoordinatorClient
from coordinator.demo.board import Board
from coordinator.demo.mishaps import Broken
from coordinator.demo.shop import Sending

UNITS_TOPIC: Final = "coordinator.units"
CANCEL_REASON: Final = "The customer has changed their mind"


class Sender:
    """Sends what a day brings and lets a board count the outcomes."""

    def __init__(self, client: CoordinatorClient, producer: AIOKafkaProducer) -> None:
        self._client = client
        self._producer = producer

    async def send(self, sendings: Sequence[Sending], board: Board) -> None:
        """Send units as one group, those to be cancelled last; return when Kafka has them."""
        plain = [sending for sending in sendings if not sending.cancel]
        keys = {sending.id: sending.key for sending in plain}
        sent_at = time.monotonic()
        if plain:
            units = [sending.unit for sending in plain]
            board.watch(await self._client.submit(units, key=lambda unit: keys[_id(unit)]), sent_at)
        for sending in sendings:
            if sending.cancel:
                await self._send_and_cancel(sending, board)

    async def send_paced(
        self, sendings: Sequence[Sending], board: Board, *, per_second: int, group: int
    ) -> None:
        """Send in small groups at an even pace."""
        begins_at = time.monotonic()
        for first in range(0, len(sendings), group):
            await asyncio.sleep(begins_at + first / per_second - time.monotonic())
            await self.send(sendings[first : first + group], board)

    async def send_broken(self, records: Sequence[Broken]) -> None:
        """Send records that are no units."""
        for record in records:
            await self._producer.send_and_wait(UNITS_TOPIC, record.value, key=b"broken")

    async def _send_and_cancel(self, sending: Sending, board: Board) -> None:
        # Side by side, so that the cancel is on its way before the unit has been acknowledged.
        sent_at = time.monotonic()
        ticket, _ = await asyncio.gather(
            self._client.submit(sending.unit, key=sending.key),
            self._client.cancel(sending.id, key=sending.key, reason=CANCEL_REASON),
        )
        board.watch([ticket], sent_at)


def _id(unit: Any) -> str:
    return str(unit["id"])
