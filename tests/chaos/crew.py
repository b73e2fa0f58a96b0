"""The daemons of one world: several lives, one after the other and beside each other.

Each is given its faults while it runs, in a file of its own. Each is in a consumer group of its
own too: in one group whoever dies keeps its partitions for some seconds, and nothing rests on the
group, because the journal's positions decide who takes in what.
"""

from __future__ import annotations

import signal
from pathlib import Path

import asyncpg

from coordinator.fault_points import VARIABLE, FaultPoint
from tests.acceptance.harness.daemon import Daemon
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, free_port
from tests.chaos.workload import Workload

PATIENCE_SECONDS = 60.0
FENCED_EXIT_CODE = 3


class Member:
    """One daemon process, from its start to its end."""

    def __init__(self, world: World, number: int, environment: dict[str, str]) -> None:
        folder = world.folder
        address = f"127.0.0.1:{free_port()}"
        self.daemon = Daemon(world.daemon.config, folder / f"daemon-{number}.log", address)
        self._rules: Path = folder / f"faults-{number}"
        self._environment = environment | {
            VARIABLE: f"@{self._rules}",
            "COORDINATOR_HTTP__LISTEN": address,
            "COORDINATOR_KAFKA__GROUP_ID": f"{world.name}-{number}",
            "COORDINATOR_WORKER__NAME": f"{world.name}-{number}",
        }

    def arm(self, rule: str) -> None:
        """Give it a fault, which it meets when it gets there."""
        draft = self._rules.with_suffix(".draft")
        draft.write_text(rule)
        draft.replace(self._rules)

    def spawn(self) -> None:
        """Start the process."""
        self.daemon.spawn(self._environment)

    async def meets(self, point: FaultPoint) -> None:
        """Wait until it has met its fault."""

        async def met() -> bool:
            has = f"fault point {point}: " in self.daemon.log_text()
            assert has or self.daemon.exit_code() is None, f"it ended before\n{self.tail()}"
            return has

        await until(met, f"the daemon reaches {point}", PATIENCE_SECONDS, self.tail)

    async def killed(self) -> None:
        """Wait until it is dead by its fault."""
        assert await self.daemon.ended(PATIENCE_SECONDS) == -signal.SIGKILL, self.tail()

    async def leave(self) -> None:
        """Let it stop in order (F36)."""
        self.daemon.send(signal.SIGTERM)
        assert await self.daemon.ended() == 0, self.tail()

    def wake(self) -> None:
        """Let it go on after it stood still."""
        self.daemon.send(signal.SIGCONT)

    def tail(self) -> str:
        return self.daemon.tail(30)


class Crew:
    """Who runs, who ran, and the numbers of them all."""

    def __init__(self, world: World, journal: asyncpg.Connection) -> None:
        self.world = world
        self.members: list[Member] = []
        self.rounds: list[Workload] = []
        self._takeovers = 0
        self._journal = journal
        self._on_duty: Member | None = None

    def spawn(self, rule: str = "", **environment: str) -> Member:
        """Start a daemon, with a fault from its first moment on."""
        member = Member(self.world, len(self.members) + 1, environment)
        self.members.append(member)
        member.arm(rule)
        member.spawn()
        return member

    async def on_duty(self) -> Member:
        """Give a daemon that runs without a fault: the present one, or a new one."""
        member = self._on_duty
        if member is None or member.daemon.exit_code() is not None:
            self._on_duty = member = self.spawn()
            await member.daemon.ready(PATIENCE_SECONDS)
        return member

    def relieve(self, member: Member | None = None) -> None:
        """Let this one be the daemon on duty; without one, the next that is asked for is new."""
        self._on_duty = member

    async def alone(self) -> None:
        """Wait until every other worker's lease is gone: all that was theirs is taken over."""

        async def look() -> bool:
            leases: int = await self._journal.fetchval(
                "SELECT count(*) FROM coordinator.heartbeats"
            )
            return leases == 1

        await until(look, "one worker has a lease", PATIENCE_SECONDS, self.tail)

    async def new_takeovers(self) -> int:
        """How many more workers have been fenced by another since this was asked."""
        before, self._takeovers = (
            self._takeovers,
            await self._journal.fetchval("SELECT count(*) FROM coordinator.workers WHERE fenced"),
        )
        return max(0, self._takeovers - before)  # some may be forgotten

    def tail(self) -> str:
        return "\n".join(each.tail() for each in self.members[-3:])

    def kill(self) -> None:
        """Make sure that all are gone."""
        for each in self.members:
            each.daemon.kill()
