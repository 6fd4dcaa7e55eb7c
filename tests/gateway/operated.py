"""A gateway before a machine without a journal: what operators ask and order, over gRPC, with every step under control."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from typing import Any

from merit.app.control_plane import AUDITING
from merit.auditing.catalogue import COMPARERS
from merit.core.explaining import Explanation
from merit.core.machine import Machine
from merit.core.recollect import NotRemembered
from merit.gateway.auditing_process import AuditingProcess
from merit.gateway.audits_service import AuditsService
from merit.gateway.blobs_service import BlobsService
from merit.gateway.dead_letters_service import DeadLettersService
from merit.gateway.door import Door
from merit.gateway.explaining import CannotExplain, FoldedSoFar
from merit.gateway.fleet_service import FleetService
from merit.gateway.gateway_worker_service import GatewayWorkerService
from merit.gateway.queues_service import QueuesService
from merit.gateway.registry_service import RegistryService
from merit.gateway.report_check import ReportCheck
from merit.gateway.schedules_service import SchedulesService
from merit.gateway.server import GrpcServer
from merit.gateway.streams import WorkersService
from merit.gateway.supervision_service import SupervisionService
from merit.gateway.tasks_service import TasksService
from merit.gateway.unary.roster import UnaryWorkers
from merit.model.commands import Command, SubmitTasks
from merit.model.tasks import Refusal, Task, TaskSpec
from merit.ports.cell import CellStopped
from merit.storage.memory_blobs import MemoryBlobs
from merit.storage.memory_journal import MemoryDisk, MemoryJournal
from merit.testing.builders import PRINCIPAL, a_machine, allocate, attach, failed, say
from tests.gateway.hostile import Peer, peer


class StillCell:
    """A cell whose machine does nothing but what a test has it do."""

    name = "still"
    started_ns = 1

    def __init__(self) -> None:
        self.machine: Machine = a_machine(now_ns=time.time_ns())
        self.commands: list[Command] = []
        self.stopped = ""
        self.onlookers: list[Callable[[AbstractSet[str]], None]] = []

    def __getattr__(self, name: str) -> Any:
        """The rest of the port is what streams use, and nothing here does."""
        raise AttributeError(name)

    @property
    def desk(self):
        return self.machine

    @property
    def state(self):
        return self.machine.state

    @property
    def progress(self):
        return self.machine.progress

    @property
    def now_ns(self):
        return time.time_ns()

    @property
    def attached(self):
        return {name for name, seat in self.machine.seats.items() if seat.attached}

    async def command(self, command: Command) -> list[Refusal]:
        if self.stopped:
            raise CellStopped(self.stopped)
        self.commands.append(command)
        return self.machine.handle(command, self.machine.now_ns).refusals

    def watch_workers(self, told: Callable[[AbstractSet[str]], None]) -> Callable[[], None]:
        self.onlookers.append(told)
        return lambda: self.onlookers.remove(told)

    def moved(self, *workers: str) -> None:
        """Something has happened to these."""
        for told in self.onlookers:
            told(set(workers))

    def submit(self, *specs: TaskSpec, tenant: str = "default") -> None:
        decision = self.machine.handle(SubmitTasks(tenant, PRINCIPAL, list(specs), False), self.machine.now_ns)
        assert not decision.refusals

    def kill(self, *numbers: int, worker: str = "reaper", later_ns: int = 1) -> None:
        """All that is pending is given to a worker; these tasks die there."""
        machine = self.machine
        if worker not in machine.state.workers:
            attach(machine, worker, granted=10_000, concurrency=10_000)
        allocate(machine)
        reports = [failed(number, permanent=True) for number in numbers]
        say(machine, worker, reports=reports, now_ns=machine.now_ns + later_ns)


class ScriptedExplainer:
    """Says what a test has it say, whatever it is asked."""

    def __init__(self) -> None:
        self.steps: list[FoldedSoFar | Explanation | CannotExplain] = []
        self.asked: list[tuple[Any, ...]] = []

    async def explain(self, *asked: Any) -> AsyncGenerator[FoldedSoFar | Explanation, None]:
        self.asked.append(asked)
        for step in self.steps:
            if isinstance(step, CannotExplain):
                raise step
            yield step


class Operated:
    """The cell, a connection to the gateway before it, and what the gateway finds in the journal."""

    def __init__(
        self, cell: StillCell, peer: Peer, explainer: ScriptedExplainer, auditing: AuditingProcess, disk: MemoryDisk
    ) -> None:
        self.cell = cell
        self.tasks, self.queues, self.dead, self.schedules = peer.tasks, peer.queues, peer.dead_letters, peer.schedules
        self.fleet, self.audits, self.supervision = peer.fleet, peer.audits, peer.supervision
        self.explainer = explainer
        self.auditing = auditing
        self.peer = peer
        self.old: Task | Exception | None = None
        self.disk = disk
        """Of the journal, in which nothing stands but what a test puts there."""


@asynccontextmanager
async def operated() -> AsyncIterator[Operated]:
    cell: Any = StillCell()

    async def find(task_id):
        if isinstance(guest.old, Exception):
            raise guest.old
        if guest.old is None:
            raise NotRemembered(f"there is no task {task_id} in this cell")
        return guest.old

    async def find_keys(_wanted):
        return {}

    explainer, blobs, disk = ScriptedExplainer(), MemoryBlobs(), MemoryDisk(cell.name)
    door = Door(cell.state.offers, lambda digest: b"{}")
    auditing = AuditingProcess(AUDITING)
    check = ReportCheck(cell, door.schemas, lambda digest: b"{}", auditing)
    server = GrpcServer(
        "127.0.0.1:0",
        WorkersService(cell, door, check),
        TasksService(cell, door, find, lambda: 0),
        BlobsService(blobs),
        QueuesService(cell),
        DeadLettersService(cell),
        SchedulesService(cell, door),
        FleetService(cell, door, find, explainer),
        AuditsService(cell, door.schemas, COMPARERS, auditing.problem),
        SupervisionService(cell, lambda: MemoryJournal(disk)),
        RegistryService(cell, door, UnaryWorkers(cell, door, blobs, check), lambda: ""),
        GatewayWorkerService(cell, door, blobs, find_keys, lambda: ""),
    )
    async with peer(await server.start()) as connection:
        guest = Operated(cell, connection, explainer, auditing, disk)
        yield guest
    await server.stop(0)
    await auditing.close()
