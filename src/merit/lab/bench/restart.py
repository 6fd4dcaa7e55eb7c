"""A start with a snapshot and a million events after it, and how fast events are folded."""

from __future__ import annotations

import time
from typing import Final

from merit.allocation.catalogue import BUILT_IN
from merit.app.restore import restore
from merit.app.state_directory import CELL, StateDirectory
from merit.core.codec import FOLD_VERSION, encode_event, encode_state
from merit.core.machine import Machine
from merit.lab.bench.figures import Figure
from merit.lab.bench.fleet import Fleet
from merit.lab.bench.plan import Plan
from merit.model.commands import Allocate, AttachWorker, Command, StartLeadership, SubmitTasks, TakeFrame
from merit.model.effects import Effect, SendAssignment
from merit.model.frames import Hello, Report, ReportStatus
from merit.model.ids import make_id
from merit.model.limits import Limits
from merit.model.record import record_hash, seal
from merit.model.tasks import TaskSpec
from merit.model.tenancy import DEFAULT_TENANT
from merit.model.workers import Offer
from merit.storage.file_snapshots import FileSnapshots
from merit.storage.memory_snapshots import MemorySnapshots
from merit.storage.sqlite_journal import SqliteJournal
from merit.storage.sqlite_reader import open_reader

RESTART_S_MAX: Final = 5.0
_WORKER: Final = "bench-0"
_BATCH: Final = 1_000
_BEFORE_EVENTS: Final = 30_000


async def restart_figures(plan: Plan) -> list[Figure]:
    """The journal is made by the machine itself, without streams, since that takes a third of the time."""
    async with Fleet(plan.state) as fleet:
        await (await fleet.connect()).aclose()
        fleet.kill_cell()
        directory = StateDirectory(fleet.state)
        write_journal(directory, plan.restart_events)
        began_s = time.perf_counter()
        fleet.start_cell()
        await (await fleet.connect()).aclose()
        restart_s = time.perf_counter() - began_s
        fold_s = _fold_s(directory)
    return [
        Figure("restart_1m_events_s", restart_s * 1_000_000 / plan.restart_events, "s", ceiling=RESTART_S_MAX),
        Figure("fold_events_per_s", plan.restart_events / fold_s, "1/s"),
    ]


def write_journal(directory: StateDirectory, events: int) -> int:
    """A snapshot after a while, then this many events of no-op tasks: submitted, assigned, completed. The last sequence."""
    journal = SqliteJournal(directory.journal, CELL)
    writer = _Writer(journal)
    try:
        writer.work(_BEFORE_EVENTS)
        writer.take_snapshot(FileSnapshots(directory.snapshots))
        return writer.work(events)
    finally:
        journal.close()


class _Writer:
    """Drives a machine as the kernel does, and journals what comes of it."""

    def __init__(self, journal: SqliteJournal) -> None:
        self._journal = journal
        tail = journal.lead("bench", time.time_ns())
        state, _ = restore(journal, MemorySnapshots())
        self._machine = Machine(state, BUILT_IN, Limits())
        self._epoch = tail.epoch
        self._previous = tail.last_hash
        self._next = tail.next
        self._events: list[bytes] = []
        self._number = 0
        hello = Hello(_WORKER, "boot", 1, (Offer("bench.noop"),), 1)
        self._handle(StartLeadership(DEFAULT_TENANT, "bench", tail.epoch, "bench"))
        self._handle(AttachWorker(DEFAULT_TENANT, _WORKER, hello, 0))
        self._append()

    def work(self, events: int) -> int:
        """Batches of tasks from submit to result until so many events have come of it; the sequence of the last one."""
        until = self._next + events
        while self._next < until:
            first, self._number = self._number, self._number + _BATCH
            now_ns = time.time_ns()
            specs = [
                TaskSpec(make_id(now_ns, number.to_bytes(10, "big")), "bench.noop", b'{"x":%d}' % number)
                for number in range(first, self._number)
            ]
            self._handle(SubmitTasks(DEFAULT_TENANT, "bench", specs, False))
            self._take([], self._number)
            effects = self._handle(Allocate(DEFAULT_TENANT, "bench", _BATCH))
            self._append()
            assignments = [effect.assignment for effect in effects if type(effect) is SendAssignment]
            self._take(
                [
                    Report(item.task, item.number, ReportStatus.COMPLETED, b"%d" % number, wall_ns=5_000)
                    for number, item in enumerate(assignments)
                ],
                self._number,
            )
            self._append()
        return self._next - 1

    def take_snapshot(self, snapshots: FileSnapshots) -> None:
        """Store the state as it is."""
        state = self._machine.state
        snapshots.save(state.sequence, FOLD_VERSION, self._previous, encode_state(state))

    def _take(self, reports: list[Report], credits_granted: int) -> None:
        self._handle(
            TakeFrame(DEFAULT_TENANT, _WORKER, _WORKER, "boot", 1, reports, [], [], [], credits_granted, False)
        )

    def _handle(self, command: Command) -> list[Effect]:
        decision = self._machine.handle(command, time.time_ns())
        self._events += map(encode_event, decision.events)
        return decision.effects

    def _append(self) -> None:
        payloads = list(self._machine.take_payloads().values())
        record = seal(CELL, self._next, self._epoch, "bench", time.time_ns(), self._previous, self._events, payloads)
        self._journal.append(record)
        self._previous, self._next, self._events = record_hash(record), record.last + 1, []
        if self._journal.checkpoint_due:
            self._journal.checkpoint()


def _fold_s(directory: StateDirectory) -> float:
    with open_reader(directory.journal, CELL) as reader:
        began_s = time.perf_counter()
        restore(reader, FileSnapshots(directory.snapshots))
        return time.perf_counter() - began_s
