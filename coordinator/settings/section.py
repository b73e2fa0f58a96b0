"""What every table of the file has in common, and the names that several tables hold."""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")


def check_topic(name: str) -> str:
    """Give it back if it can be a topic's name; raise `ValueError`."""
    if not TOPIC.fullmatch(name) or name in {".", ".."}:
        raise ValueError("must be a Kafka topic: 1 to 249 letters, digits, dots, _ and -")
    return name


Text: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=249)]
Topic: TypeAlias = Annotated[str, AfterValidator(check_topic)]


class Section(BaseModel):
    """One table of the file: nothing unknown in it, nothing changed later, no value repeated."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)
