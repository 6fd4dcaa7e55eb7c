"""One control plane in one process: journal, cell and gateway, put together and kept going."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from merit.app.explainer import JournalExplainer
from merit.app.restore import restore
from merit.app.snapshot import take_snapshot
from merit.app.state_directory import CELL, DEFAULT, StateDirectory
from merit.app.strategies import load_strategies
from merit.core.machine import Machine
from merit.gateway.blobs_service import BlobsService
from merit.gateway.dead_letters_service import DeadLettersService
from merit.gateway.door import Door
from merit.gateway.fleet_service import FleetService
from merit.gateway.gateway_worker_service import GatewayWorkerService
from merit.gateway.queues_service import QueuesService
from merit.gateway.registry_service import RegistryService
from merit.gateway.schedules_service import SchedulesService
from merit.gateway.server import GrpcServer, check_address
from merit.gateway.streams import WorkersService
from merit.gateway.tasks_service import TasksService
from merit.gateway.unary.roster import UnaryWorkers
from merit.kernel.quarantine import Stopped
from merit.model.limits import Limits
from merit.model.tenancy import DEFAULT_TENANT
from merit.ports.blobs import BlobError
from merit.runtime.cell import CellLoop
from merit.runtime.cron_planner import plan
from merit.runtime.task_finder import TaskFinder
from merit.storage.file_blobs import FileBlobs
from merit.storage.file_snapshots import FileSnapshots
from merit.storage.sqlite_journal import SqliteJournal
from merit.storage.sqlite_reader import open_reader

log = logging.getLogger("merit")

SNAPSHOT_EVENTS: Final = 1_000_000
"""A snapshot is taken when this many events have come since the last one."""
_SNAPSHOT_EVENTS_AT_END: Final = 10_000
_LOOK_S: Final = 0.05


class Settings(Struct, frozen=True, kw_only=True):
    """What one control plane is told."""

    state: Path = DEFAULT
    grpc: str = "127.0.0.1:50051"
    limits: Limits = Limits()


class ControlPlane:
    """``run`` it; ``stop`` it from a signal."""

    def __init__(self, settings: Settings) -> None:
        check_address(settings.grpc)
        self._settings = settings
        self._directory = StateDirectory(settings.state)
        self._stop = asyncio.Event()
        self._snapshot_sequence = 0
        self._address = settings.grpc

    def stop(self) -> None:
        """End in an orderly way: ``run`` returns."""
        self._stop.set()

    async def run(self, ready: Callable[[str, int], None] = lambda address, epoch: None) -> None:
        """Lead the cell and serve it until ``stop``.

        Args:
            ready: called with the address and the epoch when everything is up.

        Raises:
            JournalError: the journal cannot be led, or could not be written; what was acknowledged is safe.
            Stopped: a defect; its cause has been set aside, start again.
            CannotListen: the address cannot be had.
        """
        directory = self._directory
        journal = SqliteJournal(directory.journal, CELL)
        holder = f"{socket.gethostname()}-{os.getpid()}"
        try:
            tail = journal.lead(holder, time.time_ns())
            began_s = time.monotonic()
            state, _ = restore(journal, FileSnapshots(directory.snapshots))
            self._snapshot_sequence = state.sequence
            log.info("state at sequence %d after %.2f s", state.sequence, time.monotonic() - began_s)
            machine = Machine(state, load_strategies(), self._settings.limits)
            finder = TaskFinder(lambda: open_reader(directory.journal, CELL))
            cell = CellLoop(machine, journal, tail, holder, directory.quarantine(), finder, plan)
            server, unary = self._server(cell, journal, finder)
            _settle_memory()
            unary.start()
            self._address = await server.start()
            log.info("cell %s, epoch %d, leads; gRPC on %s", CELL, tail.epoch, self._address)
            ready(self._address, tail.epoch)
            await self._serve(cell, journal, server, unary)
        finally:
            journal.close()

    def _server(self, cell: CellLoop, journal: SqliteJournal, finder: TaskFinder) -> tuple[GrpcServer, UnaryWorkers]:
        blobs = FileBlobs(self._directory.blobs)

        def load_blob(digest: str) -> bytes:
            try:
                return blobs.get(DEFAULT_TENANT, digest)
            except BlobError as error:
                raise LookupError(str(error)) from error

        def address() -> str:
            return self._address

        door = Door(cell.state.offers, load_blob)
        unary = UnaryWorkers(cell, door, blobs)
        server = GrpcServer(
            self._settings.grpc,
            WorkersService(cell, door),
            TasksService(cell, door, finder.tasks, journal.size_bytes),
            BlobsService(blobs),
            QueuesService(cell),
            DeadLettersService(cell),
            SchedulesService(cell, door),
            FleetService(cell, door, finder.tasks, JournalExplainer(self._directory, self._settings.limits)),
            RegistryService(cell, door, unary, address),
            GatewayWorkerService(cell, door, blobs, finder.keys, address),
        )
        return server, unary

    async def _serve(self, cell: CellLoop, journal: SqliteJournal, server: GrpcServer, unary: UnaryWorkers) -> None:
        stopping = asyncio.create_task(self._stop.wait())
        keeping = asyncio.create_task(self._keep(cell, journal))
        try:
            await asyncio.wait((stopping, cell.failed, keeping), return_when=asyncio.FIRST_COMPLETED)
            error = cell.failed.result() if cell.failed.done() else None
            if isinstance(error, Stopped):
                self._directory.set_aside(error)
            if keeping.done() and error is None:
                keeping.result()
        finally:
            for task in (stopping, keeping):
                task.cancel()
            # What has failed is raised above; here it must not keep the streams from being ended.
            await asyncio.gather(stopping, keeping, return_exceptions=True)
            await cell.close()
            await unary.close()
            await server.stop(0.5)
        if error is not None:
            raise error
        if cell.state.sequence - self._snapshot_sequence >= _SNAPSHOT_EVENTS_AT_END:
            await asyncio.to_thread(take_snapshot, self._directory)

    async def _keep(self, cell: CellLoop, journal: SqliteJournal) -> None:
        """Housekeeping beside the cell: checkpoints in a thread, snapshots in a process."""
        snapshot: asyncio.subprocess.Process | None = None
        while True:
            await asyncio.sleep(_LOOK_S)
            if journal.checkpoint_due:
                await asyncio.to_thread(journal.checkpoint)
            if snapshot is not None and snapshot.returncode is not None:
                if snapshot.returncode:
                    log.error("no snapshot could be taken (exit code %d); starts take longer", snapshot.returncode)
                snapshot = None
            if snapshot is None and cell.state.sequence - self._snapshot_sequence >= SNAPSHOT_EVENTS:
                self._snapshot_sequence = cell.state.sequence
                try:
                    snapshot = await asyncio.create_subprocess_exec(
                        sys.executable, "-m", "merit.app.snapshot", str(self._directory.path)
                    )
                except OSError as error:  # no memory or no process to be had just now: no reason to end the cell
                    log.error("no snapshot could be taken (%s); starts take longer", error)


def _settle_memory() -> None:
    """What is there at the start stays; and hot structures hold no cycles, so that collecting seldom costs nothing."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


async def run_until_signal(settings: Settings, ready: Callable[[str, int], None] = lambda address, epoch: None) -> None:
    """Run a control plane until SIGTERM or SIGINT; raises what ``ControlPlane.run`` raises."""
    plane = ControlPlane(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, plane.stop)
    await plane.run(ready)
