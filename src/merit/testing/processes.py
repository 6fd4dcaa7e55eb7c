"""Real control planes and workers as processes of their own, to be killed, stopped and started again by tests.

async with running(PlaneProgram(tmp_path / "state")) as plane, running(WorkerProgram("worker.py", plane.address, "w1")):
    async with AsyncClient(plane.address) as merit:
        ...
        await plane.kill()
        await plane.start()
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec

from merit.testing.plane import READY, STANDBY, PlaneFaults

LINES_MAX = 500
"""Of what a program printed last are kept."""

SomeProgram = TypeVar("SomeProgram", bound="Program")


class ProgramFailed(AssertionError):
    """A program under test did not do what it should have; the message ends with what it printed last."""


class Program:
    """A process that can be started again and again.

    Args:
        command: the program and its arguments.
        ready: begins the line by which the program says that it is up, or one of several; empty: it is up at once.
    """

    def __init__(self, command: Sequence[str], ready: str | tuple[str, ...] = "") -> None:
        self.command = list(command)
        self.ready = ready
        self.lines: deque[str] = deque(maxlen=LINES_MAX)
        """What it printed last, over all its lives."""
        self.printed = 0
        """How many lines that were, with those that are forgotten."""
        self.starts = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_ready = asyncio.Event()
        self._news = asyncio.Event()

    @property
    def pid(self) -> int:
        """Of the present process."""
        if self._process is None:
            raise ProgramFailed(f"{self.command}: not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.returncode is None

    async def start(self, wait_s: float = 30.0, *, until_ready: bool = True) -> None:
        """Start it, and wait until it is up.

        Raises:
            ProgramFailed: it ended, or was not up within ``wait_s``.
        """
        await self._read_out()
        self._is_ready.clear()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = await asyncio.create_subprocess_exec(
            *self.command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment
        )
        self.starts += 1
        self._reading = asyncio.create_task(self._read(self._process))
        if until_ready and self.ready:
            await self.up(wait_s)

    async def up(self, wait_s: float = 30.0) -> None:
        """Wait until it is up; raises as ``start``."""
        process = self._process
        assert process is not None
        waits = [asyncio.create_task(self._is_ready.wait()), asyncio.create_task(process.wait())]
        try:
            await asyncio.wait(waits, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self._is_ready.is_set():
            raise self.failure(f"was not up within {wait_s:g} s (exit code {process.returncode})")

    async def ended(self, wait_s: float = 30.0) -> int:
        """Wait until it has ended by itself; its exit code, negative for a signal.

        Raises:
            ProgramFailed: it has not within ``wait_s``.
        """
        assert self._process is not None
        try:
            code = await asyncio.wait_for(self._process.wait(), wait_s)
        except TimeoutError:
            raise self.failure(f"did not end within {wait_s:g} s") from None
        await self._read_out()
        return code

    async def stop(self, wait_s: float = 30.0) -> int:
        """Ask it to end (SIGTERM); its exit code. Raises as ``ended``."""
        self._send(signal.SIGTERM)
        return await self.ended(wait_s)

    async def kill(self) -> None:
        """End it at once, as ``kill -9`` does."""
        self._send(signal.SIGKILL)
        await self.ended()

    async def says(self, begins: str, after: int = 0, wait_s: float = 30.0) -> str:
        """The first line that begins so, of those that come after ``after`` ones were ``printed``; waits for it.

        Raises:
            ProgramFailed: there was none within ``wait_s``.
        """
        try:
            async with asyncio.timeout(wait_s):
                while True:
                    self._news.clear()
                    forgotten = self.printed - len(self.lines)
                    for line in islice(self.lines, max(0, after - forgotten), None):
                        if line.startswith(begins):
                            return line
                    await self._news.wait()
        except TimeoutError:
            raise self.failure(f"did not say {begins!r} within {wait_s:g} s") from None

    def pause(self) -> None:
        """SIGSTOP: it stands still and does not know it."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._send(signal.SIGCONT)

    def failure(self, what: str) -> ProgramFailed:
        """An error that shows what the program printed."""
        return ProgramFailed(f"{' '.join(self.command)}: {what}\n  " + "\n  ".join(self.lines))

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError):  # a line beyond the reader's bound: nothing a test waits for
            async for line in process.stdout:
                text = line.decode("utf-8", "replace").rstrip("\n")
                self.lines.append(text)
                self.printed += 1
                self._news.set()
                if self.ready and text.startswith(self.ready):
                    self._is_ready.set()

    async def _read_out(self) -> None:
        """Read what is left; a child of the process may keep its output open, which is not waited for."""
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=0.2)
            self._reading.cancel()
            self._reading = None


class PlaneProgram(Program):
    """A control plane on a state directory and an address that stay the same from start to start.

    Args:
        state: its directory.
        faults: bounds, times, and when it is to die; may be set anew before each start.
        entry: what to run instead of ``python -m merit.testing.plane``; gets the same arguments.
    """

    def __init__(self, state: Path, faults: PlaneFaults | None = None, entry: Sequence[str] = ()) -> None:
        self.state = state
        self.faults = faults or PlaneFaults()
        self.address = f"127.0.0.1:{free_port()}"
        self.entry = list(entry) or [sys.executable, "-m", "merit.testing.plane"]
        super().__init__([], READY)

    async def start(self, wait_s: float = 30.0, *, until_ready: bool = True) -> None:
        """See ``Program.start``."""
        faults = msgspec.json.encode(self.faults).decode()
        self.command = [*self.entry, str(self.state), self.address, faults]
        await super().start(wait_s, until_ready=until_ready)


class NodeProgram(PlaneProgram):
    """A node: one of several control planes on one database. It is up when it leads, or stands by.

    Args:
        state: its directory, which it shares with nobody.
        faults: with ``store``, which all of them share.
        entry: as for ``PlaneProgram``.
    """

    def __init__(self, state: Path, faults: PlaneFaults, entry: Sequence[str] = ()) -> None:
        super().__init__(state, faults, entry)
        self.ready = (READY, STANDBY)

    async def leads(self, after: int = 0, wait_s: float = 30.0) -> int:
        """Wait until it says that it leads, after ``after`` lines; the epoch. Raises ``ProgramFailed``."""
        return int((await self.says(READY, after, wait_s)).rpartition(" ")[2])

    async def stands_by(self, after: int = 0, wait_s: float = 30.0) -> str:
        """Wait until it says that it stands by, after ``after`` lines; who leads. Raises ``ProgramFailed``."""
        return (await self.says(STANDBY, after, wait_s)).removeprefix(STANDBY)


class WorkerProgram(Program):
    """A worker: a Python script that serves at ``sys.argv[1]`` under the name ``sys.argv[2]``.

    Args:
        script: path of the script.
        server: ``HOST:PORT``.
        name: of the worker.
        arguments: more of them, for the script.
    """

    def __init__(self, script: str | Path, server: str, name: str, *arguments: str) -> None:
        self.name = name
        super().__init__([sys.executable, str(script), server, name, *arguments])


@asynccontextmanager
async def running(program: SomeProgram) -> AsyncIterator[SomeProgram]:
    """The program, started; killed on leaving if it still runs."""
    try:
        await program.start()
        yield program
    finally:
        await program.kill() if program.running else None


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now.

    Not one of those from which connections are made: while the control plane is away, somebody who tries to reach it
    there would in the end be connected with himself, and the port taken.
    """
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
