"""Patterns that may be used, and those that could match for ever."""

from __future__ import annotations

import re

import pytest

from coordinator.mapping.patterns import pattern_fault


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "[A-Z]{3}",
        "[a-z0-9]+(?:-[a-z0-9]+)*",
        "([a-z]+-)*[a-z]+",
        "(?:[0-9a-f]{2})+",
        "(?:[0-9A-F]{2}:){5}[0-9A-F]{2}",
        r"[^@\s]+@[^@\s]+\.[a-z]{2,}",
        r"\+?[1-9][0-9]{1,14}",
        r"(\d+)(,\d+)*",
        "(foo|bar|fob)*",
        "(a?b)*",
        "(a{1,3}){1,3}",
        ".*",
        "(a|b|c)+",
        r"(?i)[a-z]+( [a-z]+)*",
        r"(?=.*\d)[a-z\d]{8,64}",
        r"(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}",
        "|".join(f"word{number}" for number in range(40)),
    ],
)
def test_patterns_that_are_fine(pattern: str) -> None:
    assert pattern_fault(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a*)*",
        "(a+)*b",
        "(?:ab|ab)*",
        "(?:ab|abc?)*",
        "((a?)?b)*c",
        "(a|aa)+",
        "([a-z]+[0-9]*)+",
        r"(\w+\s?)*",
        "(.*,)*x",
        "([0-9]{1,3})*",
        "(?:(?:ab|a)b?)*",
        "((a|b+)c?)+",
        "x(é+|[à-ü]+)*y",
    ],
)
def test_patterns_that_could_take_for_ever(pattern: str) -> None:
    fault = pattern_fault(pattern)
    assert fault is not None
    assert fault.startswith("could take for ever")


@pytest.mark.parametrize("pattern", ["(", "[a", "a**", "(?P<x>a)(?P<x>b)", "a{4294967296}"])
def test_what_is_no_pattern(pattern: str) -> None:
    fault = pattern_fault(pattern)
    assert fault is not None
    assert fault.startswith("is no regular expression: ")


def test_a_pattern_that_is_too_large_to_judge() -> None:
    assert pattern_fault("a?" * 500) == (
        "is too complicated to be sure that it matches in bounded time"
    )


@pytest.mark.parametrize(
    ("pattern", "piece"),
    [("(a+)+", "a"), ("(a|aa)+", "a"), (r"(\w+\s?)*", "a"), ("((a?)?b)*c", "b")],
)
def test_the_refused_ones_are_exponential_indeed(pattern: str, piece: str) -> None:
    """The work doubles with every few characters; measured in steps of growing texts."""
    import time

    def seconds(length: int) -> float:
        began = time.perf_counter()
        assert re.fullmatch(pattern, piece * length + "!") is None
        return time.perf_counter() - began

    short, long = (min(seconds(length) for _ in range(3)) for length in (10, 20))
    assert long > 20 * short
