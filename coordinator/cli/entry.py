"""From the shell to a command and back to an exit code: every fault becomes a line on stderr."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from coordinator.cli import configuration
from coordinator.cli.app import app
from coordinator.domain.errors import ConfigurationInvalid, CoordinatorError
from coordinator.error_texts import stack_of

EXIT_FAILED = 1
EXIT_CONFIGURATION_INVALID = 2
EXIT_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line of this process and leave with its exit code."""
    sys.exit(_flushed(_run()))


def _run() -> int:
    try:
        app(prog_name="coordinator")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else EXIT_FAILED
    except ConfigurationInvalid as error:
        for mistake in error.mistakes:
            _complain(mistake)
        return EXIT_CONFIGURATION_INVALID
    except BrokenPipeError:
        return EXIT_FAILED
    except (CoordinatorError, OSError) as error:
        _complain(f"coordinator: {error}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:  # a bug: its traceback must not show a secret either (F39)
        _complain(stack_of(error).rstrip())
        return EXIT_FAILED
    return 0


def _complain(line: str) -> None:
    print(configuration.redact(line), file=sys.stderr)


def _flushed(code: int) -> int:
    """Flush now: at the interpreter's end a reader that has left would cost a complaint."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or EXIT_FAILED
    return code
