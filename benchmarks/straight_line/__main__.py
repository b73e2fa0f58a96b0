"""``python -m benchmarks.straight_line JSON``: run until SIGTERM."""

import asyncio
import gc
import json
import signal
import sys

import uvloop

from benchmarks.straight_line import READY
from benchmarks.straight_line.line import Places, opened


async def main(places: Places) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with opened(places) as line:
        gc.freeze()
        gc.set_threshold(10_000, 20, 10)  # as in the daemon
        print(READY, flush=True)
        running = asyncio.create_task(line.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        running.cancel()
        await asyncio.wait([running])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Places(**json.loads(sys.argv[1]))))
