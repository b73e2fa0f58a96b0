"""A TCP proxy between the daemon and a server: takes the server away, and gives it back.

It can also stand still with all its connections open, which is what a broken network and a
server that hangs look like. What was on its way then arrives late, or never if it is cut.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from coordinator.devstack.ports import free_port


class Proxy:
    """Forwards 127.0.0.1:`port` to a server while it is open. Closed, nobody listens there."""

    def __init__(self, target_host: str, target_port: int) -> None:
        self.port = free_port()
        self._target = target_host, target_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._requests_flow = asyncio.Event()
        self._answers_flow = asyncio.Event()
        self.thaw()

    async def open(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Refuse connections, and cut those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Cut the connections that there are; new ones are let through, or refused when closed."""
        for writer in list(self._writers):
            writer.transport.abort()

    def freeze(self, *, requests: bool = True, answers: bool = True) -> None:
        """Keep every connection open, new ones included, and let nothing through that way."""
        if requests:
            self._requests_flow.clear()
        if answers:
            self._answers_flow.clear()

    def thaw(self) -> None:
        """Let everything through that has waited, and what comes after it."""
        self._requests_flow.set()
        self._answers_flow.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._requests_flow.wait()
            beyond = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        ends = {writer, beyond[1]}
        self._writers |= ends
        await asyncio.gather(
            _pump(reader, beyond[1], self._requests_flow),
            _pump(beyond[0], writer, self._answers_flow),
        )
        self._writers -= ends


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: asyncio.Event
) -> None:
    with suppress(OSError):
        while content := await reader.read(65_536):
            await flow.wait()
            if writer.is_closing():
                break  # it was cut meanwhile: what was on its way is lost
            writer.write(content)
            await writer.drain()
    with suppress(OSError):
        writer.close()
