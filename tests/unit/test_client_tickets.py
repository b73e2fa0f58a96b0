"""Which outcome is whose: by id and digest, and an early refusal by the place of its record."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from coordinator.client.tickets import Register, Ticket

DIGEST = "d1"


def refusal(digest: str | None = DIGEST) -> bytes:
    error = {"code": "forbidden", "message": "No."}
    return json.dumps(
        {"unit": "u", "digest": digest, "status": "rejected", "error": error, "operations": []}
    ).encode()


def refused_at(place: str) -> list[tuple[str, bytes | None]]:
    return [("ce_id", f"u/refused/{place}".encode())]


def sent(ticket: Ticket) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    ticket.answer.sent(future)
    return future


def stands(topic: str, partition: int, offset: int) -> Any:
    return SimpleNamespace(topic=topic, partition=partition, offset=offset)


async def test_the_refusal_of_our_record_is_ours() -> None:
    register = Register(10)
    ticket = register.issue("u", DIGEST)
    sent(ticket).set_result(stands("units", 2, 7))
    register.deliver(b"u", refusal(), refused_at("units-2-7"))
    assert ticket.done


async def test_the_refusal_of_somebody_elses_record_is_not_even_with_our_digest() -> None:
    """Whoever knows our unit may send it by a way on which it is forbidden."""
    register = Register(10)
    ticket = register.issue("u", DIGEST)
    sent(ticket).set_result(stands("units", 2, 7))
    for place in ("units-2-8", "units-1-7", "partner.units-2-7", "", "units-2-70"):
        for digest in (DIGEST, None):
            register.deliver(b"u", refusal(digest), refused_at(place))
    assert not ticket.done
    register.deliver(b"u", refusal(None), refused_at("units-2-7"))
    assert ticket.done


async def test_a_refusal_may_come_before_kafka_says_where_the_record_stands() -> None:
    register = Register(10)
    ticket = register.issue("u", DIGEST)
    future = sent(ticket)
    register.deliver(b"u", refusal(), refused_at("units-2-8"))
    register.deliver(b"u", refusal(), refused_at("units-2-7"))
    assert not ticket.done
    future.set_result(stands("units", 2, 7))
    await asyncio.sleep(0)
    assert ticket.done


async def test_a_record_that_was_not_acknowledged_takes_no_refusal() -> None:
    register = Register(10)
    ticket = register.issue("u", DIGEST)
    lost, given_up = sent(ticket), sent(ticket)
    register.deliver(b"u", refusal(), refused_at("units-2-7"))
    lost.set_exception(TimeoutError())
    given_up.cancel()
    await asyncio.sleep(0)
    assert not ticket.done


async def test_where_the_broker_has_forgotten_the_offset_no_refusal_is_believed() -> None:
    register = Register(10)
    ticket = register.issue("u", DIGEST)
    sent(ticket).set_result(stands("units", 2, -1))
    register.deliver(b"u", refusal(), refused_at("units-2-7"))
    assert not ticket.done


async def test_any_other_outcome_is_known_by_its_digest() -> None:
    register = Register(10)
    ticket = register.issue("u", DIGEST)
    register.deliver(b"u", refusal("other"), [("ce_id", b"u/outcome")])
    assert not ticket.done
    register.deliver(b"u", refusal(), [("ce_id", b"u/duplicate/units-9-9")])
    assert ticket.done
