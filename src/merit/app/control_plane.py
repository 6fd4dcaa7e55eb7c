"""One control plane in one process: journal, cell and gateway, put together and kept going."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from merit.app.explainer import JournalExplainer
from merit.app.follower import SNAPSHOT_EVENTS, FollowerOrders
from merit.app.following import FollowerProcess
from merit.app.housekeeping import Housekeeping
from merit.app.judges import COMPARERS_GROUP, load_panel
from merit.app.lease import Lease
from merit.app.plug_ins import load_plug_ins
from merit.app.restore import restore
from merit.app.state_directory import DEFAULT
from merit.app.stores import Stores, open_stores
from merit.app.strategies import load_strategies
from merit.auditing.catalogue import COMPARERS
from merit.core.machine import Machine
from merit.core.state import State
from merit.gateway.auditing_process import AuditingProcess
from merit.gateway.audits_service import AuditsService
from merit.gateway.blobs_service import BlobsService
from merit.gateway.dead_letters_service import DeadLettersService
from merit.gateway.door import Door
from merit.gateway.fleet_service import FleetService
from merit.gateway.gateway_worker_service import GatewayWorkerService
from merit.gateway.memory import Memory
from merit.gateway.queues_service import QueuesService
from merit.gateway.registry_service import RegistryService
from merit.gateway.report_check import ReportCheck
from merit.gateway.schedules_service import SchedulesService
from merit.gateway.server import CannotListen, GrpcServer, check_address
from merit.gateway.settled import SettledAnswers
from merit.gateway.streams import WorkersService
from merit.gateway.supervision_service import SupervisionService
from merit.gateway.tasks_service import TasksService
from merit.gateway.unary.roster import UnaryWorkers
from merit.kernel.quarantine import Stopped
from merit.model.limits import Limits
from merit.model.record import Tail
from merit.model.retention import Retention
from merit.model.tenancy import DEFAULT_TENANT
from merit.ports.blobs import BlobCorrupt, BlobMissing, Blobs
from merit.ports.journal import LEASE_S, Journal
from merit.runtime.cell import CellLoop
from merit.runtime.cron_planner import plan
from merit.runtime.task_finder import TaskFinder

log = logging.getLogger("merit")

AUDITING: Final = (sys.executable, "-m", "merit.app.audit_reports")
"""The program that makes those checks of results that have no bound of their own. It is not imported here, so that the
interpreter of expressions is not in this process."""

Ready = Callable[[str, int], None]
"""Is told the address and the epoch when everything is up."""


class Settings(Struct, frozen=True, kw_only=True):
    """What one control plane is told."""

    state: Path = DEFAULT
    grpc: str = "127.0.0.1:50051"
    limits: Limits = Limits()
    retention: Retention = Retention()
    snapshot_events: int = SNAPSHOT_EVENTS
    store: str = ""
    """URL of the database that several nodes share; empty: everything is in the state directory."""
    lease_s: float = LEASE_S
    """With a store: who is not heard of for so long leads no more."""


class ControlPlane:
    """``run`` it; ``stop`` it from a signal."""

    def __init__(self, settings: Settings, stores: Stores | None = None) -> None:
        check_address(settings.grpc)
        settings.retention.check()
        self._settings = settings
        self._stores: Stores = stores or open_stores(settings.state)
        self.holder = f"{socket.gethostname()}-{os.getpid()}"
        """The name under which it leads."""
        self.stopping = asyncio.Event()
        self._address = settings.grpc

    @property
    def grpc(self) -> str:
        """The address on which it is to listen."""
        return self._settings.grpc

    def stop(self) -> None:
        """End in an orderly way: ``run`` returns."""
        self.stopping.set()

    async def run(self, ready: Ready = lambda address, epoch: None) -> None:
        """Lead the cell and serve it until ``stop``.

        Args:
            ready: called with the address and the epoch when everything is up.

        Raises:
            JournalError: the journal cannot be led, or could not be written; what was acknowledged is safe.
            Stopped: a defect; its cause has been set aside, start again.
            CannotListen: the address cannot be had.
        """
        journal = self._stores.journal()
        try:
            tail = journal.lead(self.holder, time.time_ns())
            began_s = time.monotonic()
            state, _ = restore(journal, self._stores.snapshots())
            log.info("state at sequence %d after %.2f s", state.sequence, time.monotonic() - began_s)
            await self.lead(journal, tail, state, ready)
        finally:
            journal.close()

    async def lead(self, journal: Journal, tail: Tail, state: State, ready: Ready, lease: Lease | None = None) -> None:
        """Serve the cell for one term, which ends with ``stop``, or with what is raised.

        Args:
            journal: led already.
            tail: what that gave.
            state: at the tail; nobody else's from now on.
            ready: as for ``run``.
            lease: on which it is led. The term ends with it, and in an orderly end it is given back as soon as nothing more
                is taken in.

        Raises:
            As ``run``.
        """
        stores, settings = self._stores, self._settings
        # In a thread: it may take longer than a lease lasts.
        machine = await asyncio.to_thread(Machine, state, load_strategies(), settings.limits, load_panel())
        blobs = stores.blobs()
        finder = TaskFinder(
            stores.reader, stores.read_model_reader, state, lambda digest: blobs.has(DEFAULT_TENANT, digest)
        )
        quarantine = await asyncio.to_thread(stores.quarantine)
        cell = CellLoop(machine, journal, tail, self.holder, quarantine, finder, plan)
        try:
            if lease is not None:
                lease.tell(cell.leads_until)
            orders = FollowerOrders(retention=settings.retention, snapshot_events=settings.snapshot_events)
            follower = FollowerProcess(stores, orders, lambda: cell.state.sequence)
            memory = Memory(stores.read_model_reader, follower)
            housekeeping = Housekeeping(journal, follower)
            auditing = AuditingProcess(AUDITING)
            server, unary = self._server(cell, housekeeping, finder, memory, blobs, auditing)
            _settle_memory()
            try:
                try:
                    unary.start()
                    self._address = await server.start()
                except CannotListen:
                    await _close(unary, server)
                    raise
                log.info("cell %s, epoch %d, leads; gRPC on %s", journal.cell, tail.epoch, self._address)
                ready(self._address, tail.epoch)
                await self._serve(cell, journal, server, unary, follower, housekeeping, lease)
            finally:
                await auditing.close()
                await memory.close()
        finally:
            await cell.close()

    def _server(
        self,
        cell: CellLoop,
        housekeeping: Housekeeping,
        finder: TaskFinder,
        memory: Memory,
        blobs: Blobs,
        auditing: AuditingProcess,
    ) -> tuple[GrpcServer, UnaryWorkers]:
        store = "postgresql" if self._settings.store else "sqlite"

        def load_blob(digest: str) -> bytes:
            try:
                blobs.touch(DEFAULT_TENANT, digest)  # before it is read: what is there after that stays
                return blobs.get(DEFAULT_TENANT, digest)
            except (BlobMissing, BlobCorrupt) as error:  # until it is put again
                raise LookupError(str(error)) from error

        def touch_blob(digest: str) -> None:
            try:
                blobs.touch(DEFAULT_TENANT, digest)
            except BlobMissing as error:
                raise LookupError(str(error)) from error

        def address() -> str:
            return self._address

        door = Door(cell.state.offers, load_blob, touch_blob=touch_blob)
        check = ReportCheck(cell, door.schemas, load_blob, auditing)
        unary = UnaryWorkers(cell, door, blobs, check)
        server = GrpcServer(
            self._settings.grpc,
            WorkersService(cell, door, check),
            TasksService(cell, door, finder.task, housekeeping.journal_bytes, memory, store),
            BlobsService(blobs),
            QueuesService(cell),
            DeadLettersService(cell),
            SchedulesService(cell, door),
            FleetService(cell, door, finder.task, JournalExplainer(self._stores, self._settings.limits), memory),
            AuditsService(cell, door.schemas, load_plug_ins(COMPARERS_GROUP, "comparer", COMPARERS), auditing.problem),
            SupervisionService(cell, self._stores.reader),
            RegistryService(cell, door, unary, address),
            GatewayWorkerService(cell, door, blobs, finder.keys, address),
            interceptors=(SettledAnswers(cell),),
        )
        return server, unary

    async def _serve(
        self,
        cell: CellLoop,
        journal: Journal,
        server: GrpcServer,
        unary: UnaryWorkers,
        follower: FollowerProcess,
        housekeeping: Housekeeping,
        lease: Lease | None,
    ) -> None:
        stopping = asyncio.create_task(self.stopping.wait())
        keeping = asyncio.create_task(housekeeping.run())
        following = asyncio.create_task(follower.run())
        ends = (stopping, cell.failed, keeping, *((lease.lost,) if lease is not None else ()))
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            error = cell.failed.result() if cell.failed.done() else None
            if isinstance(error, Stopped):
                await asyncio.to_thread(self._stores.set_aside, error)
            if keeping.done() and error is None:
                keeping.result()
            if lease is not None and error is None:
                lease.check()
        finally:
            for task in (stopping, keeping):
                task.cancel()
            # What has failed is raised above; here it must not keep the streams from being ended.
            await asyncio.gather(stopping, keeping, return_exceptions=True)
            await cell.close()
            if lease is not None and self.stopping.is_set():
                await asyncio.to_thread(journal.close)  # whoever stands by goes on while the rest here comes to its end
            # Now there is nothing more to follow; it ends while the streams do.
            await asyncio.gather(follower.stop(), _close(unary, server))
            await asyncio.gather(following, return_exceptions=True)
        if error is not None:
            raise error


async def _close(unary: UnaryWorkers, server: GrpcServer) -> None:
    await unary.close()
    await server.stop(0.5)


def _settle_memory() -> None:
    """What is there at the start stays; and hot structures hold no cycles, so that collecting seldom costs nothing."""
    gc.unfreeze()  # what a former term left behind
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
