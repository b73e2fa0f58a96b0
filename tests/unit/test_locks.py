"""The lock queues against a model that asks every earlier claim."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.domain.operation import LockRequest
from coordinator.engine.locks import LockQueues, Passing

KEYS = ("a", "b", "c")


def claims(*pairs: tuple[str, bool]) -> list[LockRequest]:
    return [LockRequest("account", key, exclusive) for key, exclusive in pairs]


def test_writers_of_one_key_run_in_the_order_of_admission() -> None:
    """I5: the second waits for the first, and is freed by its release."""
    queues = LockQueues()
    assert queues.claim(1, claims(("a", True)))
    assert not queues.claim(2, claims(("a", True), ("b", True)))
    assert queues.blockers(2) == [1]
    assert queues.release(1) == [2]
    assert queues.is_free(2)


def test_sharers_share_and_hold_off_a_writer() -> None:
    """F15: referrers share the referred key; its writer waits for all of them."""
    queues = LockQueues()
    assert queues.claim(1, claims(("a", False)))
    assert queues.claim(2, claims(("a", False)))
    assert not queues.claim(3, claims(("a", True)))
    assert not queues.claim(4, claims(("a", False)))
    assert queues.release(1) == []
    assert queues.release(2) == [3]
    assert queues.release(3) == [4]


def test_a_waiting_writer_that_goes_frees_the_sharers_behind_it() -> None:
    queues = LockQueues()
    queues.claim(1, claims(("a", False)))
    queues.claim(2, claims(("a", True)))
    queues.claim(3, claims(("a", False)))
    assert queues.release(2) == [3]


def test_an_older_unit_that_comes_late_goes_first() -> None:
    """A takeover adopts units that were admitted before ours."""
    queues = LockQueues()
    queues.claim(5, claims(("a", True)))
    queues.claim(7, claims(("b", True)))
    assert queues.claim(3, claims(("a", True), ("b", False)))
    assert not queues.is_free(5)
    assert queues.release(3) == [5, 7]


class Model:
    """The definition: free when no earlier claim on a key of ours conflicts."""

    def __init__(self) -> None:
        self.held: dict[int, list[LockRequest]] = {}

    def is_free(self, seq: int) -> bool:
        return not any(
            other < seq
            and mine.key_text == theirs.key_text
            and (mine.exclusive or theirs.exclusive)
            for mine in self.held[seq]
            for other, requests in self.held.items()
            for theirs in requests
        )


REQUESTS = st.dictionaries(st.sampled_from(KEYS), st.booleans(), min_size=1)


@settings(deadline=None)
@given(st.data())
def test_queues_agree_with_the_definition(data: st.DataObject) -> None:
    """I5, whatever comes and goes, older ones included."""
    queues, model = LockQueues(), Model()
    for _ in range(data.draw(st.integers(1, 30))):
        if data.draw(st.booleans()) and model.held:
            seq = data.draw(st.sampled_from(sorted(model.held)))
            before = {each for each in model.held if not model.is_free(each)}
            del model.held[seq]
            freed = [each for each in sorted(model.held) if each in before and model.is_free(each)]
            assert queues.release(seq) == freed
        else:
            seq = data.draw(st.integers(1, 60).filter(lambda number: number not in model.held))
            wanted = data.draw(REQUESTS)
            requests = claims(*wanted.items())
            model.held[seq] = requests
            assert queues.claim(seq, requests) == model.is_free(seq)
        for seq in model.held:
            assert queues.is_free(seq) == model.is_free(seq)


# --- sharers ------------------------------------------------------------------------------------


def counts(*keys: str) -> list[LockRequest]:
    return [LockRequest("account", key, exclusive=True, increment=True) for key in keys]


def batch_of(queues: LockQueues, first: int) -> list[int]:
    """Who may go in one batch with the first."""
    passing = queues.passing()
    assert isinstance(passing, Passing)
    taken, due = [], [first]
    while due:
        seq = min(due)
        due.remove(seq)
        taken.append(seq)
        due += passing.take(seq)
    return taken


def test_sharers_go_together_up_to_the_first_that_is_none() -> None:
    """I5: a writer, a reader and a later sharer wait; none of the sharers is free by itself."""
    queues = LockQueues()
    assert queues.claim(1, counts("a"))
    assert not queues.claim(2, counts("a"))
    assert not queues.claim(3, counts("a", "b"))
    queues.claim(4, claims(("a", False)))
    queues.claim(5, counts("a"))
    assert batch_of(queues, 1) == [1, 2, 3]
    assert not queues.is_free(2)
    assert queues.release(1) == [2]
    assert batch_of(queues, 2) == [2, 3]


def test_a_sharer_of_two_keys_needs_everybody_before_it_on_both() -> None:
    queues = LockQueues()
    queues.claim(1, counts("a"))
    queues.claim(2, claims(("b", True)))
    queues.claim(3, counts("a", "b"))
    queues.claim(4, counts("a"))
    assert batch_of(queues, 1) == [1]
    assert queues.release(2) == []
    assert batch_of(queues, 1) == [1, 3, 4]


@settings(deadline=None)
@given(st.lists(st.sampled_from(("count", "write", "read")), min_size=2, max_size=12))
def test_who_passes_are_the_sharers_at_the_head(modes: list[str]) -> None:
    """I5, for every queue of one key."""
    queues = LockQueues()
    for seq, mode in enumerate(modes, 1):
        queues.claim(seq, counts("a") if mode == "count" else claims(("a", mode == "write")))
    head = next((at for at, mode in enumerate(modes) if mode != "count"), len(modes))
    if head and queues.passing() is not None:
        assert batch_of(queues, 1) == list(range(1, head + 1))
