"""Looking through a text that is JSON but for what F1 lets us look past.

Owns one question: when a submission is broken by a repeated member, by NaN or Infinity, or by its
depth, and by nothing else, which strings does it hold at a given path? Refuses to recurse, so
that no depth can exhaust the stack, and to make values: the text stays broken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final


def recover_strings(text: str, names: Sequence[str]) -> list[str | None]:
    """Find the members ``names[-1]`` of the object at path ``names[:-1]`` of a broken text.

    ``text`` is that of a recoverable `BrokenJson`. One entry per occurrence: its string, or
    ``None`` if it is no string. Empty if a step of the path is missing, repeated or no object.
    """
    return Scan(text, tuple(names)).found


_TOKEN: Final = re.compile(
    r"""[ \t\n\r]*+(?:
        (?P<string>"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+")
      | (?P<scalar>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?
                  |true|false|null|NaN|-?Infinity)
      | (?P<mark>[][{},:])
    )""",
    re.VERBOSE,
)
_REST: Final = re.compile(r"[ \t\n\r]*+")

_VALUE, _FIRST_ITEM, _FIRST_NAME, _NAME, _COLON, _AFTER = range(6)
"""What may come next; ``_FIRST_ITEM`` allows ``]`` as well, ``_FIRST_NAME`` ``}``."""


class Scan:
    """One pass over a text without recursion: is it JSON, but for what F1 lets us look past?

    Members that are repeated, NaN, Infinity and any depth are let pass. ``found`` is as
    `recover_strings` tells.
    """

    def __init__(self, text: str, names: tuple[str, ...] = ()) -> None:
        self.lone_surrogate = False
        self.found: list[str | None] = []
        self._names = names
        self._steps = [0] * len(names)
        self._open: list[bool] = []
        """The open containers, outermost first: whether each is an object."""
        self._on_path = 0
        """How many of the open containers are those that ``names`` leads through."""
        self._name: str | None = None
        """The name of the member that is being read, where it may be one of ``names``."""
        self.valid = self._run(text)
        if not self.valid or any(count > 1 for count in self._steps[:-1]):
            self.found = []

    def _run(self, text: str) -> bool:
        at, state = 0, _VALUE
        while True:
            token = _TOKEN.match(text, at)
            if token is None:
                return False
            at = token.end()
            next_state = self._take(state, token)
            if next_state is None:
                return False
            state = next_state
            if state == _AFTER and not self._open:
                return _REST.fullmatch(text, at) is not None

    def _take(self, state: int, token: re.Match[str]) -> int | None:
        string = token["string"]
        mark = token["mark"]
        if state in (_FIRST_NAME, _NAME):
            if string is not None:
                self._begin_member(self._decode(string))
                return _COLON
            return self._close(mark) if state == _FIRST_NAME and mark == "}" else None
        if state == _COLON:
            return _VALUE if mark == ":" else None
        if state == _AFTER:
            if mark == ",":
                return _NAME if self._open[-1] else _VALUE
            return self._close(mark)
        if mark is None:
            self._end_member(None if string is None else self._decode(string))
            return _AFTER
        if mark == "]" and state == _FIRST_ITEM:
            return self._close(mark)
        return self._begin_container(mark)

    def _begin_member(self, name: str) -> None:
        self._name = None
        depth = len(self._open)
        if depth == self._on_path and depth <= len(self._names) and name == self._names[depth - 1]:
            self._steps[depth - 1] += 1
            self._name = name

    def _end_member(self, string: str | None) -> None:
        if self._name is not None and len(self._open) == len(self._names) == self._on_path:
            self.found.append(string)
        self._name = None

    def _begin_container(self, mark: str) -> int | None:
        if mark not in "[{":
            return None
        depth = len(self._open)
        leads_on = depth == self._on_path and (depth == 0 or self._name is not None)
        if leads_on and depth == len(self._names):
            self._end_member(None)
        elif leads_on and mark == "{":
            self._on_path += 1
        self._name = None
        self._open.append(mark == "{")
        return _FIRST_NAME if mark == "{" else _FIRST_ITEM

    def _close(self, mark: str | None) -> int | None:
        if not self._open or mark != ("}" if self._open[-1] else "]"):
            return None
        self._open.pop()
        self._on_path = min(self._on_path, len(self._open))
        return _AFTER

    def _decode(self, token: str) -> str:
        if "\\" not in token:
            return token[1:-1]
        string: str = json.loads(token)
        if "\\u" in token and not _is_text(string):
            self.lone_surrogate = True
        return string


def _is_text(string: str) -> bool:
    try:
        string.encode()
    except UnicodeEncodeError:
        return False
    return True
