"""A number of processes on this machine that are kept running: one that dies is started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from merit.pools.tether import tethered

STOP_S: Final = 40.0
"""How long a process that was asked to end may take; a worker drains for 30 s and says goodbye."""
_FIRST_S: Final = 0.2
_LAST_S: Final = 30.0
_LIVED_S: Final = 10.0
"""Who has lived this long has come up well: its next death begins the back-off anew."""


class PoolGaveUp(Exception):
    """None of the processes can work: each ended in a way that starting it again cannot mend."""


class PoolNews(Struct, frozen=True, kw_only=True):
    """A process of the pool was started (`code` is None), or has ended and is started again in `again_s` seconds (None:
    it is not, since the pool stops, it was told to leave, or it `cannot_work`)."""

    slot: int
    pid: int
    code: int | None = None
    again_s: float | None = None
    cannot_work: bool = False

    @property
    def unexpected(self) -> bool:
        """Whether it ended though nobody asked it to."""
        return self.again_s is not None or self.cannot_work

    @property
    def how(self) -> str:
        """How it ended, as a predicate."""
        code = self.code or 0
        how = f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        return f"{how}: it cannot work, see what it said; it is not started again" if self.cannot_work else how

    def __str__(self) -> str:
        if self.code is None:
            return f"started, process {self.pid}"
        again = "" if self.again_s is None else f"; started again in {self.again_s:.1f} s"
        return f"process {self.pid} {self.how}{again}"


class LocalPool:
    """Keeps processes running until it is stopped, or until all have left. `run` it; `stop` it from anywhere in its loop.

    Each process leads a session of its own, so that a Ctrl-C reaches the pool alone, and is told by the environment to end
    with the pool (`merit.pools.tether`): the pool leaves no orphans, even if it is killed.

    Args:
        command: gives the command of a slot (from 0).
        count: slots.
        folder: where each slot appends what it prints, to ``<slot>.log``; by default all print where the pool does.
        news: is told what happens.
        stop_s: how long a process that was asked to end may take before it is killed.
        give_up_codes: exit codes that mean that it cannot work (by custom 2: wrong usage). It is not started again; the
            others go on.
        done_codes: exit codes that mean that it was told to leave, by somebody else than the pool: it is not started again,
            and when all have left the pool has ended.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        count: int,
        *,
        folder: Path | None = None,
        news: Callable[[PoolNews], None] = lambda _: None,
        stop_s: float = STOP_S,
        give_up_codes: Collection[int] = (2,),
        done_codes: Collection[int] = (),
    ) -> None:
        self._command = command
        self._count = count
        self._folder = folder
        self._news = news
        self._stop_s = stop_s
        self._give_up_codes = give_up_codes
        self._done_codes = done_codes
        self._running: dict[int, Process] = {}
        self._given_up = 0
        self._stopping = asyncio.Event()

    @property
    def pids(self) -> dict[int, int]:
        """Ids of the processes that run, by slot."""
        return {slot: process.pid for slot, process in self._running.items()}

    def stop(self) -> None:
        """Ask all to end (SIGTERM); asked again, kill them."""
        if self._stopping.is_set():
            for process in self._running.values():
                _kill(process)
        self._stopping.set()

    async def run(self) -> None:
        """Keep the processes running until ``stop``, or until they have left; all have ended when this returns, also if it
        is cancelled.

        Raises:
            PoolGaveUp: none of them can work.
            OSError: one cannot be started at all.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for slot in range(self._count):
                    group.create_task(self._keep(slot))
        except* (PoolGaveUp, OSError) as errors:
            raise _first(errors) from None

    async def _keep(self, slot: int) -> None:
        next_s = _FIRST_S
        while not self._stopping.is_set():
            began_s = time.monotonic()
            process = await self._start(slot)
            code = await self._until_end(process, slot)
            if self._stopping.is_set() or code in self._done_codes:
                self._news(PoolNews(slot=slot, pid=process.pid, code=code))
                return
            if code in self._give_up_codes:
                news = PoolNews(slot=slot, pid=process.pid, code=code, cannot_work=True)
                self._news(news)
                self._given_up += 1
                if self._given_up == self._count:
                    raise PoolGaveUp(str(news))
                return
            if time.monotonic() - began_s >= _LIVED_S:
                next_s = _FIRST_S
            again_s = next_s * random.uniform(0.5, 1.0)
            next_s = min(_LAST_S, next_s * 2)
            self._news(PoolNews(slot=slot, pid=process.pid, code=code, again_s=again_s))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), again_s)

    async def _start(self, slot: int) -> Process:
        arguments = self._command(slot)
        environment = tethered()
        if self._folder is None:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),  # stdout belongs to the program that has the pool
                start_new_session=True,
                env=environment,
            )
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / f"{slot}.log").open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *arguments,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=environment,
                )
        self._running[slot] = process
        self._news(PoolNews(slot=slot, pid=process.pid))
        return process

    async def _until_end(self, process: Process, slot: int) -> int:
        """The exit code. When the pool stops, or this is cancelled, the process is asked to end, and killed if it does not."""
        ended = asyncio.ensure_future(process.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                process.terminate()
                await asyncio.wait((ended,), timeout=self._stop_s)
        finally:
            stopping.cancel()
            if not ended.done():
                _kill(process)
                await asyncio.shield(ended)
            del self._running[slot]
        return ended.result()


def _kill(process: Process) -> None:
    """Kill a process that is not reaped yet, and its group."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _first(errors: BaseExceptionGroup) -> BaseException:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
