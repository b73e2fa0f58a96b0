"""``coordinator keys``: the keys by which units are signed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.configuration import Config
from coordinator.cli.output import show_record
from coordinator.domain.errors import CoordinatorError

keys_app = typer.Typer(
    help="Keys by which units are signed.", no_args_is_help=True, rich_markup_mode=None
)


class KeyNotWritten(CoordinatorError):
    """The file of a new key could not be written; the message says why."""


@keys_app.command("new")
def new(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Where the private key goes; it must not be there."),
    ],
    config: Config = None,
) -> None:
    """Make a key pair: the private key into a file that only you may read, the public one shown."""
    from base64 import b64encode

    from coordinator.signatures import generate_seed, private_pem, public_key_of

    seed = generate_seed()
    try:
        # Never over another key, and readable by nobody else from the first moment.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(private_pem(seed))
    except OSError as error:
        raise KeyNotWritten(f"{file}: {error.strerror}") from error
    public_key = b64encode(public_key_of(seed)).decode()
    show_record({"private_key": str(file), "public_key": public_key})
