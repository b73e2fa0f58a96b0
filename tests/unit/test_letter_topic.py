"""Reading a dead-letter topic ends, also when its brokers have gone meanwhile."""

from __future__ import annotations

from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from coordinator.kafka import letters
from coordinator.kafka.letters import LetterTopic


class Silent:
    """A consumer whose brokers told where the topic ends, and have been silent since."""

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 5)

    async def getmany(self, **_: object) -> dict[TopicPartition, list[Any]]:
        return {}

    async def position(self, _place: TopicPartition) -> int:
        return 3

    def assign(self, _places: object) -> None: ...

    def seek(self, _place: object, _offset: object) -> None: ...


async def test_brokers_that_fall_silent_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "_ASK_SECONDS", 0.05)
    topic = LetterTopic(cast(Any, Silent()), "dead", 2)
    with pytest.raises(TimeoutError):
        [each async for each in topic.read(None)]
    with pytest.raises(TimeoutError):
        await topic.find(1, 4)
