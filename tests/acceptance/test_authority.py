"""Authority: topics of different rights, signed units, and what is beyond them (F2, F8, F40)."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from coordinator.client import CoordinatorClient, Signer
from coordinator.signatures import private_pem, public_key_of
from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness.config_text import merge
from tests.acceptance.harness.metrics import scraped, scraped_until
from tests.acceptance.harness.operations import adding, check, delete, insert, setting, update
from tests.acceptance.harness.outsider import accepted, holding
from tests.acceptance.harness.topics import Header, Place, Record
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_id, new_number
from tests.servers import Servers

Json = dict[str, Any]

SEED, SMALL_SEED, STRANGER_SEED = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32


def partner(world: World) -> str:
    return f"{world.topics.prefix}partner"


def signed(world: World) -> str:
    return f"{world.topics.prefix}signed"


def intakes(world: World) -> list[Json]:
    """All rights; some rights; and signed units, one of whose keys may do less."""
    some = [
        {"entity": "account", "operations": ["update"], "fields": ["balance"]},
        {"entity": "account", "operations": ["check"], "fields": ["status"]},
        {"entity": "sample", "operations": ["insert"]},
    ]
    keys = [
        {"id": "big", "public_key": b64encode(public_key_of(SEED)).decode()},
        {
            "id": "small",
            "public_key": b64encode(public_key_of(SMALL_SEED)).decode(),
            "grants": [{"entity": "account", "operations": ["update"], "fields": ["note"]}],
        },
    ]
    return [
        {
            "topic": world.topics.units,
            "grants": "all",
            "reply_to": [world.topics.replies_topic],
        },
        {"topic": partner(world), "grants": some},
        {
            "topic": signed(world),
            "grants": "all",
            "reply_to": [world.topics.replies_topic],
            "signed": {"audience": "acceptance", "max_age_seconds": 600, "keys": keys},
        },
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    all_servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    made = World(all_servers, tmp_path_factory.mktemp("world"))
    merge(made.settings, {"topics": {"units": None, "reply_to": None}, "intake": intakes(made)})
    try:
        await made.prepare()
        await made.start()
        yield made
    finally:
        await made.close()


async def account(world: World, **values: Any) -> int:
    number = new_number()
    outcome = await world.run(insert("account", number, **{"balance": "10.00", **values}))
    assert outcome["status"] == "committed", outcome
    return number


async def put(
    world: World, topic: str, value: Any, *, key: str | None = None, headers: Any = ()
) -> Place:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return await world.topics.submit(raw, topic=topic, key=key, headers=headers)


def unit(*operations: Json, **members: Any) -> Json:
    return {"id": new_id(), "operations": list(operations), **members}


async def answered(world: World, body: Json, kind: str = "any") -> Json:
    return await world.result(body["id"], kind)


async def refusal(world: World, body: Json, place: Place) -> Record:
    """Wait for the early refusal of the record at a place; the journal must not know its id."""
    found = await world.topics.answer_to(place, "refused", body["id"])
    assert found.json["status"] == "rejected"
    assert found.json["error"]["code"] == "forbidden", found.json
    assert not await world.journaled(body["id"])
    return found


async def audited(world: World, event: str, place: Place) -> Json:
    """Wait for the one line that tells of the record at a place."""

    async def look() -> list[Json]:
        return [
            line
            for line in world.daemon.logs(event)
            if (line["topic"], line["partition"], line["offset"])
            == (place.topic, place.partition, place.offset)
        ]

    (line,) = await until(look, f"{event} of {place}", 60, world.daemon.tail)
    return line


# --- grants ---------------------------------------------------------------------------------------


async def test_a_topic_may_do_what_it_is_granted(world: World) -> None:
    number = await account(world, status="active")
    body = unit(
        check("account", number, expect={"status": "active"}),
        update("account", number, {"version": 1}, increment={"balance": "-2.50"}),
    )
    await put(world, partner(world), body)
    assert (await answered(world, body))["status"] == "committed"
    row = await world.row("accounts", number)
    assert row is not None
    assert str(row["balance"]) == "7.50"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a field", "operations.0.set.note"),
        ("a condition", "operations.0.expect.status"),
        ("an operation", "operations.0.op"),
        ("an entity", "operations.0.entity"),
        ("an entity that is not there", "operations.0.entity"),
        ("its own undo", "operations.0.compensate.op"),
    ],
)
async def test_beyond_its_grants_nothing_happens(world: World, name: str, path: str) -> None:
    number = await account(world, status="active", note="kept")
    beyond = {
        "a field": setting("account", number, balance="1.00", note="taken"),
        "a condition": update(
            "account", number, {"status": "active"}, increment={"balance": "1.00"}
        ),
        "an operation": delete("account", number),
        "an entity": insert("customer", number, name="x"),
        "an entity that is not there": insert("nowhere", number),
        "its own undo": update(
            "account", number, set={"balance": "1.00"}, compensate={"op": "delete"}
        ),
    }
    body = unit(beyond[name])
    place = await put(world, partner(world), body)
    found = await refusal(world, body, place)
    assert [each["path"] for each in found.json["error"]["details"]] == [path]
    line = await audited(world, "unit.forbidden", place)
    assert (line["unit"], line["breach"], line["path"]) == (body["id"], "grant", path)
    row = await world.row("accounts", number)
    assert row is not None
    assert (str(row["balance"]), row["note"], row["version"]) == ("10.00", "kept", 1)


async def test_all_that_is_forbidden_is_told_and_counted(world: World) -> None:
    before = (await scraped(world.daemon)).total("forbidden_total", topic=partner(world))
    number = await account(world)
    body = unit(
        setting("account", number, balance="1.00", note="x", status="y"), delete("account", number)
    )
    place = await put(world, partner(world), body)
    found = await refusal(world, body, place)
    assert [each["path"] for each in found.json["error"]["details"]] == [
        "operations.0.set.note", "operations.0.set.status", "operations.1.op",
    ]  # fmt: skip
    assert (await audited(world, "unit.forbidden", place))["count"] == 3
    await scraped_until(
        world.daemon,
        lambda seen: seen.total("forbidden_total", topic=partner(world), breach="grant") > before,
        "the refusal is counted",
    )


async def test_the_id_of_a_forbidden_unit_may_be_used_again(world: World) -> None:
    number = await account(world)
    body = unit(delete("account", number))
    await refusal(world, body, await put(world, partner(world), body))
    body["operations"] = [adding("account", number, balance="1.00")]
    await put(world, partner(world), body)
    assert (await answered(world, body, "final"))["status"] == "committed"


async def test_reply_topics_are_granted_by_topic(world: World) -> None:
    number = await account(world)
    headers: list[Header] = [("reply-to", world.topics.replies_topic.encode())]
    body = unit(adding("account", number, balance="1.00"))
    place = await put(world, partner(world), body, headers=headers)
    await refusal(world, body, place)
    assert (await audited(world, "unit.forbidden", place))["breach"] == "reply_to"
    await put(world, world.topics.units, body, headers=headers)
    reply = await world.topics.outcome(body["id"], topic=world.topics.replies_topic)
    assert reply.json["status"] == "committed"


async def test_a_cancel_ends_units_of_its_own_topic_only(world: World) -> None:
    number = await account(world)
    body = unit(adding("account", number, balance="1.00"))
    async with holding(world, "accounts", number):
        await put(world, world.topics.units, body, key="k")
        await _only_its_own_topic_cancels(world, body)
    assert len(world.topics.outcomes_so_far(body["id"])) == 1


async def _only_its_own_topic_cancels(world: World, body: Json) -> None:
    await accepted(world, body["id"])
    cancel = {"cancel": body["id"], "reason": "not yours"}
    place = await put(world, partner(world), cancel)
    line = await audited(world, "unit.cancel_forbidden", place)
    assert (line["unit"], line["breach"]) == (body["id"], "cancel")
    place = await put(world, signed(world), cancel)
    assert (await audited(world, "unit.cancel_forbidden", place))["breach"] == "unsigned"
    asked = await world.ledger.fetchval(
        "SELECT cancel_requested FROM coordinator.units WHERE id = $1", body["id"]
    )
    assert asked is None
    await put(world, world.topics.units, {"cancel": body["id"], "reason": "mine"}, key="k")
    outcome = await answered(world, body, "final")
    assert (outcome["status"], outcome["error"]["code"]) == ("rejected", "cancelled")
    assert "mine" in outcome["error"]["message"]


async def test_all_topics_are_there_and_their_lag_is_told(world: World) -> None:
    topics = {world.topics.units, partner(world), signed(world)}
    assert topics <= await world.topics.names()
    await scraped_until(
        world.daemon,
        lambda seen: all(seen.values("consumer_lag_records", topic=each) for each in topics),
        "the lag of every topic is told",
    )
    told = (await world.cli("check")).stdout
    assert all(each in told for each in topics)


# --- signed units ---------------------------------------------------------------------------------


def signer(seed: bytes = SEED, key_id: str = "big", **parts: Any) -> Signer:
    given = {"audience": "acceptance", "lifetime_seconds": 300, **parts}
    return Signer(seed, key_id, given["audience"], lifetime_seconds=given["lifetime_seconds"])


def header(
    body: Json,
    *,
    by: Signer | None = None,
    key: str | None = None,
    headers: list[Header] | None = None,
    at: float | None = None,
) -> list[Header]:
    kept = headers or []
    value = json.dumps(body).encode()
    now = time.time() if at is None else at
    return [
        *kept,
        (by or signer()).header(None if key is None else key.encode(), kept, value, now),
    ]


async def test_a_signed_unit_commits_and_its_replay_is_a_duplicate(world: World) -> None:
    number = await account(world)
    headers: list[Header] = [("reply-to", world.topics.replies_topic.encode())]
    body = unit(adding("account", number, balance="1.00"))
    genuine = header(body, key="k", headers=headers)
    await put(world, signed(world), body, key="k", headers=genuine)
    assert (await answered(world, body, "final"))["status"] == "committed"
    place = await put(world, signed(world), body, key="k", headers=genuine)
    again = await world.topics.answer_to(place, "duplicate", body["id"])
    assert (again.json["status"], again.json["duplicate"]) == ("committed", True)
    row = await world.row("accounts", number)
    assert row is not None
    assert str(row["balance"]) == "11.00"


async def test_no_forgery_is_taken(world: World) -> None:
    number = await account(world)
    operation = adding("account", number, balance="5.00")
    replies: list[Header] = [("reply-to", world.topics.replies_topic.encode())]
    bodies = {each: unit(operation) for each in _BREACHES}
    other = unit(adding("account", number, balance="900.00"))
    headers: dict[str, list[Header]] = {
        name: header(body, key="k") for name, body in bodies.items()
    }
    headers |= {
        "unsigned": [],
        "forged": header(bodies["forged"], by=signer(STRANGER_SEED), key="k"),
        "body swapped": header(other, key="k"),
        "key swapped": header(bodies["key swapped"], key="another"),
        "answered elsewhere": [*header(bodies["answered elsewhere"], key="k"), *replies],
        "unknown key": header(bodies["unknown key"], by=signer(key_id="nobody"), key="k"),
        "wrong audience": header(
            bodies["wrong audience"], by=signer(audience="production"), key="k"
        ),
        "expired": header(bodies["expired"], key="k", at=time.time() - 400),
        "not yet": header(bodies["not yet"], key="k", at=time.time() + 120),
        "too long": header(bodies["too long"], by=signer(lifetime_seconds=601), key="k"),
        "nonsense": [("coordinator-signature", b"v1 let me in")],
    }
    places = {
        name: await put(world, signed(world), body, key="k", headers=headers[name])
        for name, body in bodies.items()
    }
    for name, body in bodies.items():
        found = await refusal(world, body, places[name])
        assert (found.json["digest"], found.json["metadata"]) == (None, None)
        line = await audited(world, "unit.forbidden", places[name])
        assert (line["unit"], line["breach"]) == (body["id"], _BREACHES[name])
    row = await world.row("accounts", number)
    assert row is not None
    assert str(row["balance"]) == "10.00"
    assert not [
        each
        for each in world.topics.of(world.topics.replies_topic)
        if each.key == bodies["answered elsewhere"]["id"].encode()
    ]


_BREACHES = {
    "unsigned": "unsigned",
    "forged": "forged",
    "body swapped": "forged",
    "key swapped": "forged",
    "answered elsewhere": "forged",
    "unknown key": "key_unknown",
    "wrong audience": "audience",
    "expired": "expired",
    "not yet": "not_yet",
    "too long": "lifetime",
    "nonsense": "signature_unreadable",
}


async def test_a_forgery_under_a_used_id_leaves_the_first_unit_alone(world: World) -> None:
    """A copy without its signature has the unit's id and content, and is still no answer to it."""
    number = await account(world)
    body = unit(adding("account", number, balance="1.00"))
    await put(world, signed(world), body, headers=header(body))
    first = await answered(world, body, "final")
    place = await put(world, signed(world), body)
    found = await world.topics.answer_to(place, "refused", body["id"])
    assert (found.json["error"]["code"], found.json["digest"]) == ("forbidden", None)
    status, view = await world.daemon.get(f"/v1/units/{body['id']}")
    assert (status, view["outcome"]) == (200, first)


async def test_a_broken_record_without_a_signature_is_a_dead_letter_only(world: World) -> None:
    """F1 would answer it; but nobody knows on whose word."""
    victim = new_id()
    broken = f'{{"id": "{victim}", "twice": 1, "twice": 2}}'.encode()
    place = await put(world, signed(world), broken)
    letter = await world.topics.dead_letter(place)
    assert letter.value == broken
    assert letter.header("coordinator.errors.code") == "malformed"
    marker = unit(insert("sample", new_id()))
    await world.topics.submit(
        json.dumps(marker).encode(),
        topic=signed(world),
        partition=place.partition,
        headers=header(marker),
    )
    assert (await answered(world, marker))["status"] == "committed"
    await world.topics.caught_up()
    assert world.topics.outcomes_so_far(victim) == []


async def test_a_key_may_do_less_than_its_topic(world: World) -> None:
    number = await account(world)
    small = signer(SMALL_SEED, "small")
    within = unit(setting("account", number, note="ok"))
    await put(world, signed(world), within, headers=header(within, by=small))
    assert (await answered(world, within))["status"] == "committed"
    beyond = unit(setting("account", number, balance="0.00"))
    place = await put(world, signed(world), beyond, headers=header(beyond, by=small))
    found = await refusal(world, beyond, place)
    assert found.json["error"]["path"] == "operations.0.set.balance"
    assert found.json["digest"] is not None


# --- clients --------------------------------------------------------------------------------------


async def test_the_client_signs_units_and_cancels(world: World) -> None:
    number = await account(world)
    async with CoordinatorClient(
        world.topics.bootstrap,
        units_topic=signed(world),
        outcomes_topic=world.topics.outcomes_topic,
        signer=signer(),
    ) as client:
        body = unit(adding("account", number, balance="1.00"))
        ticket = await client.submit(body, key="k", reply_to=world.topics.replies_topic)
        assert (await client.outcome(ticket)).committed
        await client.cancel(body["id"], key="k")
        await world.topics.outcome(body["id"], "duplicate")


async def test_the_client_hears_of_a_refusal_and_of_nobody_elses(world: World) -> None:
    number = await account(world)
    async with CoordinatorClient(
        world.topics.bootstrap,
        units_topic=signed(world),
        outcomes_topic=world.topics.outcomes_topic,
        signer=signer(STRANGER_SEED),
    ) as stranger:
        ticket = await stranger.submit(unit(adding("account", number, balance="1.00")))
        outcome = await stranger.outcome(ticket)
        assert outcome.error is not None
        assert outcome.error.code == "forbidden"
    body = unit(adding("account", number, balance="1.00"))
    async with CoordinatorClient(
        world.topics.bootstrap,
        units_topic=world.topics.units,
        outcomes_topic=world.topics.outcomes_topic,
    ) as client:
        async with holding(world, "accounts", number):
            ticket = await client.submit(body)
            place = await put(world, signed(world), body)
            await world.topics.answer_to(place, "refused", body["id"])
            assert not ticket.done
        assert (await client.outcome(ticket)).committed


async def test_the_command_line_makes_keys_and_signs(world: World) -> None:
    number = await account(world)
    file, key = world.folder / "unit.json", world.folder / "key.pem"
    body = unit(adding("account", number, balance="1.00"))
    file.write_text(json.dumps(body))
    key.write_text(private_pem(SEED))
    signing = ("--sign-with", str(key), "--key-id", "big")
    done = await world.cli("submit", str(file), "--topic", signed(world), *signing)
    assert json.loads(done.stdout)["status"] == "committed"
    several = await world.cli("submit", str(file), check=False)
    assert several.returncode == 1
    assert signed(world) in several.stderr
    new = world.folder / "new.pem"
    made = json.loads((await world.cli("keys", "new", str(new))).stdout)
    assert (new.stat().st_mode & 0o777, made["private_key"]) == (0o600, str(new))
    before = new.read_text()
    assert (await world.cli("keys", "new", str(new), check=False)).returncode == 1
    assert new.read_text() == before


async def test_wrong_grants_end_the_start_with_all_mistakes(make_world: MakeWorld) -> None:
    world = await make_world(start=False)
    grants = [
        {"entity": "account", "operations": ["update"], "fields": ["balanc"]},
        {"entity": "nobody", "operations": ["check"]},
    ]
    merge(
        world.settings,
        {
            "topics": {"units": None, "reply_to": None},
            "intake": [{"topic": world.topics.units, "grants": grants}],
        },
    )
    world.write_config()
    for command in ("run", "check"):
        done = await world.cli(command, check=False)
        assert done.returncode == 2
        told = done.stdout + done.stderr
        assert "intake.0.grants.0.fields: account has no field balanc" in told
        assert "intake.0.grants.1.entity: names no declared entity" in told
