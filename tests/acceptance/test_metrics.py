"""What a running daemon's `/metrics` tells of its work, and of what stands still (DESIGN 2.6)."""

from __future__ import annotations

from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness.metrics import Scrape, scraped_until
from tests.acceptance.harness.operations import adding, insert
from tests.acceptance.harness.outsider import holding
from tests.acceptance.harness.world import World, new_id, new_number

STAGES = {
    ("admission", "journal"),
    ("load", "ledger"),
    ("load", "archive"),
    ("load", "catalog"),
    ("apply", "archive"),
    ("apply", "catalog"),
    ("pivot", "journal"),
    ("compensation", "archive"),
    ("compensation", "catalog"),
    ("compensation", "journal"),
}


async def test_every_step_of_units_is_counted(world: World) -> None:
    before = await scraped_until(
        world.daemon, lambda seen: seen.total("rebalances_total") >= 1, "partitions are assigned"
    )
    await world.committed(
        insert("account", new_number()), insert("entry", new_id()), insert("wallet", new_id())
    )
    undone = await world.run(
        insert("entry", new_id()),
        insert("wallet", new_id()),
        insert("account", new_number(), balance="950000"),
    )
    assert undone["status"] == "compensated", undone
    await world.topics.dead_letter(await world.topics.submit(b"no unit"))

    published = {
        world.topics.outcomes_topic: 2,
        world.topics.dead_letters_topic: 1,
        world.topics.changes_topic("entry"): 1,
    }

    def is_counted(seen: Scrape) -> bool:
        return all(
            seen.total("messages_published_total", topic=topic) == count
            for topic, count in published.items()
        )

    seen = await scraped_until(world.daemon, is_counted, "all that was published is counted")
    assert seen.total("units_received_total") - before.total("units_received_total") == 3
    for stage, store in STAGES:
        labels = {"stage": stage, "store": store}
        assert seen.total("stage_duration_seconds_count", **labels) >= 1, labels
        assert seen.total("stage_duration_seconds_sum", **labels) > 0, labels
        assert seen.total("batch_units_sum", **labels) >= 1, labels
    assert seen.total("compensations_total", result="undone") == 2
    for name in ("journal", "kafka", "ledger", "archive", "catalog"):
        assert seen.values("dependency_up", name=name) == [1.0]

    def is_read(seen: Scrape) -> bool:
        return seen.values("consumer_lag_records") == [0.0] * 4

    await scraped_until(world.daemon, is_read, "nothing is left to read in four partitions")


async def test_an_outbox_that_is_not_emptied_is_seen_to_grow_old(world: World) -> None:
    """A stranger holds the relay's row: what is published cannot be deleted."""
    connection = await world.connect("ledger")
    async with connection.transaction():
        await connection.execute("SELECT FROM coordinator.relay FOR UPDATE")
        unit_id = await world.submit(insert("sample", new_id()))
        waiting = await scraped_until(
            world.daemon, lambda seen: seen.total("outbox_rows") >= 1, "an outbox row waits"
        )
        assert waiting.total("outbox_oldest_age_seconds") > 0
    assert (await world.result(unit_id, seconds=60))["status"] == "committed"
    await scraped_until(
        world.daemon,
        lambda seen: seen.values("outbox_rows") == seen.values("outbox_oldest_age_seconds") == [0],
        "the outbox is empty",
    )


async def test_a_full_backlog_is_seen_to_pause_the_intake(make_world: MakeWorld) -> None:
    world = await make_world({"backlog": {"max_units": 2}, "batch": {"max_units": 1}})
    account = new_number()
    await world.committed(insert("account", account, balance="0"))
    async with holding(world, "accounts", account):
        ids = [
            await world.submit(adding("account", account, balance="1"), key="k", timeout_ms=120_000)
            for _ in range(9)
        ]
        seen = await scraped_until(
            world.daemon,
            lambda seen: (
                seen.total("intake_paused") == 1 and seen.total("consumer_lag_records") >= 1
            ),
            "intake is paused and records wait",
        )
        assert seen.total("consumer_lag_records") < 9
    assert {each["status"] for each in await world.results(ids)} == {"committed"}
    await scraped_until(
        world.daemon,
        lambda seen: not seen.total("intake_paused") and not seen.total("consumer_lag_records"),
        "all is read",
    )
