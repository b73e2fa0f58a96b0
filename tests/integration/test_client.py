"""The client against a real broker, with a task that plays the coordinator."""

import asyncio
import contextlib
import gc
import json
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from coordinator.cli.submit import submit_and_show
from coordinator.client import (
    ClientClosed,
    CoordinatorClient,
    OutcomeLate,
    TooManyPending,
    TopicMissing,
    UnitNotSendable,
    insert,
    unit,
)
from coordinator.domain import json_text
from coordinator.domain.lifecycle import Status
from coordinator.settings.intakes import topic_alone
from coordinator.settings.models import Kafka

pytestmark = pytest.mark.integration

Answers = Callable[[dict[str, Any], str], list[dict[str, Any]]]


def committed(submitted: dict[str, Any], digest: str) -> list[dict[str, Any]]:
    return [outcome(submitted["id"], digest)]


def outcome(unit_id: str, digest: str | None, **members: Any) -> dict[str, Any]:
    return {
        "unit": unit_id,
        "digest": digest,
        "status": "committed",
        "duplicate": False,
        "error": None,
        "operations": [],
    } | members


def first_key(submitted: Any) -> str:
    return str(submitted["operations"][0]["key"])


class Responder:
    """Reads units and writes what `answers` says, as the coordinator would."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.units_topic, self.outcomes_topic = prefix + "units", prefix + "outcomes"
        self.answers: Answers = committed
        self.seen: list[Any] = []
        self._bootstrap = bootstrap

    async def make_topics(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            topics = [NewTopic(name, 3, 1) for name in (self.units_topic, self.outcomes_topic)]
            await admin.create_topics(topics)
        finally:
            await admin.close()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Responder"]:
        await self.make_topics()
        consumer = AIOKafkaConsumer(
            self.units_topic, bootstrap_servers=self._bootstrap, auto_offset_reset="earliest"
        )
        self.producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap)
        await consumer.start()
        await self.producer.start()
        task = asyncio.create_task(self._respond(consumer))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait({task})
            await consumer.stop()
            await self.producer.stop()

    async def _respond(self, consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            self.seen.append(record)
            body = json.loads(record.value)
            if "id" not in body:
                continue
            digest = sha256(json_text.parse(record.value).canonical).hexdigest()
            for answer in self.answers(body, digest):
                await self.publish(answer)

    async def publish(self, answer: dict[str, Any]) -> None:
        await self.producer.send(
            self.outcomes_topic, json.dumps(answer).encode(), key=answer["unit"].encode()
        )

    def settings(self) -> Any:
        return SimpleNamespace(
            kafka=Kafka(bootstrap_servers=self._bootstrap),
            topics=SimpleNamespace(outcomes=self.outcomes_topic),
            intakes=(topic_alone(self.units_topic, ()),),
            units=SimpleNamespace(max_bytes=10_000),
            keep_secret=str,
        )

    def client(self, **options: Any) -> CoordinatorClient:
        return CoordinatorClient(
            self._bootstrap,
            units_topic=self.units_topic,
            outcomes_topic=self.outcomes_topic,
            **options,
        )


@pytest.fixture
async def responder(kafka_bootstrap: str, kafka_prefix: str) -> AsyncIterator[Responder]:
    async with Responder(kafka_bootstrap, kafka_prefix).running() as running:
        yield running


async def test_one_unit_is_submitted_and_its_outcome_is_read(responder: Responder) -> None:
    async with responder.client() as client:
        ticket = await client.submit(unit(insert("order", "o-1"), metadata={"n": 2**70}), key="o-1")
        result = await client.outcome(ticket, 30)
    assert (result.unit, result.status, result.committed) == (ticket.unit, Status.COMMITTED, True)
    assert responder.seen[0].key == b"o-1"


async def test_many_are_answered_whatever_the_order(responder: Responder) -> None:
    held: list[dict[str, Any]] = []

    def backwards(submitted: dict[str, Any], digest: str) -> list[dict[str, Any]]:
        held.insert(0, outcome(submitted["id"], digest, metadata=submitted["metadata"]))
        return held if len(held) == 500 else []

    responder.answers = backwards
    units = [unit(insert("order", f"o-{n}"), metadata=n) for n in range(500)]
    async with responder.client() as client:
        tickets = await client.submit(units, key=first_key)
        results = await client.outcomes(tickets, 30)
    assert [result.raw["metadata"] for result in results] == list(range(500))


async def test_units_of_one_key_keep_their_order_in_the_topic(responder: Responder) -> None:
    async with responder.client() as client:
        tickets = await client.submit([unit(id=f"u-{n}") for n in range(200)], key="one")
        await client.outcomes(tickets, 30)
    assert [json.loads(r.value)["id"] for r in responder.seen] == [f"u-{n}" for n in range(200)]


async def test_the_answer_to_other_content_of_the_same_id_is_not_taken(
    responder: Responder,
) -> None:
    responder.answers = lambda submitted, digest: [
        outcome(submitted["id"], "0" * 64, status="rejected"),
        outcome(submitted["id"], digest),
    ]
    async with responder.client() as client:
        ticket = await client.submit(unit(insert("order", "o-1")))
        assert (await client.outcome(ticket, 30)).committed


async def test_an_unreadable_outcome_without_a_digest_is_matched_by_id(
    responder: Responder,
) -> None:
    responder.answers = lambda submitted, _: [outcome(submitted["id"], None, status="rejected")]
    async with responder.client() as client:
        result = await client.outcome(await client.submit(unit()), 30)
    assert result.status is Status.REJECTED


async def test_parked_is_not_final_but_may_be_accepted(responder: Responder) -> None:
    error = {"code": "foreign_write", "message": "Somebody wrote.", "retryable": False}
    responder.answers = lambda submitted, digest: [
        outcome(submitted["id"], digest, status="parked", error=error)
    ]
    async with responder.client() as client:
        ticket = await client.submit(unit(id="u-1"))
        parked = await client.outcome(ticket, 30, accept_parked=True)
        assert parked.status is Status.PARKED
        assert parked.error is not None
        assert parked.error.code == "foreign_write"
        with pytest.raises(OutcomeLate) as late:
            await client.outcome(ticket, 0)
        assert late.value.parked == parked
        await responder.publish(outcome("u-1", ticket.digest, status="compensated"))
        assert (await client.outcome(ticket, 30)).status is Status.COMPENSATED


async def test_the_same_unit_again_waits_for_an_answer_of_its_own(responder: Responder) -> None:
    answered: set[str] = set()

    def answer(submitted: dict[str, Any], digest: str) -> list[dict[str, Any]]:
        again = submitted["id"] in answered
        answered.add(submitted["id"])
        return [outcome(submitted["id"], digest, duplicate=again)]

    responder.answers = answer
    same = unit(insert("order", "o-1"))
    async with responder.client() as client:
        first = await client.outcome(await client.submit(same), 30)
        second = await client.outcome(await client.submit(same), 30)
    assert (first.duplicate, second.duplicate) == (False, True)


async def test_messages_that_are_no_outcomes_do_not_stop_the_reader(responder: Responder) -> None:
    async with responder.client() as client:
        responder.answers = lambda *_: []
        ticket = await client.submit(unit(id="u-1"))
        for junk in (b"junk", b"[]", b"{}", b'{"unit":"u-1","status":"?"}', None):
            await responder.producer.send(responder.outcomes_topic, junk, key=b"u-1")
        await responder.publish(outcome("u-1", ticket.digest))
        assert (await client.outcome(ticket, 30)).committed


async def test_a_cancel_is_sent_with_the_units_key(responder: Responder) -> None:
    async with responder.client() as client:
        await client.cancel("u-1", key="k", reason="enough")
        await client.outcome(await client.submit(unit(), key="k"), 30)
    assert responder.seen[0].key == b"k"
    assert json.loads(responder.seen[0].value) == {"cancel": "u-1", "reason": "enough"}


async def test_headers_go_along(responder: Responder) -> None:
    async with responder.client() as client:
        ticket = await client.submit(unit(), reply_to="replies", traceparent="00-a-b-01")
        await client.outcome(ticket, 30)
    assert dict(responder.seen[0].headers) == {
        "reply-to": b"replies",
        "traceparent": b"00-a-b-01",
    }


async def test_what_would_become_a_dead_letter_is_not_sent(responder: Responder) -> None:
    async with responder.client(unit_bytes_max=200) as client:
        unsendable: list[Any] = [
            {"operations": []},
            {"id": "with space"},
            {"id": "u", "metadata": float("nan")},
            {"id": "u", "metadata": object()},
            {"id": "u", "metadata": "x" * 200},
            b'{"id":"u","id":"u"}',
            b"[]",
            "{",
        ]
        for bad in unsendable:
            with pytest.raises(UnitNotSendable):
                await client.submit(bad)
        await client.outcome(await client.submit({"id": "good"}), 30)
    assert [json.loads(record.value)["id"] for record in responder.seen] == ["good"]


async def test_closing_wakes_whoever_waits(responder: Responder) -> None:
    responder.answers = lambda *_: []
    async with responder.client() as client:
        ticket = await client.submit(unit())
        waiting = asyncio.create_task(client.outcome(ticket, 60))
        await asyncio.sleep(0)
    with pytest.raises(ClientClosed):
        await waiting


async def test_tickets_are_bounded_and_freed_when_let_go(responder: Responder) -> None:
    responder.answers = lambda *_: []
    async with responder.client(pending_max=2) as client:
        held = await client.submit([unit(), unit()])
        with pytest.raises(TooManyPending):
            await client.submit(unit())
        del held
        gc.collect()
        await client.submit(unit())


async def test_a_consumer_that_fails_is_replaced_without_missing_an_outcome(
    responder: Responder,
) -> None:
    responder.answers = lambda *_: []
    async with responder.client() as client:
        first, second = await client.submit([unit(id="u-1"), unit(id="u-2")])
        await responder.publish(outcome("u-1", first.digest))
        await client.outcome(first, 30)
        assert client._reader is not None
        assert client._reader._consumer is not None
        await client._reader._consumer.stop()  # what a fetch error comes to
        await responder.publish(outcome("u-2", second.digest))
        assert (await client.outcome(second, 30)).committed


@pytest.mark.parametrize(
    ("statuses", "code"), [(["committed", "committed"], 0), (["committed", "parked"], 1)]
)
async def test_the_submit_command_shows_outcomes_in_order(
    responder: Responder, capsys: pytest.CaptureFixture[str], statuses: list[str], code: int
) -> None:
    status_of = dict(zip(("u-1", "u-2"), statuses, strict=True))
    responder.answers = lambda submitted, digest: [
        outcome(submitted["id"], digest, status=status_of[submitted["id"]])
    ]
    units = [b'{"id": "u-1", "operations": [1.10]}', b'{"id": "u-2"}']
    assert await submit_and_show(responder.settings(), units, "k", 30) == code
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["unit"], line["status"]) for line in shown] == list(status_of.items())
    assert [record.value for record in responder.seen] == units


async def test_the_submit_command_fails_when_no_outcome_comes(
    responder: Responder, capsys: pytest.CaptureFixture[str]
) -> None:
    responder.answers = lambda *_: []
    assert await submit_and_show(responder.settings(), [b'{"id": "u-1"}'], None, 0.1) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "coordinator: Unit u-1 has no outcome yet.\n")


async def test_a_missing_topic_is_named(kafka_bootstrap: str, kafka_prefix: str) -> None:
    client = CoordinatorClient(
        kafka_bootstrap, units_topic=kafka_prefix + "absent", topic_timeout_seconds=1
    )
    with pytest.raises(TopicMissing, match="absent"):
        async with client:
            pass
