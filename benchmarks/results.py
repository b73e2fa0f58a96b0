"""A run as JSON: everything that was measured, and under which circumstances."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import psutil

from benchmarks.promises import Verdict
from benchmarks.samples import Samples, p50, throughput
from coordinator import __version__

FORMAT: Final = 1


def _load_average() -> float:
    return os.getloadavg()[0]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Where and how a run was made; `made_at` and the load are those of its beginning."""

    repeats: int
    window_seconds: float
    driver: str
    made_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    load_average: float = field(default_factory=_load_average)
    processors: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    memory_bytes: int = field(default_factory=lambda: int(psutil.virtual_memory().total))
    system: str = field(default_factory=platform.platform)
    python: str = field(default_factory=platform.python_version)
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended. ``titles`` are what the contenders and variants are, by name."""

    circumstances: Circumstances
    titles: Mapping[str, str]
    samples: Samples
    verdicts: Sequence[Verdict]

    @property
    def others_most(self) -> float:
        """The largest share of the machine that somebody else has used during a sample."""
        return max((each.cost.others for each in self.samples.taken if each.cost), default=0.0)


def as_json(run: Run) -> bytes:
    """Give a run as JSON."""
    content = {
        "format": FORMAT,
        "circumstances": asdict(run.circumstances),
        "titles": run.titles,
        "promises": [_verdict(each) for each in run.verdicts],
        "cells": [_cell(run.samples, *cell) for cell in run.samples.cells()],
        "samples": [asdict(each) for each in run.samples.taken],
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _verdict(verdict: Verdict) -> Mapping[str, Any]:
    return {
        "promise": verdict.promise.text,
        "bound": verdict.promise.bound_text,
        "kept": verdict.kept.value,
        "ratio": verdict.ratio,
    }


def _cell(samples: Samples, contender: str, load: str) -> Mapping[str, Any]:
    return {
        "contender": contender,
        "load": load,
        "units_per_second": samples.spread(contender, load, throughput),
        "p50_ms": samples.spread(contender, load, p50),
        "p99_ms": samples.spread(contender, load, lambda each: each.p99_ms),
    }
