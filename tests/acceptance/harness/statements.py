"""What PostgreSQL is asked to parse: the texts of all statements on the wire, without parameters.

It is what the statement log would show with `log_statement = all`, read where no setting can hide
anything: every Query and every Parse message on the way to the server.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from contextlib import suppress

_LENGTH = struct.Struct("!I")
_STARTUP_MAJOR = 3


class StatementTap:
    """Forwards 127.0.0.1:`port` to a PostgreSQL server and counts the statements' texts."""

    def __init__(self, target_host: str, target_port: int) -> None:
        self.statements: Counter[str] = Counter()
        self._target = target_host, target_port
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def open(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close(self) -> None:
        """Let go of every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(*self._target)
        pumps = {
            asyncio.create_task(self._listen(reader, requests)),
            asyncio.create_task(_answer(answers, writer)),
        }
        self._running |= pumps
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for each in (writer, requests):
            each.transport.abort()
        await asyncio.gather(*pumps, return_exceptions=True)
        self._running -= pumps

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            started = False
            while not started:
                content = await _message(reader)
                started = _LENGTH.unpack_from(content)[0] >> 16 == _STARTUP_MAJOR
                writer.write(_LENGTH.pack(len(content) + 4) + content)
            while True:
                kind = await reader.readexactly(1)
                content = await _message(reader)
                if kind == b"Q":
                    self.statements[content.rstrip(b"\0").decode()] += 1
                elif kind == b"P":
                    self.statements[content.split(b"\0", 2)[1].decode()] += 1
                writer.write(kind + _LENGTH.pack(len(content) + 4) + content)
                await writer.drain()


async def _message(reader: asyncio.StreamReader) -> bytes:
    (length,) = _LENGTH.unpack(await reader.readexactly(4))
    return await reader.readexactly(length - 4)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while content := await reader.read(65_536):
            writer.write(content)
            await writer.drain()
