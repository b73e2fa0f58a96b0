"""A wallet that everybody pays into: shared, in bounds, undone by itself, told in order."""

from __future__ import annotations

import signal
from decimal import Decimal

from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness.operations import adding, insert
from tests.acceptance.harness.outsider import holding, stored
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_id, new_number

SHORT_LEASE = {"worker": {"lease_ttl_seconds": 3}}
PAYERS = 60
HELD, POOR = 20, 40
"""Which payer's row an outsider holds, and who turns out to have no money."""


async def _payers(world: World, wallet: str) -> list[int]:
    first = new_number()
    accounts = [first + number for number in range(PAYERS)]
    await world.committed(
        *(insert("account", each, balance="10") for each in accounts),
        insert("wallet", wallet, balance="1.50"),
    )
    return accounts


async def _told(world: World, unit_ids: list[str], wallet: str) -> list[tuple[str, str, int]]:
    """(before, after, version) of the wallet in every event of these units, as announced."""
    await world.topics.caught_up()
    wanted = set(unit_ids)
    return [
        (
            each.json["before"]["balance"],
            each.json["after"]["balance"],
            each.json["after"]["version"],
        )
        for each in world.topics.of(world.topics.changes_topic("wallet"))
        if each.json["transaction"]["id"] in wanted
    ]


async def test_f23_f31_everybody_pays_into_one_wallet_and_the_daemon_dies(
    make_world: MakeWorld,
) -> None:
    """I3, I5, I8, F21, F23: a held row, a refusal after the apply, kill -9, and all adds up."""
    world = await make_world(SHORT_LEASE)
    wallet = new_id()
    accounts = await _payers(world, wallet)
    async with holding(world, "accounts", accounts[HELD]):
        units = [
            await world.submit(
                adding("account", account, balance="-2"),
                adding("wallet", wallet, balance="2.00"),
                key=wallet,
                timeout_ms=120_000,
            )
            for account in accounts
        ]

        async def all_before_it_are_paid() -> bool:
            document = await stored(world, "wallet", wallet)
            assert document is not None
            paid = Decimal(str(document["balance"])) - Decimal("1.50")
            return paid >= 2 * (HELD + 1)

        await until(all_before_it_are_paid, "the wallet is paid into past the held account")
        world.daemon.send(signal.SIGKILL)
        assert await world.daemon.ended() == -signal.SIGKILL
        connection = await world.connect("ledger")
        await connection.execute("UPDATE accounts SET balance = 1 WHERE id = $1", accounts[POOR])
        await connection.close()
        world.daemon.spawn()
        await world.daemon.ready()
        assert not world.topics.outcomes_so_far(units[HELD])
    outcomes = [await world.result(each, seconds=60) for each in units]
    statuses = [each["status"] for each in outcomes]
    assert statuses[POOR] in {"rejected", "compensated"}
    assert outcomes[POOR]["error"]["code"] == "out_of_bounds"
    assert statuses.count("committed") == PAYERS - 1
    document = await stored(world, "wallet", wallet)
    assert document is not None
    assert str(document["balance"]) == str(Decimal("1.50") + 2 * (PAYERS - 1))
    assert document["version"] == PAYERS
    told = await _told(world, units, wallet)
    assert [version for _, _, version in told] == list(range(2, PAYERS + 1))
    balance = "1.50"
    for before, after, _ in told:
        assert before == balance
        balance = after
    assert balance == str(document["balance"])
    versions = [each["operations"][1]["version"] for each in outcomes if each["operations"]]
    assert versions == list(range(2, PAYERS + 1))


async def test_f23_a_debit_counts_no_credit_that_may_be_undone(make_world: MakeWorld) -> None:
    """F23: it waits for the credit before it, and is refused when that one does not commit."""
    world = await make_world()
    wallet, poor, rich = new_id(), new_number(), new_number()
    await world.committed(
        insert("account", poor, balance="5"),
        insert("account", rich, balance="5"),
        insert("wallet", wallet, balance="1"),
    )
    async with holding(world, "accounts", poor):
        credit = await world.submit(
            adding("account", poor, balance="-5"), adding("wallet", wallet, balance="5"), key=wallet
        )
        debit = await world.submit(
            adding("wallet", wallet, balance="-4"), adding("account", rich, balance="4"), key=wallet
        )
        small = await world.submit(
            adding("wallet", wallet, balance="-1"), adding("account", rich, balance="1"), key=wallet
        )
        await world.cli("units", "cancel", credit, check=False)
    outcomes = await world.results([credit, debit, small])
    balance = Decimal("1")
    for outcome, amount in zip(outcomes, ("5", "-4", "-1"), strict=True):
        if outcome["status"] == "committed":
            balance += Decimal(amount)
    document = await stored(world, "wallet", wallet)
    assert document is not None
    assert Decimal(str(document["balance"])) == balance
    assert outcomes[2]["status"] == "committed"
    assert outcomes[1]["status"] == (
        "committed" if outcomes[0]["status"] == "committed" else "rejected"
    )
