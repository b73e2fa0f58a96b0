"""A run as a picture: an SVG, written by hand. Pure.

Two columns, a row per load and contender: a dot for throughput on its spread over the rounds, and a
bar for latency from p50 to p99. Both axes are logarithmic, since what is compared lies powers of
ten apart; so there is no bar that begins at nought, whose length would deceive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from benchmarks.samples import Samples, p50, throughput
from benchmarks.statistics import Spread

_ROW: Final = 22
_HEADING: Final = 30
_LABELS: Final = 260
_PANEL: Final = 300
_GAP: Final = 90
_TOP: Final = 46
_WIDTH: Final = _LABELS + 2 * _PANEL + 2 * _GAP
_DOT: Final = 5
_OURS: Final = "coordinator"
_OURS_COLOUR: Final = "#1f6feb"
_OTHERS_COLOUR: Final = "#8b949e"


@dataclass(frozen=True, slots=True)
class _Axis:
    """A logarithmic axis over whole powers of ten."""

    left: int
    low: int
    high: int

    def place(self, value: float) -> float:
        """Where a value lies, in the picture's units."""
        share = (math.log10(max(value, 10.0**self.low)) - self.low) / (self.high - self.low)
        return self.left + share * _PANEL


def draw(samples: Samples, titles: Mapping[str, str]) -> str:
    """Draw the medians of a run."""
    rows = [
        (contender, load, rate, low, high)
        for contender, load in samples.cells()
        if (rate := samples.spread(contender, load, throughput))
        and (low := samples.spread(contender, load, p50))
        and (high := samples.spread(contender, load, lambda each: each.p99_ms))
    ]
    loads = list(dict.fromkeys(row[1] for row in rows))
    rates = _axis(_LABELS, [row[2].most for row in rows] + [row[2].least for row in rows])
    times = _axis(
        _LABELS + _PANEL + _GAP,
        [row[3].median for row in rows] + [row[4].median for row in rows],
    )
    height = _TOP + len(loads) * _HEADING + len(rows) * _ROW + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        *_scale(rates, "units per second", height),
        *_scale(times, "latency in ms, p50 to p99", height),
    ]
    y = _TOP
    for load in loads:
        y += _HEADING
        parts.append(f'<text x="8" y="{y - 8}" font-weight="bold">{escape(load)}</text>')
        for contender, own, rate, low, high in rows:
            if own != load:
                continue
            parts += _row(titles[contender], contender, y, rates, rate, times, (low, high))
            y += _ROW
    return "\n".join([*parts, "</svg>", ""])


def _axis(left: int, values: Sequence[float]) -> _Axis:
    low = math.floor(math.log10(min(values)))
    high = math.ceil(math.log10(max(values)))
    return _Axis(left, low, max(high, low + 1))


def _scale(axis: _Axis, title: str, height: int) -> list[str]:
    parts = [f'<text x="{axis.left}" y="16" fill="#57606a">{escape(title)}</text>']
    for power in range(axis.low, axis.high + 1):
        x = axis.place(10.0**power)
        parts.append(
            f'<line x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{height - 8}" stroke="#d0d7de"/>'
            f'<text x="{x:.1f}" y="{_TOP - 14}" text-anchor="middle" fill="#57606a">'
            f"{10.0**power:,g}</text>"
        )
    return parts


def _row(
    title: str,
    contender: str,
    y: int,
    rates: _Axis,
    rate: Spread,
    times: _Axis,
    latency: tuple[Spread, Spread],
) -> list[str]:
    colour = _OURS_COLOUR if contender == _OURS else _OTHERS_COLOUR
    middle = y + _ROW / 2
    end = rates.place(rate.median)
    least, most = rates.place(rate.least), rates.place(rate.most)
    begins, ends = times.place(latency[0].median), times.place(latency[1].median)
    told = f"{latency[0].median:,.1f} – {latency[1].median:,.1f}"
    return [
        f'<text x="16" y="{middle + 4}">{escape(title)}</text>',
        f'<line x1="{least:.1f}" y1="{middle}" x2="{most:.1f}" y2="{middle}" stroke="{colour}"'
        ' stroke-width="3"/>',
        f'<circle cx="{end:.1f}" cy="{middle}" r="{_DOT}" fill="{colour}"/>',
        f'<text x="{max(most, end + _DOT) + 5:.1f}" y="{middle + 4}">{rate.median:,.0f}</text>',
        f'<rect x="{begins:.1f}" y="{y + 4}" width="{max(2.0, ends - begins):.1f}"'
        f' height="{_ROW - 8}" fill="{colour}"/>',
        f'<text x="{max(begins + 2, ends) + 5:.1f}" y="{middle + 4}">{told}</text>',
    ]
