"""Change events of units over all stores: keys, tombstones, counters, chains (F31, F34)."""

from __future__ import annotations

import json
from typing import Any

from tests.acceptance.harness.operations import Json, adding, delete, insert, setting, upsert
from tests.acceptance.harness.world import World, new_id, new_number

WORLD = {"changes": {"tombstones": True}}


async def test_f34_keys_are_canonical_json_whatever_their_type(world: World) -> None:
    """DESIGN 2.3: key of the record and `ce_subject`; a tombstone follows each delete."""
    number = new_number()
    text = f'k\u00e9 "quoted" \\ \U0001f600 {new_id()}'
    keys: list[tuple[str, Any, str]] = [
        ("account", number, str(number)),
        ("account", str(2**53 + number), f'"{2**53 + number}"'),
        ("sample", text, json.dumps(text, ensure_ascii=False)),
        ("document", text, json.dumps(text, ensure_ascii=False)),
        ("ticket", "0198C0DE-0000-7000-8000-0000000000AB",
         '"0198c0de-0000-7000-8000-0000000000ab"'),
        ("parcel", "0198C0DE-0000-7000-8000-0000000000AB",
         '"0198c0de-0000-7000-8000-0000000000ab"'),
        ("member", -5, "-5"),
    ]  # fmt: skip
    records = await world.committed(
        *(insert(entity, key) for entity, key, _ in keys),
        *(delete(entity, key) for entity, key, _ in keys),
        metadata={"m": 1},
    )
    unit_id = records[0].ce_id.rpartition("/")[0]
    counts: dict[str, int] = {}
    for n, (record, (entity, _, canonical)) in enumerate(zip(records, keys * 2, strict=True), 1):
        event = record.json
        assert record.topic == world.topics.changes_topic(entity)
        assert (record.key or b"").decode() == canonical
        assert record.header("ce_id") == f"{unit_id}/{n}"
        counts[entity] = counts.get(entity, 0) + 1
        assert event["transaction"] == {
            "id": unit_id,
            "total_order": n,
            "data_collection_order": counts[entity],
        }
        assert event["metadata"] == {"m": 1}
        assert event["op"] == ("c" if n <= len(keys) else "d")
        place = "collection" if "collection" in world.entities[entity] else "table"
        source = event["source"]
        assert source["connector"] == "coordinator"
        assert source["store"] == world.entities[entity]["store"]
        assert source["entity"] == entity
        assert source[place].endswith(world.entities[entity][place].rpartition(".")[2])
        image = event["after"] or event["before"]
        wanted = set(world.entities[entity]["fields"])
        assert wanted <= set(image) <= wanted | {"version", "v"}
    await world.topics.caught_up()
    for record in records[len(keys) :]:
        behind = [
            r
            for r in world.topics.of(record.topic)
            if (r.key, r.partition) == (record.key, record.partition) and r.offset > record.offset
        ]
        assert [r.value for r in behind] == [None]


async def test_f34_images_are_one_chain_per_key_over_many_units(world: World) -> None:
    """I5, I8, F34: in each store, whatever kinds of operations and whoever fails in between."""
    for entity, number, money in (
        ("sample", "int_", "amount"),
        ("specimen", "int_", "amount"),
        ("document", "int_", "amount"),
    ):
        key = new_id()
        steps: list[list[Json]] = [[insert(entity, key, **{number: 0, money: "0"})]]
        for n in range(60):
            match n % 6:
                case 0:
                    steps.append(
                        [adding(entity, key, **{number: 1}), setting(entity, key, text_="x")]
                    )
                case 1:
                    steps.append([upsert(entity, key, flag=bool(n % 4))])
                case 2:  # fails at the pivot: never announced
                    failing = insert("account", new_number(), balance="950000")
                    steps.append([adding(entity, key, **{number: 1000}), failing])
                case 3:
                    steps.append([adding(entity, key, **{money: "0.5"})])
                case 4:
                    steps.append(
                        [delete(entity, key), insert(entity, key, **{number: n, money: "1"})]
                    )
                case _:  # fails before anything is written
                    steps.append([setting(entity, key, text_="y"), delete(entity, "missing")])
        ids = [new_id() for _ in steps]
        await world.topics.submit_all(
            ({"id": i, "operations": o} for i, o in zip(ids, steps, strict=True)), key=key
        )
        outcomes = await world.results(ids)
        await world.topics.caught_up()
        records = {
            r.ce_id: r
            for r in world.topics.of(world.topics.changes_topic(entity))
            if r.key == json.dumps(key).encode() and r.value is not None
        }
        in_order = sorted(records.values(), key=lambda r: r.offset)
        assert len({r.partition for r in in_order}) == 1
        expected = [
            f"{i}/{n}"
            for i, o, outcome in zip(ids, steps, outcomes, strict=True)
            if outcome["status"] == "committed"
            for n in range(1, len(o) + 1)
        ]
        assert [r.ce_id for r in in_order] == expected
        last: Json | None = None
        for record in in_order:
            assert record.json["before"] == last
            last = record.json["after"]
        assert last is not None
        assert last[number] < 1000
