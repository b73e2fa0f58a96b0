"""``coordinator dead-letters``: the dead-letter topic and the journal's word on it, together.

Putting a letter back is three steps, and a process may die between any two: the journal notes that
it is about to be put back, Kafka acknowledges it, the journal notes that it was. So of a letter
that is still noted as *replaying* nobody knows (I11), and it is not put back again unless a person
says so; if it was a unit after all, its id protects it from being applied twice (F4).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from coordinator import postgres_pool
from coordinator.bootstrap.journal import journal_dsn
from coordinator.bootstrap.kafka_security import kafka_options
from coordinator.domain.errors import ConfigurationInvalid, CoordinatorError
from coordinator.domain.letters import Letter, Place, shown
from coordinator.engine.ports import JOURNAL
from coordinator.journal.letters import Handled, Handling, JournalLetters
from coordinator.journal.migrate import pending
from coordinator.kafka.letters import LetterTopic, NotTaken, letter_topic, replaying
from coordinator.kafka.topics import describe_topics
from coordinator.settings import Settings

_PAGE = 500


class LetterUnknown(CoordinatorError):
    """There is no such letter in the topic (any more)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are meant. ``ids`` are named ones; else all that the filters let through."""

    ids: Sequence[tuple[int, int]] = ()
    code: str | None = None
    since_ms: int | None = None
    limit: int = 100
    open_only: bool = False
    """Leave out those that were put back or discarded before."""


class DeadLetters:
    """The letters, and what a person may do with them."""

    def __init__(self, settings: Settings, topic: LetterTopic, journal: JournalLetters) -> None:
        self._settings = settings
        self._topic = topic
        self._journal = journal

    async def select(self, wanted: Wanted) -> list[tuple[Letter, Handled | None]]:
        """Read the letters that are meant, in order per partition, each with what became of it."""
        if wanted.ids:
            named = [await self._named(*each) for each in wanted.ids]
            return await self._with_handling(named)
        found: list[tuple[Letter, Handled | None]] = []
        page: list[Letter] = []
        async for letter in self._topic.read(wanted.since_ms):
            if wanted.code is not None and letter.code != wanted.code:
                continue
            page.append(letter)
            if len(page) >= min(_PAGE, wanted.limit):
                found += await self._of_page(page, wanted)
                page = []
                if len(found) >= wanted.limit:
                    return found[: wanted.limit]
        found += await self._of_page(page, wanted)
        return found[: wanted.limit]

    async def replay(
        self, letters: Sequence[Letter], reason: str | None, *, again: bool
    ) -> AsyncIterator[dict[str, Any]]:
        """Put letters back one by one, in their order; tell what became of each."""
        allowed = {intake.topic for intake in self._settings.intakes}
        options = kafka_options(self._settings)
        facts = await describe_topics(
            self._settings.kafka.bootstrap_servers,
            sorted(allowed),
            client_options=options,
            allow_plaintext=self._settings.kafka.allow_plaintext,
        )
        limits = {name: fact.max_message_bytes for name, fact in facts.items()}
        servers = self._settings.kafka.bootstrap_servers
        async with replaying(servers, limits=limits, client_options=options) as back:
            for letter in letters:
                origin = letter.origin
                if origin is None or origin.topic not in allowed:
                    yield _told(letter, "refused", "it came from no topic of units")
                    continue
                claimed = await self._journal.claim(
                    [origin], Handling.REPLAYING, reason, again=again
                )
                if not claimed:
                    yield _told(letter, "left", await self._why_left(origin))
                    continue
                try:
                    await back.put_back(letter, origin)
                except NotTaken as refusal:
                    await self._journal.release([origin])
                    yield _told(letter, "refused", str(refusal))
                    continue
                await self._journal.replayed([origin])
                yield _told(letter, "replayed", f"back on {origin.topic}")

    async def discard(
        self, letters: Sequence[Letter], reason: str | None
    ) -> AsyncIterator[dict[str, Any]]:
        """Note that letters are not wanted; they stay in the topic until Kafka drops them."""
        for letter in letters:
            if letter.origin is None:
                yield _told(letter, "refused", "it is no dead letter of ours")
                continue
            claimed = await self._journal.claim(
                [letter.origin], Handling.DISCARDED, reason, again=False
            )
            if claimed:
                yield _told(letter, "discarded", "")
            else:
                yield _told(letter, "left", await self._why_left(letter.origin))

    async def _named(self, partition: int, offset: int) -> Letter:
        letter = await self._topic.find(partition, offset)
        if letter is None:
            raise LetterUnknown(f"There is no dead letter {partition}/{offset}.")
        return letter

    async def _of_page(
        self, page: Sequence[Letter], wanted: Wanted
    ) -> list[tuple[Letter, Handled | None]]:
        known = await self._with_handling(page)
        return [each for each in known if each[1] is None or not wanted.open_only]

    async def _with_handling(
        self, letters: Sequence[Letter]
    ) -> list[tuple[Letter, Handled | None]]:
        places = {each.origin for each in letters if each.origin is not None}
        handled = await self._journal.handled(places) if places else {}
        return [
            (each, None if each.origin is None else handled.get(each.origin)) for each in letters
        ]

    async def _why_left(self, origin: Place) -> str:
        of = (await self._journal.handled([origin])).get(origin)
        if of is None:
            return "somebody else handles it now"
        at = of.at.isoformat(timespec="seconds")
        if of.state is Handling.REPLAYING:
            return f"{of.who} began to put it back at {at}, and how that ended is not known"
        return f"it was {of.state.value} by {of.who} at {at}"


def view(letter: Letter, handled: Handled | None, value_bytes: int | None) -> dict[str, Any]:
    """Give a letter as it is shown."""
    return {
        **shown(letter, value_bytes),
        "state": "open" if handled is None else handled.state.value,
        "by": None if handled is None else handled.who,
        "at": None if handled is None else handled.at.isoformat(timespec="seconds"),
    }


def _told(letter: Letter, result: str, detail: str) -> dict[str, Any]:
    origin = None if letter.origin is None else str(letter.origin)
    return {"letter": letter.id, "result": result, "origin": origin, "detail": detail}


@asynccontextmanager
async def dead_letters(settings: Settings) -> AsyncIterator[DeadLetters]:
    """Open the topic and the journal. Raises `StoreUnavailable`, `ConfigurationInvalid`."""
    options: Mapping[str, Any] = kafka_options(settings)
    name = settings.topics.dead_letters
    facts = await describe_topics(
        settings.kafka.bootstrap_servers,
        [name],
        client_options=options,
        allow_plaintext=settings.kafka.allow_plaintext,
    )
    if name not in facts:
        raise ConfigurationInvalid([f"topics.dead_letters: Kafka has no topic {name}"])
    pool = await postgres_pool.open_pool(
        journal_dsn(settings), "coordinator/dead-letters", max_size=1
    )
    try:
        async with postgres_pool.connected(pool, JOURNAL) as connection:
            if await pending(connection):
                raise ConfigurationInvalid(
                    ["journal: its tables are not up to date; run `coordinator migrate`"]
                )
        async with letter_topic(
            settings.kafka.bootstrap_servers,
            name,
            facts[name].partitions,
            unpacked_bytes_max=settings.kafka.unpacked_batch_max_bytes,
            client_options=options,
        ) as topic:
            yield DeadLetters(settings, topic, JournalLetters(pool))
    finally:
        await postgres_pool.close_pool(pool)
