"""`coordinator dead-letters`: looked at, put back byte for byte and once, or let be."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness.operations import insert
from tests.acceptance.harness.topics import Header, Record
from tests.acceptance.harness.world import World, new_id

SECRET = "a-value-that-must-not-be-shown"
ODD: tuple[Header, ...] = (("a", None), ("a", b"\xff\x00"), ("coordinator.errors.code", b"mine"))


def _lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


async def _letters(world: World, *options: str) -> list[dict[str, Any]]:
    return _lines(await world.cli("dead-letters", "list", *options))


async def _copies(world: World, first: Record, count: int) -> list[Record]:
    """Wait until the units topic's record has become a dead letter so many times."""

    def look() -> list[Record] | None:
        found = [
            each
            for each in world.topics.of(world.topics.dead_letters_topic)
            if (each.key, each.value) == (first.key, first.value)
        ]
        return found if len(found) >= count else None

    return await world.topics.wait(look, f"{count} dead letters of one value")


async def test_letters_are_listed_put_back_once_and_discarded(world: World) -> None:
    """Whatever bytes they are; what was put back is a dead letter again, for the same reason."""
    broken = f'{{"{SECRET}'.encode() + b"\xff"
    places = [
        await world.topics.submit(broken, key=b"\x00\xff", headers=ODD, partition=3),
        await world.topics.submit(None, key="n"),
        await world.topics.submit('{"id":"', key="k"),
    ]
    firsts = [await world.topics.dead_letter(place) for place in places]
    listed = await _letters(world)
    by_origin = {each["origin"]: each for each in listed}
    names = [f"{place.topic}/{place.partition}/{place.offset}" for place in places]
    assert set(names) <= by_origin.keys()
    first = by_origin[names[0]]
    assert (first["state"], first["code"]) == ("open", "malformed")
    assert first["headers"] == ["a", "a", "coordinator.errors.code"]
    assert SECRET not in json.dumps(listed)
    assert await _letters(world, "--code", "too_large") == []
    assert len(await _letters(world, "--limit", "2")) == 2
    assert await _letters(world, "--since", "2099-01-01T00:00:00Z") == []
    assert len(await _letters(world, "--since", "1h")) == len(listed)

    (shown,) = _lines(await world.cli("dead-letters", "show", first["letter"], "--value"))
    assert set(shown["value"]) == {"base64", "cut"}
    (seen,) = _lines(
        await world.cli("dead-letters", "show", by_origin[names[2]]["letter"], "--value")
    )
    assert seen["value"] == {"text": '{"id":"', "cut": False}
    missing = await world.cli("dead-letters", "show", "0/999999", check=False)
    assert (missing.returncode, missing.stdout) == (1, "")

    ids = [by_origin[name]["letter"] for name in names]
    asked = await world.cli("dead-letters", "replay", ids[0], check=False)
    assert (asked.returncode, asked.stdout) == (2, "")  # nobody is there to confirm it
    told = _lines(await world.cli("dead-letters", "replay", *ids, "--dry-run"))
    assert [each["state"] for each in told] == ["open"] * 3

    done = await world.cli("dead-letters", "replay", *ids, "--yes", "--reason", "fixed, ticket 7")
    assert [each["result"] for each in _lines(done)] == ["replayed"] * 3
    for place, letter in zip(places, firsts, strict=True):
        copies = await _copies(world, letter, 2)
        again = next(each for each in copies if each.offset != letter.offset)
        assert again.headers[:-6] == letter.headers[:-6]
        (topic, partition) = again.headers[-6][1], again.headers[-5][1]
        assert (topic, partition) == (place.topic.encode(), str(place.partition).encode())

    twice = await world.cli("dead-letters", "replay", *ids, "--yes", check=False)
    assert (twice.returncode, {each["result"] for each in _lines(twice)}) == (1, {"left"})
    states = {each["origin"]: each["state"] for each in await _letters(world)}
    assert {states[name] for name in names} == {"replayed"}
    open_ones = await _letters(world, "--open")
    assert not set(names) & {each["origin"] for each in open_ones}

    done = await world.cli("dead-letters", "discard", "--all", "--yes", "--reason", "noise")
    assert {each["result"] for each in _lines(done)} == {"discarded"}
    assert await _letters(world, "--open") == []
    audit = await world.ledger.fetch(
        "SELECT action, unit, reason FROM coordinator.audit ORDER BY id"
    )
    of_replay = [tuple(row) for row in audit if row["action"] == "dead-letters replay"]
    assert of_replay == [("dead-letters replay", name, "fixed, ticket 7") for name in names]
    assert [row["reason"] for row in audit if row["action"] == "dead-letters discard"] == [
        "noise"
    ] * len(open_ones)


async def test_a_letter_in_doubt_is_put_back_only_on_a_persons_word(world: World) -> None:
    """Its replay began and never ended in the journal: a process died in between."""
    place = await world.topics.submit('{"doubt', key="d")
    letter = await world.topics.dead_letter(place)
    name = f"{letter.partition}/{letter.offset}"
    await world.ledger.execute(
        "INSERT INTO coordinator.letters VALUES ($1, $2, $3, $4, 'replaying', 'somebody')",
        place.topic,
        place.partition,
        place.offset,
        place.timestamp,
    )
    done = await world.cli("dead-letters", "replay", name, "--yes", check=False)
    (told,) = _lines(done)
    assert (done.returncode, told["result"]) == (1, "left")
    assert "is not known" in told["detail"]
    done = await world.cli("dead-letters", "replay", name, "--yes", "--again")
    assert _lines(done)[0]["result"] == "replayed"
    await _copies(world, letter, 2)


async def test_a_forged_letter_goes_nowhere(world: World) -> None:
    """Whoever may write to the dead-letter topic cannot write to others by way of an operator."""
    forged = [
        (f"coordinator.errors.{name}", content.encode())
        for name, content in (
            ("topic", world.topics.outcomes_topic),
            ("partition", "0"),
            ("offset", "1"),
            ("timestamp", "1"),
            ("code", "malformed"),
            ("message", "m"),
        )
    ]
    at = await world.topics.submit(
        "forged", headers=forged, topic=world.topics.dead_letters_topic, partition=0
    )
    before = await world.topics.count(world.topics.outcomes_topic)
    done = await world.cli("dead-letters", "replay", f"0/{at.offset}", "--yes", check=False)
    assert (done.returncode, _lines(done)[0]["result"]) == (1, "refused")
    assert await world.topics.count(world.topics.outcomes_topic) == before


async def test_a_unit_that_was_too_large_commits_once_it_may_be(make_world: MakeWorld) -> None:
    """The reason to put letters back: the cause is gone."""
    world = await make_world({"units": {"max_bytes": 1000}})
    unit_id = new_id()
    body = {
        "id": unit_id,
        "operations": [insert("sample", new_id())],
        "metadata": {"filler": "x" * 2000},
    }
    letter = await world.topics.dead_letter(await world.topics.submit(body, key="k"))
    await world.daemon.stop()
    world.settings["units"]["max_bytes"] = 100_000
    world.write_config()
    await world.daemon.start()
    assert [each["code"] for each in await _letters(world)] == ["too_large"]
    await world.cli("dead-letters", "replay", f"{letter.partition}/{letter.offset}", "--yes")
    assert (await world.result(unit_id))["status"] == "committed"
