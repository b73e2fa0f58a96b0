"""The acts: a look at two units, a steady hour, a rush, and a daemon that is killed in the middle.

Owns what happens when. Says on the console what it does; what it saw it returns as `Evidence`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Sequence
from typing import Final

from aiokafka import AIOKafkaProducer
from rich.console import Console

from coordinator.client import CoordinatorClient
from coordinator.demo.board import Board
from coordinator.demo.daemon import LEASE_TTL_SECONDS, DemoFailed
from coordinator.demo.evidence import Evidence, Pace, Story
from coordinator.demo.mishaps import Broken, broken_records
from coordinator.demo.progress import display
from coordinator.demo.sending import Sender
from coordinator.demo.shop import Sending, Shop
from coordinator.demo.stage import CONFIG_FOLDER, DATABASE, Stage, create_database
from coordinator.demo.stores import Snapshot, Stores
from coordinator.demo.topics import read_all, without_repeats

STEADY_PER_SECOND: Final = 200
_STEADY_SHARE: Final = 0.2
_RUSH_SHARE: Final = 0.5
_KILLED_AT_SHARE_MIN: Final = 0.1
_KILLED_AT_SHARE_MAX: Final = 0.6
_BROKEN_SHARE: Final = 0.005
_GROUP: Final = 20
_LOOK_SECONDS: Final = 0.04
_LOOK_ALONE_SECONDS: Final = 0.001
_ACT_SECONDS_MAX: Final = 60.0
_ENTITIES: Final = ("customer", "account", "stock", "order", "cart")
_OUTCOMES: Final = "coordinator.outcomes"
_DEAD_LETTERS: Final = "coordinator.units-dlt"


async def run(stage: Stage, console: Console, units: int, seed: int) -> Evidence:
    """Play all acts on servers that run; raise `DemoFailed` when one does not come to its end."""
    shop = Shop(seed, units)
    stories_of = shop.pair()
    day = shop.day()
    broken = broken_records(random.Random(seed), max(6, int(units * _BROKEN_SHARE)))
    await create_database(stage.addresses)
    async with Stores(
        stage.addresses.postgres_dsn, stage.addresses.mongodb_uri, DATABASE
    ) as stores:
        await stores.create(CONFIG_FOLDER / "sample")
        await stores.fill(shop.opening())
        before = await stores.snapshot()
        console.print(f"  {_filled(before)}")
        seconds = await stage.daemon.start()
        console.print(f"  the daemon (pid {stage.daemon.pid}) is ready after {seconds:.1f} s")
        acts = _Acts(stage, console, stores)
        async with (
            CoordinatorClient(stage.addresses.kafka_bootstrap) as client,
            AIOKafkaProducer(bootstrap_servers=stage.addresses.kafka_bootstrap) as producer,
        ):
            stories, paces = await acts.play(Sender(client, producer), stories_of, day, broken)
        open_units = len(await stores.open_units())
        exit_code = stage.daemon.stop()  # drains: what was decided is published
        after = await stores.snapshot()
    names = [f"coordinator.changes.{entity}" for entity in _ENTITIES]
    read = await read_all(stage.addresses.kafka_bootstrap, [*names, _OUTCOMES, _DEAD_LETTERS])
    once = {topic: without_repeats(messages) for topic, messages in read.items()}
    told = [*names, _OUTCOMES]
    return Evidence(
        sendings=[*stories_of, *day],
        broken=broken,
        before=before,
        after=after,
        outcomes=once[_OUTCOMES],
        changes={entity: once[name] for entity, name in zip(_ENTITIES, names, strict=True)},
        dead_letters=read[_DEAD_LETTERS],
        repeats=sum(len(read[topic]) - len(once[topic]) for topic in told),
        open_units=open_units,
        exit_code=exit_code,
        stories=stories,
        paces=paces,
    )


class _Acts:
    def __init__(self, stage: Stage, console: Console, stores: Stores) -> None:
        self._daemon = stage.daemon
        self._console = console
        self._stores = stores

    async def play(
        self,
        sender: Sender,
        stories_of: Sequence[Sending],
        day: Sequence[Sending],
        broken: Sequence[Broken],
    ) -> tuple[list[Story], list[Pace]]:
        self._title("Act 1  Two units, one after the other", "the whole story is told below")
        stories = [await self._tell(sender, sending) for sending in stories_of]
        steady, rush = int(len(day) * _STEADY_SHARE), int(len(day) * (_STEADY_SHARE + _RUSH_SHARE))
        third = len(broken) // 3
        self._title(
            "Act 2  A steady hour", f"{STEADY_PER_SECOND} units a second, and broken records"
        )
        paces = [await self._steady(sender, day[:steady], broken[:third])]
        self._title("Act 3  The rush", f"{rush - steady:,} units at once")
        paces.append(await self._rush(sender, day[steady:rush], broken[third : 2 * third]))
        self._title("Act 4  kill -9", f"{len(day) - rush:,} units at once, and no goodbye")
        await self._killed(sender, day[rush:], broken[2 * third :])
        return stories, paces

    async def _tell(self, sender: Sender, sending: Sending) -> Story:
        before = await self._stores.snapshot()
        board = Board(1)
        await self._finish(board, sender.send([sending], board))
        journal = await self._daemon.unit(sending.id)
        after = await self._stores.snapshot()
        self._console.print(
            f"  {sending.id}: {journal.get('status')} after {board.percentile_ms(1):.0f} ms",
        )
        return Story(sending, before, after, journal, board.seconds)

    async def _steady(
        self, sender: Sender, sendings: Sequence[Sending], broken: Sequence[Broken]
    ) -> Pace:
        board = Board(len(sendings))
        sent = sender.send_paced(sendings, board, per_second=STEADY_PER_SECOND, group=_GROUP)
        await self._finish(board, sent, sender.send_broken(broken))
        return _pace(f"steady, {STEADY_PER_SECOND} a second", board)

    async def _rush(
        self, sender: Sender, sendings: Sequence[Sending], broken: Sequence[Broken]
    ) -> Pace:
        board = Board(len(sendings))
        await self._finish(board, sender.send(sendings, board), sender.send_broken(broken))
        return _pace("rush, all at once", board)

    async def _killed(
        self, sender: Sender, sendings: Sequence[Sending], broken: Sequence[Broken]
    ) -> None:
        board = Board(len(sendings))
        await self._finish(
            board,
            sender.send(sendings, board),
            sender.send_broken(broken),
            self._kill_and_restart(board),
        )

    async def _kill_and_restart(self, board: Board) -> None:
        say = self._console.print
        await self._catch_in_the_middle(board)
        self._daemon.kill()
        killed_at = time.monotonic()
        say(f"  [bold red]kill -9 {self._daemon.pid}[/]")
        left = await self._stores.open_units()
        half = await self._stores.half_done(left)
        say(f"    {board.done:,} of {board.total:,} units have their outcome; the journal holds")
        say(f"    {len(left):,} open ones, for {half:,} of which MongoDB has been written already")
        seconds = await self._daemon.start()
        say(f"    a new daemon (pid {self._daemon.pid}) is ready after {seconds:.1f} s; it waits")
        say(f"    for the dead one's lease of {LEASE_TTL_SECONDS} s and takes its units over")
        while not set(left).isdisjoint(await self._stores.open_units()):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        say(f"    {_since(killed_at)} after the kill, what the journal held is ended")
        while board.done < board.total:  # noqa: ASYNC110 - the board is no event source
            await asyncio.sleep(_LOOK_SECONDS)
        say(f"    {_since(killed_at)} after the kill, so is what was still in Kafka")

    async def _catch_in_the_middle(self, board: Board) -> None:
        """Wait for a moment at which MongoDB is ahead of PostgreSQL, while units are waiting."""
        while board.done < board.total * _KILLED_AT_SHARE_MAX:
            is_begun = board.done > board.total * _KILLED_AT_SHARE_MIN
            if is_begun and await self._stores.half_done(await self._stores.open_units()):
                return
            await asyncio.sleep(0.001)

    async def _finish(self, board: Board, *work: Coroutine[None, None, None]) -> None:
        """Do the work and wait until every unit of the board has its outcome."""
        tasks = [asyncio.create_task(each) for each in work]
        ends_at = time.monotonic() + _ACT_SECONDS_MAX
        alone = board.total == 1
        try:
            with display(self._console, quiet=alone) as shown:
                while not (board.done >= board.total and all(task.done() for task in tasks)):
                    for task in tasks:
                        if task.done():
                            task.result()  # raises what went wrong
                    if time.monotonic() > ends_at:
                        raise DemoFailed(self._unfinished(board))
                    shown.show(board)
                    await asyncio.sleep(_LOOK_ALONE_SECONDS if alone else _LOOK_SECONDS)
                shown.show(board)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _unfinished(self, board: Board) -> str:
        return (
            f"Only {board.done} of {board.total} units had their outcome after "
            f"{_ACT_SECONDS_MAX:.0f} s.\n{self._daemon.last_words()}"
        )

    def _title(self, title: str, rest: str) -> None:
        self._console.print(f"\n[bold]{title}[/] [dim]· {rest}[/]")


def _since(moment: float) -> str:
    return f"{time.monotonic() - moment:.1f} s"


def _pace(title: str, board: Board) -> Pace:
    return Pace(
        title, board.total, board.seconds, board.percentile_ms(0.5), board.percentile_ms(0.99)
    )


def _filled(opened: Snapshot) -> str:
    return (
        f"the shop: {len(opened.customers):,} customers with an account each and "
        f"{len(opened.stock):,} products in PostgreSQL, {len(opened.carts):,} carts in MongoDB"
    )
