"""Free TCP ports on 127.0.0.1.

Below the range from which the kernel takes the ports of outgoing connections: a test that kills a
server and starts it again on the same port would otherwise find, now and then, that one of its own
clients sits on that port.
"""

import random
import socket

LOWEST = 15_000
HIGHEST = 31_000
ATTEMPTS_MAX = 200

# The system's own chance: a start-up thread must neither disturb the sequence that somebody has
# seeded for a reproducible run, nor follow it onto another stack's ports.
_CHANCE = random.SystemRandom()


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: without it, connections that wait out their end look like a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that was free a moment ago.

    Random rather than ascending, so that two stacks that start together rarely meet; a caller that
    loses the race anyway asks again.
    """
    for _ in range(ATTEMPTS_MAX):
        port = _CHANCE.randint(LOWEST, HIGHEST)
        if is_free(port):
            return port
    raise OSError(f"no free port found between {LOWEST} and {HIGHEST}")
