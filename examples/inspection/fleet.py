"""The processes of an inspection: a control plane, workers of two speeds and a foreign one, each started again when it dies.

A slow worker is slow because it goes behind all others for the processors: it runs at a low priority (`nice`). Where there are
more processors than work it is as fast as the others.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from merit.pools.local_pool import LocalPool, PoolNews

CONCURRENCY = 3
NICE = 10
"""Of a slow worker: it gets about a tenth of the time that another one gets beside it."""
SLOW_EVERY = 3
STOP_S = 15.0
_CAPABILITIES = Path(__file__).with_name("capabilities.py")
_FOREIGN_AGENT = Path(__file__).with_name("foreign_agent.py")


class InspectionFleet:
    """A control plane on a port that was free, `workers` worker processes and a foreign agent, as children of this process.

    Use it as ``async with``; it is up when a client gets through to ``server``. What the processes print goes to files
    below `state`. `incident` is told of deaths, in words.
    """

    def __init__(self, state: Path, workers: int, incident: Callable[[str], None]) -> None:
        self.server = f"127.0.0.1:{_free_port()}"
        self._incident = incident
        self._down_s: dict[str, float] = {}
        merit = (sys.executable, "-m", "merit")
        up = (*merit, "up", "--state", str(state), "--grpc", self.server)
        logs = state / "logs"

        def worker(slot: int) -> tuple[str, ...]:
            # One child process each for what parses, and so one processor to offer to what needs one.
            room = ("--concurrency", str(CONCURRENCY), "--processes", "1", "--capacity", "cpu=1")
            slow = is_slow(slot)
            who = ("--name", f"inspector-{slot + 1}", "--tag", f"speed={'slow' if slow else 'fast'}")
            priority = ("nice", "-n", str(NICE)) if slow else ()
            return (*priority, *merit, "worker", str(_CAPABILITIES), "--server", self.server, *who, *room)

        # It knows nothing of the pool, so it has to be told with whom it ends.
        foreign = (sys.executable, str(_FOREIGN_AGENT), "--registry", self.server, "--parent", str(os.getpid()))
        self._plane = LocalPool(lambda _: up, 1, folder=logs / "control-plane", news=self._plane_news, stop_s=STOP_S)
        self._workers = LocalPool(worker, workers, folder=logs / "workers", news=self._worker_news, stop_s=STOP_S)
        self._foreign = LocalPool(lambda _: foreign, 1, folder=logs / "foreign", news=self._foreign_news, stop_s=STOP_S)
        self._running: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> InspectionFleet:
        pools = (self._plane, self._workers, self._foreign)
        self._running = [asyncio.create_task(pool.run()) for pool in pools]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        plane, *workers = self._running
        self._workers.stop()
        self._foreign.stop()
        await asyncio.wait(workers)
        self._plane.stop()
        await asyncio.wait((plane,))
        for task in self._running:
            if not task.cancelled():
                task.exception()  # `failed` has told; here it is only looked at

    async def failed(self) -> None:
        """Return never, unless one kind of processes cannot work at all. Raises PoolGaveUp, OSError."""
        done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def kill_worker(self) -> None:
        """Kill -9 one worker."""
        self._kill(self._workers)

    def kill_control_plane(self) -> None:
        """Kill -9 the control plane."""
        self._kill(self._plane)

    def kill_foreign_agent(self) -> None:
        """Kill -9 the foreign agent."""
        self._kill(self._foreign)

    def _kill(self, pool: LocalPool) -> None:
        for pid in list(pool.pids.values())[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _plane_news(self, news: PoolNews) -> None:
        self._tell("control plane", news)

    def _worker_news(self, news: PoolNews) -> None:
        self._tell(f"worker {news.slot + 1}", news)

    def _foreign_news(self, news: PoolNews) -> None:
        self._tell("foreign worker", news)

    def _tell(self, who: str, news: PoolNews) -> None:
        if news.unexpected:
            self._down_s[who] = time.monotonic()
            self._incident(f"{who} {news.how}")
        elif news.code is None and who in self._down_s:
            self._incident(f"{who} started again after {time.monotonic() - self._down_s.pop(who):.1f} s")


def is_slow(slot: int) -> bool:
    """Whether the worker of a slot (from 0) is a slow one."""
    return slot % SLOW_EVERY == SLOW_EVERY - 1


def _free_port() -> int:
    """A port that is free now. The control plane has to come back on it after a restart, so it cannot be its choice."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
