"""A TCP proxy between the daemon and a server: takes the server away, and gives it back."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tests.acceptance.harness.world import free_port


class Proxy:
    """Forwards 127.0.0.1:`port` to a server while it is open. Closed, nobody listens there."""

    def __init__(self, target_host: str, target_port: int) -> None:
        self.port = free_port()
        self._target = target_host, target_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Refuse connections, and cut those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            beyond = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, beyond[1]}
        self._writers |= ends
        await asyncio.gather(_pump(reader, beyond[1]), _pump(beyond[0], writer))
        self._writers -= ends


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while content := await reader.read(65_536):
            writer.write(content)
            await writer.drain()
    with suppress(OSError):
        writer.close()
