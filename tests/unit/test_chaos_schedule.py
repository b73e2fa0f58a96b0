"""What a chaos run does is decided by its seed alone: faults, and what the bank sends."""

from __future__ import annotations

from decimal import Decimal
from itertools import islice, pairwise

import pytest

from tests.chaos import bank
from tests.chaos.history import Add, Make
from tests.chaos.schedule import (
    GAP_SECONDS,
    MUST_MEET,
    SHORT_SECONDS,
    SLOTS,
    Kind,
    plan,
    short_plan,
)


def test_a_seed_repeats_its_schedule() -> None:
    assert plan(7, 300) == plan(7, 300)
    assert plan(7, 300) != plan(8, 300)
    assert plan(7, 600)[: len(plan(7, 300))] == plan(7, 300)


@pytest.mark.parametrize("seed", range(50))
def test_five_minutes_meet_every_kind_of_fault(seed: int) -> None:
    faults = plan(seed, 300)
    assert {fault.kind for fault in faults} == set(Kind)
    assert all(0 < fault.at < 300 and 0 <= fault.slot < SLOTS for fault in faults)
    gaps = [later.at - earlier.at for earlier, later in pairwise(faults)]
    assert all(GAP_SECONDS[0] - 0.1 <= gap <= GAP_SECONDS[1] + 0.1 for gap in gaps)


@pytest.mark.parametrize("seed", range(50))
def test_the_short_form_meets_what_it_must(seed: int) -> None:
    faults = short_plan(seed)
    assert sorted(fault.kind for fault in faults) == sorted(MUST_MEET)
    assert all(fault.at < SHORT_SECONDS for fault in faults)


def test_a_seed_repeats_its_transfers_and_they_balance() -> None:
    sent = list(islice(bank.transfers(7), 500))
    assert sent == list(islice(bank.transfers(7), 500))
    assert len({each.id for each in sent}) == len(sent)
    for each in sent:
        amounts = [write.amount for write in each.writes if isinstance(write, Add)]
        marks = [write.image["amount"] for write in each.writes if isinstance(write, Make)]
        assert sum(amounts, Decimal()) == 0
        assert amounts == marks
        assert len(each.writes) == len(each.body["operations"])
    assert {len({write.entity for write in each.writes}) for each in sent} == {2, 4}
    assert {each.kind for each in sent} >= {bank.REFUSED, bank.OVERDRAWN, bank.HOPELESS}
