"""The options that every command takes, and loading what they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.domain.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from coordinator.settings import Settings

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration [default: $COORDINATOR_CONFIG, else config/coordinator.toml].",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Override one setting, such as kafka.group_id=blue; may be repeated.",
        show_default=False,
    ),
]

_redact: Callable[[str], str] = str


def redact(text: str) -> str:
    """Mask the secrets of the configuration that was loaded, if one was (F39)."""
    return _redact(text)


def load(config: Path | None, overrides: list[str] | None = None) -> Settings:
    """Load the configuration; raise `ConfigurationInvalid` with every mistake."""
    global _redact  # noqa: PLW0603 - one command per process, and faults are shown outside of it
    from coordinator.settings import load_settings

    settings = load_settings(config, _read_overrides(overrides or []))
    _redact = settings.redact
    return settings


def _read_overrides(overrides: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in overrides]
    mistakes = [f"--set {name}: write it as NAME=VALUE" for name, equals, _ in pairs if not equals]
    if mistakes:
        raise ConfigurationInvalid(mistakes)
    return {name.strip(): value for name, _, value in pairs}
