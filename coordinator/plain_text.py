"""Strangers' text where a person or a line reader sees it: nothing in it acts, or ends a line.

Owns which characters those are: controls, what some readers take for the end of a line, and what
turns the direction of writing. Refuses to drop anything: each is shown as its escape.
"""

from __future__ import annotations

from typing import Final

_UNSEEN: Final = (
    *range(0x80, 0xA0),
    *(0x200E, 0x200F),
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
)
_IN_JSON: Final = {code: f"\\u{code:04x}" for code in (0x7F, *_UNSEEN)}
_IN_LINE: Final = {code: repr(chr(code))[1:-1] for code in (*range(32), 0x7F, *_UNSEEN)}
_IN_LINES: Final = {code: shown for code, shown in _IN_LINE.items() if chr(code) not in "\n\t"}


def one_line(text: str) -> str:
    """Make a text one line: nobody's text moves the cursor or forges a line."""
    return text.translate(_IN_LINE)


def lines(text: str) -> str:
    """Do the same for a text that has several lines."""
    return text.translate(_IN_LINES)


def plain_json(text: str) -> str:
    """Escape within the strings of a JSON text what JSON itself would let stand."""
    return text.translate(_IN_JSON)
