"""Runs one server and ends it when whoever started it is gone, however that came about.

Owns a server process and a pipe. The pipe's other end belongs to the process that asked for the
server; the kernel closes it when that process exits, crashes or is killed, and then the tether
stops the server. This replaces Linux's parent-death signal, which is tied to a *thread* of the
parent, is reset when a process changes its user (PostgreSQL has to, below root), and exists on no
other system.

Run as a program, by its path and with `python -P` (this folder has modules whose names must not
shadow installed ones):

    tether.py --signal N --grace SECONDS --log FILE --cwd FOLDER [--detached] -- PROGRAM ARG…

It prints the server's process id and then nothing more, and ends when the server has ended. With
`--detached` it ends at once and lets the server live on.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading

import psutil


def main(arguments: list[str]) -> int:
    """Start the server, report its process id, and wait for its end or for the pipe's."""
    options = _parse(arguments)
    # Ctrl-C is for the process that owns us; it decides, we follow the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(options.log, "ab") as log:
        server = subprocess.Popen(
            options.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=options.cwd,
            start_new_session=True,
        )
    if options.detached:
        print(server.pid, flush=True)
        return 0  # an orphan from here on, which the system's first process collects
    signal.signal(signal.SIGTERM, lambda *_: end(server.pid, options.signal, options.grace))
    print(server.pid, flush=True)
    os.close(sys.stdout.fileno())
    threading.Thread(
        target=_follow_pipe, args=(server.pid, options.signal, options.grace), daemon=True
    ).start()
    return server.wait()


def end(pid: int, stop_signal: int, grace_seconds: float) -> None:
    """Ask a server to stop; after the grace period, kill it with all its children."""
    try:
        server = psutil.Process(pid)
        family = [server, *server.children(recursive=True)]
        for process in family:
            _send(process, signal.SIGCONT)
        server.send_signal(stop_signal)
    except psutil.NoSuchProcess:
        return
    _, alive = psutil.wait_procs([server], timeout=grace_seconds)
    if alive:
        for process in [server, *family]:
            _send(process, signal.SIGKILL)


def _send(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _follow_pipe(pid: int, stop_signal: int, grace_seconds: float) -> None:
    while os.read(0, 1024):
        pass
    end(pid, stop_signal, grace_seconds)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--signal", type=int, required=True)
    parser.add_argument("--grace", type=float, required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--cwd", required=True)
    parser.add_argument("--detached", action="store_true")
    parser.add_argument("command", nargs="+")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
