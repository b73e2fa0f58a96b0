"""TOML files, and what is wrong with them in words an operator understands.

Owns reading a file into plain values, and the sentences for pydantic's findings. Refuses to repeat
what was written: a value may be a secret (F39), so a mistake names its place and what is expected.

A mistake reads ``<file>: <dotted name>: <sentence>``.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from coordinator.domain.errors import ConfigurationInvalid

ModelT = TypeVar("ModelT", bound=BaseModel)

FILE_BYTES_MAX: Final = 4 * 1024 * 1024

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+|<name>")

Place = tuple[str, ...]
"""Where something stands in a file: the names of its tables and its own."""


def read_toml(path: Path, *, exact_fractions: bool = False) -> dict[str, Any]:
    """Read a file; raise `ConfigurationInvalid` naming it. A missing file is a mistake as well.

    With ``exact_fractions`` a number with a point comes as ``Decimal``, as it was written.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationInvalid([f"{path}: cannot be read: {error.strerror}"]) from error
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigurationInvalid([f"{path}: is larger than {FILE_BYTES_MAX} bytes"])
    try:
        return tomllib.loads(raw.decode(), parse_float=Decimal if exact_fractions else float)
    except UnicodeDecodeError as error:
        raise ConfigurationInvalid([f"{path}: is not UTF-8 (byte {error.start})"]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationInvalid([f"{path}: is not TOML: {error}"]) from error
    except RecursionError as error:
        raise ConfigurationInvalid([f"{path}: is nested too deeply"]) from error


def dotted(place: Iterable[str]) -> str:
    """Give a place as it is written in TOML: ``stores.ledger.dsn``, names quoted where needed."""
    return ".".join(name if _BARE.fullmatch(name) else f'"{name}"' for name in place)


def findings(error: ValidationError, known: Sequence[str] = ()) -> Iterator[tuple[Place, str]]:
    """Give (place below the model, sentence) for everything that pydantic found.

    ``known`` are the model's names, for a hint after an unknown one.
    """
    for found in error.errors(include_url=False, include_input=False):
        yield tuple(map(str, found["loc"])), _sentence(found, known)


def salvage(
    model: type[ModelT], table: Mapping[str, Any]
) -> tuple[ModelT, list[tuple[Place, str]]]:
    """Give the model without its wrong members, and what is wrong with those.

    So that the rest can be judged all the same. Every member of the model must be optional.
    """
    wrong: list[tuple[Place, str]] = []
    try:
        return model.model_validate(table), wrong
    except ValidationError as error:
        wrong += findings(error, tuple(model.model_fields))
    members = {at[0] for at, _ in wrong}
    return model.model_validate(
        {name: given for name, given in table.items() if name not in members}
    ), wrong


_SENTENCES: Final[dict[str, str]] = {
    "missing": "is missing",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be an array",
    "tuple_type": "must be an array",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} entries",
}


def _sentence(found: ErrorDetails, known: Sequence[str]) -> str:
    context = found.get("ctx", {})
    kind = found["type"]
    if kind == "extra_forbidden":
        return "is not known" + hint(str(found["loc"][-1]), known)
    if kind == "value_error":
        return str(context["error"])
    words = _SENTENCES.get(kind)
    if words is None:
        return found["msg"][:1].lower() + found["msg"][1:]
    return words.format(**{name: _short(value) for name, value in context.items()})


def _short(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def hint(name: str, known: Iterable[str]) -> str:
    """Give ``; do you mean …?`` when a known name is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; do you mean {near[0]}?" if near else ""
