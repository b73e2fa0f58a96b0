"""Patterns that could match for ever (I12).

The pattern is the operator's, the text is a stranger's. Python's matcher backtracks: where one
repetition stands inside another and both can take the same characters, as in ``(a+)+``, thirty
characters are enough to stop the event loop for good, and with it the lease.

Owns the test for that. The pattern becomes an automaton whose states are the places where a
character is matched (Glushkov's construction, with every *way* from one place to the next counted).
It matches in exponential time where a loop can be walked in two ways over the same text: two ways
between the same two places of a loop, or two different loops from one place that can be walked side
by side (Weideman et al., "Analyzing matching time behavior of backtracking regular expression
matchers by using ambiguity of NFA"). Refuses to guess: what it cannot take apart it lets pass,
because the text's length is bounded (`value_reading`) and most patterns are simple.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

_PLACES_MAX: Final = 400
_STEPS_MAX: Final = 300_000
"""Steps of the search, a second at most: the number of pairs of places grows with their square."""
_COPIES_MAX: Final = 3
"""Copies that stand for a counted repetition: more would not show more."""

_parser: Any = importlib.import_module("re._parser")
_codes: Any = importlib.import_module("re._constants")

Chars = frozenset[str]

_MANY: Final = 2


def pattern_fault(pattern: str) -> str | None:
    """Say what is wrong with a pattern; ``None`` if it may be used."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        what = error.msg if isinstance(error, re.error) else "it is too large"
        return f"is no regular expression: {what}"
    try:
        is_exponential = _Places(_parser.parse(pattern)).is_exponential()
    except _TooLarge:
        return "is too complicated to be sure that it matches in bounded time"
    if is_exponential:
        return (
            "could take for ever on some texts: a repetition inside a repetition, as in (a+)+, "
            "can take the same characters in several ways; make what repeats begin or end with "
            "a character of its own"
        )
    return None


class _TooLarge(Exception):
    """More places than we look at."""


@dataclass(slots=True)
class _Part:
    """A part of the pattern: where it may begin and end, and how it may match nothing.

    ``first`` and ``last`` count the ways to each place, ``empty`` those to match nothing. More
    than two ways are two: what matters is whether there is more than one.
    """

    first: Counter[int] = field(default_factory=Counter)
    last: Counter[int] = field(default_factory=Counter)
    empty: int = 1


class _Places:
    def __init__(self, tree: Any) -> None:
        self._alphabet = _alphabet(tree)
        self._chars: list[Chars] = []
        self._ways: Counter[tuple[int, int]] = Counter()
        self._steps = 0
        self._sequence(tree)

    # --- building -------------------------------------------------------------------------------

    def _sequence(self, items: Iterable[Any]) -> _Part:
        whole = _Part()
        for code, argument in items:
            whole = self._then(whole, self._item(code, argument))
        return whole

    def _then(self, one: _Part, two: _Part) -> _Part:
        self._connect(one.last, two.first)
        return _Part(
            first=_either_way(one.first, two.first, one.empty),
            last=_either_way(two.last, one.last, two.empty),
            empty=min(_MANY, one.empty * two.empty),
        )

    def _connect(self, ends: Counter[int], begins: Counter[int]) -> None:
        for end, ways_out in ends.items():
            for begin, ways_in in begins.items():
                found = self._ways[end, begin] + ways_out * ways_in
                self._ways[end, begin] = min(_MANY, found)

    def _item(self, code: Any, argument: Any) -> _Part:
        if code in _REPEATS:
            return self._repeat(*argument)
        if code == _codes.SUBPATTERN:
            return self._sequence(argument[-1])
        if code == _codes.ATOMIC_GROUP:
            return self._sequence(argument)
        if code == _codes.BRANCH:
            return self._either([self._sequence(each) for each in argument[1]])
        chars = _chars_of(code, argument)
        if chars is None:
            return _Part()  # anchors, look-arounds, back-references: no character of their own
        return self._place(frozenset(filter(chars, self._alphabet)))

    def _place(self, chars: Chars) -> _Part:
        if len(self._chars) >= _PLACES_MAX:
            raise _TooLarge
        self._chars.append(chars)
        at = len(self._chars) - 1
        return _Part(Counter([at]), Counter([at]), empty=0)

    def _either(self, parts: Iterable[_Part]) -> _Part:
        whole = _Part(empty=0)
        for part in parts:
            whole.first = _either_way(whole.first, part.first, 1)
            whole.last = _either_way(whole.last, part.last, 1)
            whole.empty = min(_MANY, whole.empty + part.empty)
        return whole

    def _repeat(self, least: int, most: Any, items: Any) -> _Part:
        endless = most == _codes.MAXREPEAT
        needed = min(least, _COPIES_MAX)
        whole = _Part()
        for _ in range(needed):
            whole = self._then(whole, self._sequence(items))
        if endless:
            part = self._sequence(items)
            self._connect(part.last, part.first)
            # No round, or one round that matches nothing: the matcher stops after such a one.
            part.empty = min(_MANY, 1 + part.empty)
            return self._then(whole, part)
        optional = min(most - least, _COPIES_MAX)
        tail = _Part()
        for _ in range(optional):
            tail = self._then(self._sequence(items), tail)
            tail.empty = min(_MANY, 1 + tail.empty)
        return self._then(whole, tail)

    # --- judging --------------------------------------------------------------------------------

    def is_exponential(self) -> bool:
        """Whether some loop can be walked in two ways over the same text."""
        onwards: dict[int, list[int]] = {}
        for one, two in self._ways:
            onwards.setdefault(one, []).append(two)
        reach = {at: self._reachable([at], lambda each: onwards.get(each, [])) for at in onwards}
        in_loop = {way for way in self._ways if way[0] in reach.get(way[1], ()) or way[0] == way[1]}
        if any(self._ways[way] > 1 for way in in_loop):
            return True
        loops: dict[int, list[int]] = {}
        for one, two in in_loop:
            loops.setdefault(one, []).append(two)
        return self._walks_apart_and_back(loops)

    def _walks_apart_and_back(self, loops: dict[int, list[int]]) -> bool:
        """Whether two walks can leave one place, differ, and meet there again on the same text."""

        def side_by_side(pair: tuple[int, int]) -> list[tuple[int, int]]:
            return [
                (one, two)
                for one in loops.get(pair[0], [])
                for two in loops.get(pair[1], [])
                if self._chars[one] & self._chars[two]
            ]

        for start in loops:
            apart = [pair for pair in side_by_side((start, start)) if pair[0] < pair[1]]
            if apart and (start, start) in self._reachable(apart, side_by_side):
                return True
        return False

    def _reachable(self, begin: Iterable[Any], onwards: Callable[[Any], Iterable[Any]]) -> set[Any]:
        """Give ``begin`` and everything that can be reached from it."""
        seen: set[Any] = set()
        waiting = deque(begin)
        while waiting:
            at = waiting.popleft()
            if at in seen:
                continue
            seen.add(at)
            further = list(onwards(at))
            self._steps += len(further)
            if self._steps > _STEPS_MAX:
                raise _TooLarge
            waiting.extend(further)
        return seen


def _either_way(one: Counter[int], two: Counter[int], times: int) -> Counter[int]:
    """Add the ways of ``two``, each of them ``times``."""
    whole = Counter(one)
    if times:
        for at, ways in two.items():
            whole[at] = min(_MANY, whole[at] + ways * times)
    return whole


# --- characters ---------------------------------------------------------------------------------

_REPEATS: Final = frozenset(
    getattr(_codes, name)
    for name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
    if hasattr(_codes, name)
)

_SPECIMENS: Final = "aZ07_- \n\t.,;:@/é漢\x00"
"""Characters of every class, in addition to those that the pattern names."""

_CATEGORIES: Final[dict[Any, Callable[[str], bool]]] = {
    _codes.CATEGORY_DIGIT: str.isdecimal,
    _codes.CATEGORY_NOT_DIGIT: lambda char: not char.isdecimal(),
    _codes.CATEGORY_SPACE: str.isspace,
    _codes.CATEGORY_NOT_SPACE: lambda char: not char.isspace(),
    _codes.CATEGORY_WORD: lambda char: char.isalnum() or char == "_",
    _codes.CATEGORY_NOT_WORD: lambda char: not (char.isalnum() or char == "_"),
}


def _chars_of(code: Any, argument: Any) -> Callable[[str], bool] | None:
    """Give the test for the characters that an item matches; ``None`` if it matches none."""
    if code == _codes.LITERAL:
        return lambda char: ord(char) == argument
    if code == _codes.NOT_LITERAL:
        return lambda char: ord(char) != argument
    if code == _codes.ANY:
        return lambda char: char != "\n"
    if code == _codes.RANGE:
        return lambda char: bool(argument[0] <= ord(char) <= argument[1])
    if code == _codes.CATEGORY:
        test: Callable[[str], bool] = _CATEGORIES.get(argument, bool)
        return test
    if code == _codes.IN:
        return _class_of(argument)
    return None


def _class_of(items: list[Any]) -> Callable[[str], bool]:
    negated = bool(items) and items[0][0] == _codes.NEGATE
    tests = [test for each in items if (test := _chars_of(*each)) is not None]
    return lambda char: any(test(char) for test in tests) != negated


def _alphabet(tree: Any) -> Chars:
    """Give characters that tell the classes of this pattern apart."""
    found = set(_SPECIMENS)

    def gather(node: Any) -> None:
        if isinstance(node, int) and 0 <= node < 0x10FFFF:
            found.update(chr(code) for code in (max(0, node - 1), node, node + 1))
        elif isinstance(node, tuple | list) or hasattr(node, "data"):
            for each in node:
                gather(each)

    gather(tree)
    return frozenset(found)
