"""A control plane and workers as real processes in a directory that is gone afterwards, and what they cost."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import psutil

from merit.app.state_directory import CELL, StateDirectory
from merit.app.stores import STORE_VARIABLE
from merit.core.codec import decode_event
from merit.model.events import TaskCompleted
from merit.model.tenancy import DEFAULT_TENANT
from merit.pools.tether import tethered
from merit.sdk.client import AsyncClient
from merit.storage.sqlite_reader import open_reader

CAPABILITIES: Final = "merit.lab.bench.capabilities"
_START_S: Final = 30.0
_STOP_S: Final = 5.0
_LOOK_S: Final = 0.02
_WATCH_S: Final = 0.5
_LOG_TAIL: Final = 2_000


class FleetFailed(Exception):
    """A process of the fleet did not come up, or has ended; with the end of what it logged."""


class Fleet:
    """Use it as ``async with Fleet(directory) as fleet``: on leaving, every process is killed and every file removed.
    When a process dies that was not to, what runs inside is canceled and ``FleetFailed`` says why.

    Args:
        directory: on whose disk the state lies; the system's temporary one by default.
        store: URL of the database that keeps the state in its place.
    """

    def __init__(self, directory: Path | None = None, *, store: str = "") -> None:
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        self._root = Path(tempfile.mkdtemp(prefix="merit-bench-", dir=directory))
        self.state = self._root / "state"
        self._store = store
        self.server = f"127.0.0.1:{_free_port()}"
        self.cell: psutil.Process
        self.workers: list[psutil.Process] = []
        self._running: list[tuple[psutil.Process, Path]] = []
        self._logs: list[IO[bytes]] = []
        self._owner: asyncio.Task[Any] | None = None
        self._watching: asyncio.Task[None]
        self._failure: FleetFailed | None = None

    async def __aenter__(self) -> Fleet:
        self._owner = asyncio.current_task()
        self.start_cell()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching.cancel()
        try:
            if self._failure is not None and kind is asyncio.CancelledError:
                assert self._owner is not None
                self._owner.uncancel()
                raise self._failure
        finally:
            self._end()

    async def _watch(self) -> None:
        """Whoever dies unasked ends the benchmark, which would wait for it for ever."""
        while self._failure is None:
            await asyncio.sleep(_WATCH_S)
            try:
                self.check()
            except FleetFailed as failed:
                self._failure = failed
        assert self._owner is not None
        self._owner.cancel()

    def _end(self) -> None:
        processes = [process for process, _ in self._running]
        for process in list(processes):
            # A snapshot that is being taken would be written after all else has been removed.
            with contextlib.suppress(psutil.NoSuchProcess):
                processes += process.children(recursive=True)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, _STOP_S)
        for log in self._logs:
            log.close()
        shutil.rmtree(self._root, ignore_errors=True)

    def launch(self, name: str, *arguments: str) -> psutil.Process:
        """Start a Python process of the fleet; it ends with the fleet."""
        path = self._root / f"{name}-{len(self._running)}.log"
        log = path.open("wb")
        self._logs.append(log)
        process = psutil.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**tethered(), STORE_VARIABLE: self._store},
        )
        self._running.append((process, path))
        return process

    def add_workers(self, count: int, concurrency: int | None = None) -> None:
        """Start worker processes with the benchmarks' capabilities; ``attached`` waits for them."""
        options = ("--concurrency", str(concurrency)) if concurrency else ()
        for _ in range(count):
            name = f"bench-{len(self.workers)}"
            arguments = ("-m", "merit", "worker", CAPABILITIES, "--server", self.server, "--name", name, *options)
            self.workers.append(self.launch(name, *arguments))

    def start_cell(self) -> None:
        """Start the control plane."""
        self.cell = self.launch("cell", "-m", "merit", "up", "--state", str(self.state), "--grpc", self.server)

    def kill_cell(self) -> None:
        """Kill -9 the control plane; its state stays."""
        self._forget([self.cell])
        self.cell.kill()
        self.cell.wait(_STOP_S)

    def lose_worker(self) -> None:
        """Kill -9 the worker that came last."""
        process = self.workers.pop()
        self._forget([process])
        process.kill()
        process.wait(_STOP_S)

    def _forget(self, processes: list[psutil.Process]) -> None:
        self._running = [(other, path) for other, path in self._running if other not in processes]

    async def connect(self, tenant: str = DEFAULT_TENANT) -> AsyncClient:
        """A client that is connected, for a tenant; to be closed by the caller.

        Raises:
            FleetFailed: the control plane does not answer.
        """
        end_s = time.monotonic() + _START_S
        while not _listens(self.server):
            self.check(time.monotonic() > end_s)
            await asyncio.sleep(_LOOK_S)
        return await AsyncClient(self.server, connect_timeout_s=_START_S, tenant=tenant).__aenter__()

    async def attached(self, client: AsyncClient, count: int) -> None:
        """Wait until ``count`` workers are there. Raises ``FleetFailed``."""
        end_s = time.monotonic() + _START_S
        while (await client.status())["workers"] < count:
            self.check(time.monotonic() > end_s)
            await asyncio.sleep(_LOOK_S)

    def check(self, late: bool = False) -> None:
        """See that everybody is alive. Raises ``FleetFailed``, also when it is too ``late``."""
        for process, path in self._running:
            if late or not _alive(process):
                what = "is not ready" if late else "has ended"
                raise FleetFailed(f"{path.stem} {what}: {path.read_text(errors='replace')[-_LOG_TAIL:]}")

    def cpu_s(self) -> float:
        """CPU seconds of the control plane and the workers so far."""
        return cpu_s([self.cell, *self.workers])

    def completions(self) -> dict[str, int]:
        """By task: how often the journal says that it was completed."""
        counts: dict[str, int] = {}
        with open_reader(StateDirectory(self.state).journal, CELL) as reader:
            for record in reader.read():
                for data in record.events:
                    if TaskCompleted.__name__.encode() in data and isinstance(
                        event := decode_event(data), TaskCompleted
                    ):
                        counts[event.task] = counts.get(event.task, 0) + 1
        return counts


@contextlib.asynccontextmanager
async def staffed(
    fleet: Fleet, workers: int, concurrency: int | None = None, *, tenant: str = DEFAULT_TENANT
) -> AsyncIterator[tuple[Fleet, AsyncClient]]:
    """A fleet with so many workers that are attached, and a client of it, for a tenant."""
    async with fleet:
        client = await fleet.connect(tenant)
        try:
            fleet.add_workers(workers, concurrency)
            await fleet.attached(client, workers)
            yield fleet, client
        finally:
            await client.aclose()


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """CPU seconds of processes so far, user and system."""
    total = 0.0
    for process in processes:
        times = process.cpu_times()
        total += times.user + times.system
    return total


def fine_cpu_s(process: psutil.Process) -> float:
    """As ``cpu_s`` of one process that runs: to the microsecond on Linux, elsewhere to the hundredth of a second."""
    if not psutil.LINUX:
        return cpu_s([process])
    # What clock_getcpuclockid(3) gives for the process as a whole, which Python has for threads only.
    return time.clock_gettime_ns((~process.pid << 3) | 2) / 1e9


def rss_bytes(process: psutil.Process) -> int:
    """Resident memory of a process."""
    return int(process.memory_info().rss)


async def until(condition: Callable[[], bool], wait_s: float) -> bool:
    """Look again and again until the condition holds; False when it does not within ``wait_s``."""
    end_s = time.monotonic() + wait_s
    # What is waited for happens in another process or in memory, and tells nobody.
    while not condition():
        if time.monotonic() > end_s:
            return False
        await asyncio.sleep(_LOOK_S)
    return True


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(server: str) -> bool:
    host, _, port = server.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 1.0):
            return True
    except OSError:
        return False
