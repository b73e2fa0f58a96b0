"""Submits as a service does: by the client package, again and again until Kafka has it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from typing import Any

from coordinator.client import CoordinatorClient, KafkaUnreachable, OutcomeLate, SubmissionUnknown
from tests.acceptance.harness.topics import Topics
from tests.chaos import bank
from tests.chaos.history import Json, Sent

UNDER_WAY_MAX = 400
OUTCOME_SECONDS = 60.0
SETTLE_SECONDS = 90.0
_DUPLICATES = 0.04
_ALTERED = 0.01
_CANCELS = 0.03


class Sending:
    """Remembers every unit that was sent, and when, before Kafka gets it."""

    def __init__(self, topics: Topics) -> None:
        self._client = CoordinatorClient(
            topics.bootstrap, units_topic=topics.units, outcomes_topic=topics.outcomes_topic
        )
        self.sent: dict[str, Sent] = {}
        self.sent_at: dict[str, float] = {}
        self.submitted_again = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []

    async def open(self) -> None:
        await self._client.__aenter__()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._client.close()

    async def send_and_await(self, sent: Sent) -> None:
        """Submit a unit and wait for its outcome, though not for ever."""
        ticket = await self._submit(sent, sent.body)
        with suppress(OutcomeLate):
            await self._client.outcome(ticket, OUTCOME_SECONDS)

    async def stream(self, seed: int, per_second: float, stop: asyncio.Event) -> None:
        """Submit transfers at a steady rate, with duplicates and cancels among them."""
        chance = random.Random(f"stream {seed}")
        transfers: Iterator[Sent] = bank.transfers(seed)
        while not stop.is_set():
            await asyncio.sleep(chance.expovariate(per_second))
            fate = chance.random()
            if len(self._tasks) < UNDER_WAY_MAX:
                self._begin(self._transfer(next(transfers), fate, chance.uniform(0.0, 0.3)))

    async def settle(self) -> None:
        """Wait until Kafka has everything that was begun."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=SETTLE_SECONDS)
            assert not late, f"{len(late)} submissions do not reach Kafka"
        assert not self._failures, self._failures

    async def _transfer(self, sent: Sent, fate: float, pause: float) -> None:
        await self._submit(sent, sent.body)
        if fate < _DUPLICATES:
            await asyncio.sleep(pause * 5)
            await self._submit(sent, sent.body)
        elif fate < _DUPLICATES + _ALTERED and sent.key is not None:
            # The same Kafka key, so that it stands behind the unit whose id it takes.
            await self._submit(sent, bank.altered(sent))
        elif fate < _DUPLICATES + _ALTERED + _CANCELS:
            await asyncio.sleep(pause)
            with suppress(SubmissionUnknown):
                await self._client.cancel(sent.id, key=sent.key, reason="not wanted any more")

    async def _submit(self, sent: Sent, body: Json) -> Any:
        self.sent[sent.id] = sent
        self.sent_at.setdefault(sent.id, time.time())
        while True:
            try:
                return await self._client.submit(body, key=sent.key)
            except (SubmissionUnknown, KafkaUnreachable):
                self.submitted_again += 1
                await asyncio.sleep(0.2)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)
