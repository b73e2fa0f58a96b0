"""How a server that refuses root runs all the same: as another user, decided in one place.

`initdb` and `postgres` refuse to run as root, and containers and build machines are root. The
commands are then prefixed with `setpriv`, which every Linux has (util-linux).
"""

import functools
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from coordinator.devstack.errors import DevstackUnavailable
from coordinator.devstack.processes import environment

OTHER_USER = "nobody"

# The right to read and to pass through folders: the virtual environment and the data may lie below
# a folder that only root may enter (/root, or pytest's own in /tmp). It gives no right to write.
PASS_THROUGH = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def is_root() -> bool:
    """Whether this process has root's rights."""
    return os.geteuid() == 0


def give_to_other_user(folder: Path) -> None:
    """Make a folder (not what is in it) the other user's, when we are root."""
    if is_root():
        user = _other_user()
        os.chown(folder, user.pw_uid, user.pw_gid)


def command_prefix() -> list[str]:
    """Return what to put before a command that must not run as root; empty when we are not."""
    return _prefix_below_root() if is_root() else []


@functools.cache
def _prefix_below_root() -> list[str]:
    user = _other_user()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise DevstackUnavailable(
            "PostgreSQL refuses to run as root, and `setpriv`, which changes the user, is missing.",
            "install util-linux, or run as an ordinary user.",
        )
    identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    # A container may have dropped the capability; then the folders must be passable as they are.
    for prefix in ([setpriv, *identity, *PASS_THROUGH], [setpriv, *identity]):
        tried = subprocess.run(
            [*prefix, "true"], env=environment(), capture_output=True, check=False
        )
        if tried.returncode == 0:
            return prefix
    raise DevstackUnavailable(
        f"PostgreSQL refuses to run as root, and this process may not become {OTHER_USER!r}.",
        "run as an ordinary user, or give PostgreSQL's address instead.",
    )


def _other_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(OTHER_USER)
    except KeyError:
        raise DevstackUnavailable(
            f"PostgreSQL refuses to run as root, and there is no user {OTHER_USER!r} to run it as.",
            "run as an ordinary user.",
        ) from None
