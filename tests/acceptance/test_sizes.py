"""The size of what a unit publishes, and worlds that are configured otherwise (F26, F35)."""

from __future__ import annotations

from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness.operations import delete, insert, setting, update
from tests.acceptance.harness.outsider import holding, stored
from tests.acceptance.harness.world import World, new_id, new_number

LIMIT = 3000


async def _small_world(make_world: MakeWorld) -> World:
    """Make a world whose topics of samples and outcomes take 3,000 bytes."""
    world = await make_world(start=False)
    config = {"max.message.bytes": str(LIMIT)}
    topics = world.topics
    await topics.create({topics.changes_topic("sample"): config, topics.outcomes_topic: config})
    await world.start()
    return world


async def test_f26_what_no_topic_could_take_is_refused_before_the_pivot(
    make_world: MakeWorld,
) -> None:
    """F26, F2, I7: `too_large`, a late refusal; each unit still has its one outcome."""
    small = await _small_world(make_world)
    key, kept = new_id(), new_id()
    await small.committed(insert("sample", kept, text_="x" * 400))
    fits, _ = await small.place(insert("sample", new_id(), text_="x" * 1000))
    big, _ = await small.place(insert("sample", key, text_="x" * LIMIT))
    # The images before and after are both in the event.
    doubled, _ = await small.place(
        update("sample", kept, set={"free": "1" * 900, "word": "w", "huge": 1}),
        setting("sample", kept, data={"more": "y" * 2300}),
    )
    remote = await small.submit(insert("entry", key), insert("sample", key, text_="x" * LIMIT))
    many = await small.submit(*(insert("account", new_number()) for _ in range(100)))
    echoed = await small.submit(insert("sample", new_id()), metadata="m" * LIMIT)
    early = await small.submit(insert("nobody", 1), metadata="m" * LIMIT)
    assert (await small.result(fits))["status"] == "committed"
    for unit_id in (big, doubled, remote, many, echoed):
        outcome = await small.result(unit_id)
        assert outcome["status"] in {"rejected", "compensated"}
        assert outcome["error"]["code"] == "too_large", outcome["error"]
        assert outcome["error"]["retryable"] is False
        assert small.topics.changes_so_far(unit_id) == []
        assert await small.journaled(unit_id)
    refused = await small.result(early, "refused")
    assert refused["error"]["code"] == "unknown_entity"
    row = await stored(small, "sample", kept)
    assert row is not None
    assert (row["version"], row["free"], row["data"]) == (1, None, None)
    assert await stored(small, "sample", key) is None
    assert await stored(small, "entry", key) is None
    assert (await small.run(insert("sample", key)))["status"] == "committed"


async def test_a_journal_of_its_own_tombstones_and_the_other_driver(make_world: MakeWorld) -> None:
    """DESIGN 2.3, 2.5, F7: the settings that name these, and `units.timeout_ms`."""
    world = await make_world(start=False)
    world.settings["journal"] = {"dsn": world.dsn_of["journal"]}
    world.settings["changes"] = {"tombstones": True}
    world.settings["units"] = {"timeout_ms": 4000}
    if "catalog" in world.settings["stores"]:
        world.settings["stores"]["catalog"]["driver"] = "pymongo"
    world.write_config()
    await world.start()
    a, w = new_number(), new_id()
    outcome = await world.run(
        insert("account", a, balance="5"),
        insert("entry", w),
        insert("wallet", w, balance="1"),
    )
    assert outcome["status"] == "committed", outcome
    deletes = await world.run(delete("account", a), delete("wallet", w))
    events = await world.topics.changes(deletes["unit"], 2)
    assert [e.json["op"] for e in events] == ["d", "d"]
    for entity, key in (("account", str(a)), ("wallet", f'"{w}"')):
        topic = world.topics.changes_topic(entity)

        def tombstone(topic: str = topic, key: str = key) -> bool:
            return any(
                record.value is None and record.key == key.encode()
                for record in world.topics.of(topic)
            )

        await world.topics.wait(tombstone, f"the tombstone of {key}")
        last = [r for r in world.topics.of(topic) if r.key == key.encode()][-2:]
        assert [r.value is None for r in last] == [False, True]
    broken = await world.run(insert("entry", new_id()), insert("account", a, balance="950000"))
    assert broken["error"]["code"] == "constraint_violated"
    assert broken["status"] in {"rejected", "compensated"}
    assert await world.row("accounts", a) is None
    await world.committed(insert("account", a))
    async with holding(world, "accounts", a):
        stuck = await world.result(await world.submit(setting("account", a, note="x")))
    assert stuck["error"]["code"] == "deadline_exceeded"
    schemas = await world.ledger.fetchval(
        "SELECT count(*) FROM information_schema.tables"
        " WHERE table_schema = 'coordinator' AND table_name = 'units'"
    )
    assert schemas == 0


async def test_f35_missing_topics_that_may_not_be_made_end_the_start(
    make_world: MakeWorld,
) -> None:
    """F35: `topics.create = false` and a topic is missing: exit 2, all missing ones at once."""
    world = await make_world({"topics": {"create": False}}, start=False)
    topics = world.topics
    every = {
        *(topics.units, topics.outcomes_topic, topics.dead_letters_topic, topics.replies_topic),
        *(topics.changes_topic(entity) for entity in world.entities),
    }
    missing = {topics.units, topics.dead_letters_topic, topics.changes_topic("account")}
    await topics.create({name: {} for name in every - missing})
    world.daemon.spawn()
    assert await world.daemon.ended(20) == 2
    said = world.daemon.log_text()
    assert [name for name in sorted(missing) if name not in said] == []
    assert missing.isdisjoint(await topics.names())
    await topics.create({name: {} for name in missing})
    await world.start()
    assert (await world.run(insert("sample", new_id())))["status"] == "committed"
    world.daemon.expected_errors |= {"config.invalid"}


async def test_f26_a_reply_topic_that_takes_less_is_measured_too(make_world: MakeWorld) -> None:
    """F26, F4, F40: what it could not take is `too_large`, and later replies still arrive."""
    world = await make_world(start=False)
    replies = world.topics.replies_topic
    await world.topics.create({replies: {"max.message.bytes": "1500"}})
    await world.start()
    reply = [("reply-to", replies.encode())]
    large, _ = await world.place(insert("sample", new_id()), metadata="m" * 1500, headers=reply)
    outcome = await world.result(large)
    assert (outcome["status"], outcome["error"]["code"]) == ("rejected", "too_large")
    silent, same = new_id(), [insert("sample", new_id())]
    await world.submit(*same, id=silent, metadata="m" * 1500)
    assert (await world.result(silent))["status"] == "committed"
    # Duplicates that ask for an answer where it does not fit: the same content, and another.
    for operations in (same, [insert("sample", new_id())]):
        _, place = await world.place(*operations, id=silent, metadata="m" * 1500, headers=reply)
        await world.topics.answer_to(place, "duplicate", silent)
    small, _ = await world.place(insert("sample", new_id()), headers=reply)
    assert (await world.topics.outcome(small, topic=replies)).json["status"] == "committed"
    assert (await world.topics.outcome(large, topic=replies)).json["status"] == "rejected"
