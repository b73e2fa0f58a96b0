"""What the benchmarks work out by themselves: streams, windows, statistics, ratios, pictures."""

from __future__ import annotations

import asyncio
import sys
import xml.etree.ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from time import perf_counter

import orjson
import psutil
import pytest

from benchmarks import plot, promises
from benchmarks.beside import beside
from benchmarks.contenders.contender import Ended, Submit
from benchmarks.loads import Clients, Saturation
from benchmarks.measurements import Conditions, Measurement, Note
from benchmarks.measuring import Pace
from benchmarks.meters import CLIENT, Reading, cost, cpu_seconds
from benchmarks.options import Options, OptionsInvalid
from benchmarks.promises import PROMISES, Kept, Promise, judge
from benchmarks.results import Circumstances, Run, as_json
from benchmarks.rounds import run_rounds
from benchmarks.samples import Sample, Samples, p50, throughput
from benchmarks.servers import KAFKA, MONGODB, POSTGRESQL, Servers
from benchmarks.statistics import percentile, spread
from benchmarks.traffic import Traffic, UnexpectedOutcome
from benchmarks.transfers import (
    KEYS,
    Transfer,
    Workload,
    one_hot_key,
    refused_by_mongodb,
    refused_by_postgresql,
    uncontended,
    zipf,
)
from coordinator.cli import bench
from coordinator.devstack import Addresses

# --- transfers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "keys"), [(1, KEYS), (5, KEYS), (20, 40_000)])
def test_no_two_of_the_open_transfers_share_a_key(width: int, keys: int) -> None:
    transfers = uncontended(width, keys).take("t", 600)
    accounts = {key for each in transfers for key in each.debits}
    wallets = {key for each in transfers for key in each.credits}
    assert len(accounts) == len(wallets) == 600 * width
    assert max(accounts | wallets) < keys


def test_every_credit_goes_to_the_hot_key() -> None:
    assert {each.credits for each in one_hot_key().take("t", 50)} == {(0,)}


def test_zipf_prefers_few_keys_and_is_the_same_every_time() -> None:
    transfers = zipf().take("t", 20_000)
    assert transfers == zipf().take("t", 20_000)
    counts = Counter(each.credits[0] for each in transfers)
    (_, most), (_, second) = counts.most_common(2)
    # By the law the first has 1/sum(1/n^0.99) of them, nearly a tenth, and the second half as many.
    assert 0.08 < most / 20_000 < 0.12
    assert 0.4 < second / most < 0.6
    assert max(counts) < KEYS


@pytest.mark.parametrize("workload", [refused_by_mongodb(), refused_by_postgresql()])
def test_every_twentieth_meets_a_key_beyond_the_last(workload: Workload) -> None:
    strange = [
        number
        for number, each in enumerate(islice(workload.transfers("t"), 100))
        if max(*each.debits, *each.credits) >= KEYS
    ]
    assert strange == [0, 20, 40, 60, 80]


# --- traffic and loads --------------------------------------------------------------------------


async def test_only_what_ends_in_the_window_is_in_the_sample() -> None:
    traffic = Traffic(uncontended().transfers("t"), frozenset({"committed"}))
    traffic.note(perf_counter(), "committed")
    traffic.open_window(1)
    traffic.note(perf_counter() - 5, "committed")
    await traffic.ripen(0)
    seconds, latencies = traffic.close_window()
    traffic.note(perf_counter(), "committed")
    assert len(latencies) == 1
    assert latencies[0] == pytest.approx(5, abs=1)
    assert seconds < 5
    assert traffic.ended == {"committed": 3}


async def test_a_window_stays_open_until_enough_have_ended() -> None:
    traffic = Traffic(uncontended().transfers("t"), frozenset({"committed"}))
    traffic.open_window(2)
    ripe = asyncio.create_task(traffic.ripen(0))
    for count in (1, 2):
        assert not ripe.done()
        traffic.note(perf_counter(), "committed")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(traffic._seconds or ()) == count
    await asyncio.wait_for(ripe, 5)


def test_an_outcome_that_must_not_come_is_an_error() -> None:
    traffic = Traffic(uncontended().transfers("t"), frozenset({"committed"}))
    with pytest.raises(UnexpectedOutcome, match="parked"):
        traffic.note(0.0, "parked")


class Echo:
    """A `Running` that ends everything a moment later, and knows how much was open at once."""

    pids: Mapping[str, int] = {}

    def __init__(self, traffic: Traffic, stop_after: int, status: str = "committed") -> None:
        self._traffic = traffic
        self._left = stop_after
        self._status = status
        self.open = 0
        self.open_most = 0
        self.submit: Submit | None = self._submit

    async def perform(self, transfer: Transfer) -> str:
        self._begin()
        await asyncio.sleep(0.001)
        self.open -= 1
        return self._status

    async def _submit(self, transfers: Sequence[Transfer], ended: Ended) -> None:
        for _ in transfers:
            self._begin()
            asyncio.get_running_loop().call_later(0.001, self._end, ended)

    def _begin(self) -> None:
        self.open += 1
        self.open_most = max(self.open_most, self.open)
        self._left -= 1
        if self._left <= 0:
            self._traffic.stop()

    def _end(self, ended: Ended) -> None:
        self.open -= 1
        ended(perf_counter(), self._status)


@pytest.mark.parametrize(("load", "most"), [(Clients(1), 1), (Clients(8), 8), (Saturation(30), 30)])
async def test_a_load_keeps_as_many_open_as_it_says(load: Clients | Saturation, most: int) -> None:
    traffic = Traffic(uncontended().transfers("t"), frozenset({"committed"}))
    echo = Echo(traffic, 200)
    await asyncio.wait_for(load.drive(echo, traffic), 30)
    assert echo.open == 0
    assert echo.open_most == most
    assert traffic.ended["committed"] >= 200


@pytest.mark.parametrize("load", [Clients(4), Saturation(10)])
async def test_a_wrong_outcome_ends_the_load(load: Clients | Saturation) -> None:
    traffic = Traffic(uncontended().transfers("t"), frozenset({"committed"}))
    echo = Echo(traffic, 10_000, status="parked")
    with pytest.raises((UnexpectedOutcome, ExceptionGroup)):
        await asyncio.wait_for(load.drive(echo, traffic), 30)


async def test_a_failure_beside_a_block_ends_the_block() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        async with beside(fails()):
            await asyncio.wait_for(asyncio.Event().wait(), 30)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


# --- statistics and ratios ----------------------------------------------------------------------


def test_percentiles_lie_between_values_in_proportion() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile([1.0, 2.0], 99) == pytest.approx(1.99)
    assert percentile([7.0], 99) == 7.0


def test_a_spread_has_the_median_and_both_ends() -> None:
    found = spread([3.0, 9.0, 1.0])
    assert (found.median, found.least, found.most) == (3.0, 1.0, 9.0)


def sample(contender: str, load: str, round_: int, rate: float, p50_ms: float = 1.0) -> Sample:
    return Sample(contender, load, round_, int(rate), 1.0, p50_ms, 2 * p50_ms)


def only(samples: Sequence[Sample], promise: Promise) -> promises.Verdict:
    (verdict,) = judge(Samples(list(samples)), [promise])
    return verdict


FASTER = Promise("faster", ("us", "s"), [("them", "1"), ("them", "2")], throughput, 2.0)
SHORTER = Promise("shorter", ("us", "s"), [("them", "1")], p50, 1.0, is_least=False)


def test_ratios_are_taken_within_each_round_against_the_best() -> None:
    samples = [
        *(sample("us", "s", number, rate) for number, rate in enumerate((300, 100, 800), 1)),
        *(sample("them", "1", number, rate) for number, rate in enumerate((100, 10, 400), 1)),
        *(sample("them", "2", number, rate) for number, rate in enumerate((50, 25, 100), 1)),
    ]
    verdict = only(samples, FASTER)
    assert verdict.ratio == spread([3.0, 4.0, 2.0])
    assert verdict.kept is Kept.YES


@pytest.mark.parametrize(("rate", "kept"), [(199, Kept.NO), (200, Kept.YES)])
def test_the_bound_itself_is_kept(rate: float, kept: Kept) -> None:
    samples = [sample("us", "s", 1, rate), sample("them", "1", 1, 100)]
    assert only(samples, FASTER).kept is kept


@pytest.mark.parametrize(("ours", "kept"), [(1.0, Kept.YES), (1.1, Kept.NO)])
def test_a_latency_may_be_at_most_so_many_times(ours: float, kept: Kept) -> None:
    samples = [sample("us", "s", 1, 1, ours), sample("them", "1", 1, 1, 1.0)]
    assert only(samples, SHORTER).kept is kept


def test_what_was_not_measured_is_neither_kept_nor_missed() -> None:
    assert only([sample("us", "s", 1, 100)], FASTER).kept is Kept.UNKNOWN
    assert only([sample("them", "1", 1, 100)], FASTER).kept is Kept.UNKNOWN
    # Another round does not count either.
    apart = [sample("us", "s", 1, 100), sample("them", "1", 2, 100)]
    assert only(apart, FASTER).kept is Kept.UNKNOWN


def test_promises_speak_of_what_a_full_run_measures() -> None:
    names = {each.name for each in Options().measurements()}
    assert {promise.ours[0] for promise in PROMISES} <= names
    assert {name for promise in PROMISES for name, _ in promise.theirs} <= names


# --- meters -------------------------------------------------------------------------------------


def reading(at: float, commits: int, updates: int) -> Reading:
    return Reading(
        at=at,
        cpu={CLIENT: at, KAFKA: at / 2},
        machine_cpu=2 * at,
        commits={POSTGRESQL: commits, MONGODB: commits // 2},
        single_updates=updates,
        bytes_written={POSTGRESQL: commits * 100},
    )


def test_a_cost_is_the_difference_per_unit() -> None:
    found = cost(reading(0, 0, 0), reading(10, 400, 777), 100)
    assert found.cpu_us == {CLIENT: 100_000, KAFKA: 50_000}
    assert found.commits == {POSTGRESQL: 4, MONGODB: 2}
    assert found.bytes_written == {POSTGRESQL: 400}
    assert found.others == pytest.approx((20 - 15) / 10 / (psutil.cpu_count() or 1))


def test_updates_outside_of_transactions_are_commits_of_their_own() -> None:
    assert cost(reading(0, 0, 0), reading(1, 1, 100), 100).commits[MONGODB] == 1


def test_cpu_time_of_children_that_have_gone_is_counted() -> None:
    process = psutil.Process()
    before = cpu_seconds(process)
    with psutil.Popen([sys.executable, "-c", "sum(range(6_000_000))"]) as child:
        child.wait(60)
    assert cpu_seconds(process) - before >= 0.05


# --- rounds, options, results -------------------------------------------------------------------


class Noted:
    """A `Measurement` that only says that it was its turn."""

    title = ""
    missing: str | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_closed = False

    async def take(self, conditions: Conditions, round_: int, note: Note) -> None:
        note(sample(self.name, "s", round_, 1))

    async def close(self) -> None:
        self.is_closed = True


async def test_everybody_has_a_turn_in_every_round_there_and_back(tmp_path: Path) -> None:
    measurements: list[Measurement] = [Noted("a"), Noted("b")]
    conditions = Conditions(Servers(Addresses("", "", ""), tmp_path), Pace(0, 0, 0), "motor")
    samples = await run_rounds(measurements, 3, conditions, lambda *_: None)
    assert [each.contender for each in samples.taken] == ["a", "b", "b", "a", "a", "b"]
    assert all(each.is_closed for each in measurements if isinstance(each, Noted))


def test_only_what_was_named_is_measured() -> None:
    assert [each.name for each in Options(only=("dbos",)).measurements()] == ["dbos"]
    with_variants = Options(with_variants=True, only=("zipf", "coordinator"))
    assert [each.name for each in with_variants.measurements()] == ["coordinator", "zipf"]
    with pytest.raises(OptionsInvalid, match=r"no nonsense; there are .*straight-line"):
        Options(only=("nonsense",)).measurements()


@pytest.fixture
def run() -> Run:
    samples = Samples(
        [
            sample("coordinator", "saturation", 1, 5000, 100),
            sample("coordinator", "saturation", 2, 6000, 90),
            sample("dual-write", "1 client", 1, 500, 2),
        ]
    )
    titles = {"coordinator": "ours", "dual-write": "a < b"}
    return Run(Circumstances(2, 1.0, "motor"), titles, samples, judge(samples))


def test_results_are_json_with_every_sample_and_every_verdict(run: Run) -> None:
    content = orjson.loads(as_json(run))
    assert len(content["samples"]) == 3
    assert content["cells"][0]["units_per_second"] == {
        "median": 5500.0,
        "least": 5000.0,
        "most": 6000.0,
    }
    assert [each["kept"] for each in content["promises"]] == ["pass", *["not measured"] * 5]


def test_the_picture_is_xml_and_names_everybody(run: Run) -> None:
    picture = xml.etree.ElementTree.fromstring(plot.draw(run.samples, run.titles))
    texts = {element.text for element in picture.iter() if element.text}
    assert {"ours", "a < b", "saturation", "5,500", "1 client"} <= texts


# --- the command --------------------------------------------------------------------------------


def test_without_a_checkout_the_command_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)
    with pytest.raises(bench.BenchmarksMissing, match="from a checkout"):
        bench.bench(
            repeats=None, quick=True, with_variants=False, only=(), driver="motor", json_file=None
        )
