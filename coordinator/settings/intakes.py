"""The intakes: topics of units with authority of their own, one ``[[intake]]`` table each.

Owns names, types and bounds, as `models` does for the other tables. What grants say of entities is
judged in `coordinator.mapping`, where the entities are known; how intakes go together, and with
other settings, in `relations`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from coordinator.domain.signing import AUDIENCE_PATTERN, KEY_ID_PATTERN
from coordinator.mapping.declaration import OperationName
from coordinator.settings.section import Section, Text, Topic

ALL: Final = "all"
_PREFIX: Final = "[!-~]{0,64}"


def _check_key_id(text: str) -> str:
    if not re.fullmatch(KEY_ID_PATTERN, text):
        raise ValueError("must be 1 to 128 printable ASCII characters without blanks")
    return text


def _check_audience(text: str) -> str:
    if not re.fullmatch(AUDIENCE_PATTERN, text):
        raise ValueError("must be 1 to 249 printable ASCII characters without blanks")
    return text


def _check_prefix(text: str) -> str:
    if not re.fullmatch(_PREFIX, text):
        raise ValueError("must be at most 64 printable ASCII characters without blanks")
    return text


def _all_or_listed(given: Any) -> Any:
    """``"all"`` becomes None: everything that the mapping allows."""
    if given == ALL:
        return None
    if not isinstance(given, list | tuple):
        raise ValueError('must be "all" or an array of grants')
    return given


class Grant(Section):
    """What senders may do with one entity."""

    entity: Text = Field(description="The entity.")
    operations: Annotated[tuple[OperationName, ...], Field(strict=False, min_length=1)] = Field(
        description="The operations, in `compensate` as well."
    )
    fields: Annotated[tuple[Text, ...], Field(strict=False)] | None = Field(
        None,
        description="The fields that may be named: written, or expected. Without it, the whole "
        "record; `delete` is granted so only.",
        json_schema_extra={"shown": "all"},
    )


Grants: TypeAlias = Annotated[tuple[Grant, ...], Field(strict=False)]


class SigningKey(Section):
    """A public key: give `public_key` or `file`."""

    id: Annotated[str, AfterValidator(_check_key_id)] = Field(
        description="The name that signatures give it; different within the intake."
    )
    public_key: Text | None = Field(None, description="The 32 bytes of the key in base64.")
    file: Annotated[Path, Field(strict=False)] | None = Field(
        None, description="A file with the key in PEM, relative to `coordinator.toml`."
    )
    grants: Grants | None = Field(
        None,
        description="What its holder may do, within the intake's grants.",
        json_schema_extra={"shown": "the intake's"},
    )


class Signed(Section):
    """Only units with a signature of one of these keys are taken."""

    audience: Annotated[str, AfterValidator(_check_audience)] | None = Field(
        None,
        description="What signatures must be made for; different for each environment.",
        json_schema_extra={"shown": "the topic"},
    )
    max_age_seconds: int = Field(
        3_600,
        ge=1,
        le=2_592_000,
        description="Seconds from issue to expiry that a signature may span at most; less than "
        "`units.retention_days`.",
    )
    skew_seconds: int = Field(
        30, ge=0, le=600, description="Seconds by which a signer's clock may be wrong."
    )
    keys: Annotated[tuple[SigningKey, ...], Field(strict=False, min_length=1, max_length=1_000)] = (
        Field(description="The keys; several while one takes over from another.")
    )


class Intake(Section):
    """A topic of units, and what those who may write to it may do."""

    topic: Topic = Field(description="Units of work come from here.")
    grants: Annotated[Grants | None, BeforeValidator(_all_or_listed)] = Field(
        description='What is granted; what is not listed is forbidden. `"all"`: all entities with '
        "all their operations."
    )
    reply_to: Annotated[tuple[Topic, ...], Field(strict=False)] = Field(
        (), description="Topics that a `reply-to` header may name here."
    )
    cancels: Annotated[tuple[Topic, ...], Field(strict=False)] = Field(
        (), description="Topics beside this one whose units a cancel from here may end."
    )
    unit_id_prefix: Annotated[str, AfterValidator(_check_prefix)] = Field(
        "", description="What the ids of units and cancels from here must begin with."
    )
    signed: Signed | None = Field(None, description="If given, only signed units are taken.")


def topic_alone(units: str, reply_to: tuple[str, ...]) -> Intake:
    """Give the intake of a configuration without ``[[intake]]``: everything is granted."""
    return Intake(topic=units, grants=ALL, reply_to=reply_to)  # type: ignore[arg-type]
