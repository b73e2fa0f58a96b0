"""Reads units from a file: one object, an array of them, or one after the other (JSON lines).

Owns only where each unit begins and ends: its text is sent as it stands, so that no number is
rounded and no member dropped on the way to the daemon, which judges it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from coordinator.domain.errors import CoordinatorError

_DECODER: Final = json.JSONDecoder()
_SPACE: Final = " \t\r\n"


class FileUnreadable(CoordinatorError):
    """The file cannot be read, or is not made of JSON values."""


def read_file(path: str) -> list[bytes]:
    """Give the text of every unit in the file, or in stdin when ``path`` is ``-``."""
    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise FileUnreadable(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileUnreadable(f"{path}: it is not UTF-8.") from error
    units = split_values(text, path)
    if not units:
        raise FileUnreadable(f"{path}: there is no unit in it.")
    return [unit.encode("utf-8", "surrogatepass") for unit in units]


def split_values(text: str, path: str) -> list[str]:
    """Cut the text into its JSON values; those of an array count one by one."""
    position = _skip(text, 0)
    if text[position : position + 1] == "[":
        return _split_array(text, position + 1, path)
    values = []
    while position < len(text):
        end = _end_of_value(text, position, path)
        values.append(text[position:end])
        position = _skip(text, end)
    return values


def _split_array(text: str, position: int, path: str) -> list[str]:
    values: list[str] = []
    position = _skip(text, position)
    while text[position : position + 1] != "]" or values:
        end = _end_of_value(text, position, path)
        values.append(text[position:end])
        position = _skip(text, end)
        separator = text[position : position + 1]
        if separator == "]":
            break
        if separator != ",":
            raise _not_json(text, position, path, "a comma or ] is missing")
        position = _skip(text, position + 1)
    if _skip(text, position + 1) != len(text):
        raise _not_json(text, position + 1, path, "something follows the array")
    return values


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _end_of_value(text: str, position: int, path: str) -> int:
    try:
        return _DECODER.raw_decode(text, position)[1]
    except json.JSONDecodeError as error:
        raise _not_json(text, error.pos, path, error.msg) from error
    except RecursionError as error:
        raise _not_json(text, position, path, "it is nested too deep") from error


def _not_json(text: str, position: int, path: str, what: str) -> FileUnreadable:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return FileUnreadable(f"{path}:{line}:{column}: not JSON: {what}.")
