"""What only the store can tell is too large is refused alone, and its batch goes on (F33, I10)."""

from __future__ import annotations

import random

import pytest
from bson import Int64

from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness.operations import Json, insert, setting, update, upsert
from tests.acceptance.harness.world import World, new_id, new_number

MIB = 1024 * 1024


def _noise(length: int) -> str:
    """Give text that no index can compress, the same in every run."""
    return "".join(random.Random(3).choices("0123456789abcdefghijklmnopqrstuvwxyz", k=length))


async def _among_others(
    world: World, suspects: dict[str, Json]
) -> tuple[dict[str, Json], list[Json]]:
    """Run the suspects with good units between them, at once; give both kinds' outcomes."""
    ids, good = {}, []
    for name, operation in suspects.items():
        good.append(await world.submit(insert("sample", new_id()), insert("document", new_id())))
        # Beside a write to another store, so that a late refusal has something to undo.
        ids[name] = await world.submit(insert("entry", new_id()), operation)
        good.append(await world.submit(insert("sample", new_id()), insert("document", new_id())))
    outcomes = {name: await world.result(unit_id, seconds=60) for name, unit_id in ids.items()}
    return outcomes, await world.results(good)


async def test_documents_at_mongodbs_limit_harm_only_their_own_units(
    make_world: MakeWorld, subtests: pytest.Subtests
) -> None:
    """F27, I12: no undo record holds such a document; it is found before anything is applied."""
    world = await make_world()
    full, large, growing = new_id(), new_id(), new_id()
    documents = world.catalog["documents"]
    for key, length in ((full, 16 * MIB - 200), (large, 9 * MIB), (growing, 3 * MIB)):
        documents.insert_one({"_id": key, "stranger": "x" * length, "version": Int64(1)})
    suspects = {
        "grows past 16 MB": setting("document", full, text_="y" * 1000),
        "stays as large": update("document", full, unset=["text_"]),
        "has no room in an undo record": {"op": "delete", "entity": "document", "key": full},
        "is large": setting("document", large, text_="y"),
        "is small enough": setting("document", growing, text_="y" * 1000),
        "of long texts": upsert("document", new_id(), data=[_noise(200_000)]),
    }
    outcomes, good = await _among_others(world, suspects)
    assert {each["status"] for each in good} == {"committed"}
    expected = {
        "grows past 16 MB": "too_large",
        "stays as large": "too_large",
        "has no room in an undo record": "too_large",
        "is large": None,
        "is small enough": None,
        "of long texts": None,
    }
    for name, code in expected.items():
        with subtests.test(name):
            error = outcomes[name]["error"]
            assert (error and error["code"]) == code, outcomes[name]
    found = documents.find_one({"_id": full}, {"version": 1, "text_": 1})
    assert found == {"_id": full, "version": 1}
    assert world.daemon.exit_code() is None


async def test_index_entries_that_are_too_long_harm_only_their_own_units(
    make_world: MakeWorld, subtests: pytest.Subtests
) -> None:
    """F33: PostgreSQL takes 2,704 bytes in an index entry; MongoDB takes any."""
    world = await make_world()
    noise = _noise(9_000)
    suspects = {
        "a key": insert("sample", noise),
        "a unique column": insert("customer", new_number(), name="n", email=noise),
        "a unique column of another store": insert("guarded", new_number(), note=noise, size=1),
        "a key, MongoDB": insert("wallet", noise),
        "a unique field, MongoDB": insert("member", new_number(), email=noise, age=20),
        "a key that fits": insert("sample", noise[:2_600]),
        "a key that can be compressed": insert("sample", "k" * 9_000),
    }
    outcomes, good = await _among_others(world, suspects)
    assert {each["status"] for each in good} == {"committed"}
    for name, outcome in outcomes.items():
        with subtests.test(name):
            if name in ("a key", "a unique column", "a unique column of another store"):
                assert outcome["status"] in ("rejected", "compensated")
                assert outcome["error"]["code"] == "constraint_violated", outcome["error"]
                assert noise[:300] not in outcome["error"]["message"]
            else:
                assert outcome["status"] == "committed", outcome
