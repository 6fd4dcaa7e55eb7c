"""The shell of a simulated cell: the real kernel, machine and ends over a journal in memory, in virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from merit.allocation.catalogue import BUILT_IN
from merit.app.restore import restore
from merit.core.codec import FOLD_VERSION, decode_event, encode_state
from merit.core.invariants import InvariantBroken, check, check_allocated
from merit.core.machine import Machine
from merit.kernel.kernel import Kernel
from merit.kernel.quarantine import Quarantine, Stopped
from merit.kernel.waiting import End, Lookup
from merit.lab.bounds import limits_of
from merit.lab.disk import SimulatedDisk, wake_deposed
from merit.lab.errands import Found, look_up, times_of
from merit.lab.explained import check_explained, check_waiting
from merit.lab.ledger import Ledger
from merit.lab.memory import REMEMBERS, SimulatedMemory, memory_limits
from merit.lab.network import Network, Stream
from merit.lab.restarted import check_started
from merit.lab.turns import drive
from merit.lab.violation import Violation
from merit.lab.witness import Witness
from merit.lab.world import World
from merit.model.commands import Command, PlanSchedule
from merit.model.effects import WorkOutTimes
from merit.model.events import AttemptAssigned, AttemptFailed, Event
from merit.model.frames import WorkerFrame
from merit.model.limits import MILLISECOND_NS
from merit.model.record import Record
from merit.model.tasks import Refusal, TaskState
from merit.ports.journal import Fenced, JournalUnavailable, OutcomeUnknown
from merit.session.cell_end import CellEnd
from merit.session.link import ProtocolViolation
from merit.session.server_end import ServerEnd
from merit.storage.memory_journal import FaultPlan, MemoryJournal, PendingAppend
from merit.storage.memory_snapshots import MemorySnapshots

CELL = "cell"
EXPLAINED = 0.3
"""Share of the worlds in which all decisions are looked at again in the end; it takes as long as all else."""
LOOKED_AT = 0.03
"""Share of the steps after which all is looked at."""
SNAPSHOTS_KEPT = 2
PENDING_MAX = 3
"""Records that may be on their way to the journal at a time."""


class SimulatedCell:
    """A cell that can be killed between any two of its steps and starts again from its disk."""

    def __init__(self, world: World, network: Network) -> None:
        self._world = world
        self._network = network
        self.disk = SimulatedDisk(CELL)
        self.snapshots = MemorySnapshots()
        remembers = world.rng.random() < REMEMBERS
        limits = limits_of(world)
        self.limits = memory_limits(world, limits) if remembers else limits
        self.ledger = Ledger(self.limits.ageing_ns)
        self.assigned_on: dict[tuple[str, int], Stream] = {}
        """By attempt: the stream that its worker was attached by when it was assigned."""
        self.acknowledged: set[str] = set()
        """Tasks that some client was told are taken."""
        self._deferred = world.rng.random() < 0.4
        self._explains = world.rng.random() < EXPLAINED
        self._streams: dict[End, Stream] = {}
        self._answers: dict[int, Callable[[list[Refusal]], None]] = {}
        self._acknowledges = False
        """Whether what could wait is going to be said soon."""
        self._heard_ns: dict[tuple[str, int], int] = {}
        """By attempt: when word of its progress came last."""
        self._kernel: Kernel | None = None
        self._journal = MemoryJournal(self.disk)
        self._pending: deque[PendingAppend] = deque()
        self._decoded: dict[int, list[Event]] = {}
        self._lives = 0
        self._step_at_ns = 0
        self._clock_offset_ns = 0
        self._clock_stands_until_ns = 0
        self._clock_ns = world.now_ns
        self._records_read = 0
        self.memory: SimulatedMemory | None = None
        if remembers:
            self.memory = SimulatedMemory(world, self.disk, self.ledger, self._machine_clock, lambda: self._kernel)
        self._witness = Witness(self.ledger, self.memory.is_outcome if self.memory is not None else None)

    @property
    def up(self) -> bool:
        return self._kernel is not None

    @property
    def kernel(self) -> Kernel | None:
        """The present one, None while the cell is down."""
        return self._kernel

    @property
    def at_rest(self) -> bool:
        """Whether nothing is waiting to be handled or to become durable."""
        return self._kernel is not None and not self._kernel.busy and not self._pending

    # Life and death

    def start(self) -> None:
        """Lead, read the journal, go on."""
        world = self._world
        self._lives += 1
        self.ledger.quiet_ns = (0, 0)
        self._deferred = self._deferred if world.rng.random() < 0.8 else not self._deferred
        self._journal = MemoryJournal(self.disk, deferred=self._deferred)
        tail = self._journal.lead(f"holder-{self._lives}", world.now_ns)
        self._catch_up()
        if self.memory is not None:
            snapshots = self.memory.snapshots()
        else:
            snapshots = self.snapshots if world.rng.random() < 0.7 else MemorySnapshots()
        if snapshots.latest() is not None:
            world.coverage["start from snapshot"] += 1
        state, _ = restore(self._journal, snapshots)
        if self._lives > 1:
            world.coverage["restart"] += 1
        check_started(state, self.ledger, self.acknowledged)
        machine = Machine(state, BUILT_IN, self.limits)
        self._kernel = Kernel(CELL, machine, tail, f"holder-{self._lives}", Quarantine())
        self._wake(0)
        if self.memory is not None:
            self.memory.cell_starts(self._journal)

    def die(self, what: str, *, stopped: Record | None = None) -> None:
        """The process is gone, or stopped with this record in hand; what was not durable is lost, and another one starts."""
        world = self._world
        world.coverage[what] += 1
        world.note(f"cell dies: {what}")
        if self._kernel is not None and self._kernel.machine.affected:
            world.coverage["crash with follow-ups to come"] += 1
        if stopped is None:
            self._journal.crash()
        else:
            wait_ns, old = world.between(1, 3_000), self._journal
            world.after(wait_ns, "deposed leader wakes", wake_deposed, old, stopped, self.disk, world.rng)
        if self.memory is not None:
            self.memory.cell_ends(stopped=stopped is not None)
        self._kernel = None
        self._pending.clear()
        self._answers.clear()
        self._acknowledges = False
        self._step_at_ns = 0
        self._catch_up()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.at_cell = False
            self._network.snap(stream)
        world.after(world.between(1, 1500), "cell starts", self.start)

    def _dies(self, where: str) -> bool:
        if self._world.weather.cell_crash and self._world.rng.random() < self._world.weather.cell_crash:
            self.die(f"crash {where}")
            return True
        return False

    # What comes in

    def opened(self, stream: Stream) -> None:
        """See `Listener`."""
        self._streams[stream.end] = stream

    def disconnected(self, stream: Stream) -> None:
        """See `Listener`."""
        if self._kernel is None or self._streams.pop(stream.end, None) is None:
            return
        if isinstance(stream.end, CellEnd):
            self._kernel.worker_gone(stream.end)
        else:
            self._kernel.client_gone(stream.end)
        self._wake(self._world.between(0, 2))

    def receive(self, stream: Stream, frame: Any) -> None:
        """See `Listener`."""
        kernel, end = self._kernel, stream.end
        if kernel is None or end not in self._streams or end.closing:
            return
        fresh = frame.sequence == end.received + 1
        try:
            if isinstance(end, CellEnd):
                kernel.worker_frame(end, frame)
            else:
                kernel.client_frame(end, frame, [])
        except ProtocolViolation as violation:
            self._network.blame(stream, violation, up=True)
            return
        if fresh:
            stream.promised.append(frame)
            if isinstance(frame, WorkerFrame):
                for note in frame.progress:
                    self._heard_ns[note.task, note.number] = self._world.now_ns
        self._wake(self._world.between(0, 2))

    def command(self, command: Command, answered: Callable[[list[Refusal]], None]) -> bool:
        """Somebody gives a command, and hears what was refused of it once the rest is durable, if this process lives
        so long; whether anybody was there to take it."""
        if self._kernel is None:
            return False
        self._answers[self._kernel.offer(command)] = answered
        self._wake(self._world.between(0, 2))
        return True

    # The loop

    def _wake(self, wait_ns: int) -> None:
        at_ns = self._world.now_ns + wait_ns
        if self._kernel is not None and (not self._step_at_ns or at_ns < self._step_at_ns):
            self._step_at_ns = at_ns
            self._world.after(wait_ns, "cell steps", self._step, self._lives, at_ns)

    def _step(self, life: int, at_ns: int) -> None:
        kernel, world = self._kernel, self._world
        if kernel is None or life != self._lives or self._step_at_ns != at_ns:
            return  # it was woken earlier since
        self._step_at_ns = 0
        if len(self._pending) >= PENDING_MAX:
            return
        self._nap(kernel)
        try:
            record = kernel.step(self._clock())
        except Stopped as stopped:
            raise Violation("stopped", stopped.task, str(stopped)) from stopped
        if record is not None:
            self._decoded[record.first] = events = [decode_event(data) for data in record.events]
            self._note_decided(kernel, events)
            if self._dies("after step, before append"):
                return
            if world.rng.random() < 0.2 and not self._flush(kernel):
                return
            if not self._append(kernel, record):
                return
        if self._flush(kernel, acks=self._world.rng.random() < 0.3):
            self._look(kernel)
            self._sleep(kernel)

    def _nap(self, kernel: Kernel) -> None:
        """The whole process was stopped for a while, and its shell has noticed."""
        world = self._world
        if world.chance(world.weather.nap, "process sleeps"):
            self._clock_offset_ns += world.between(1_000, 6_000)
            kernel.awake(self._clock())
            until_ns = kernel.machine.quiet_until_ns
            self.ledger.quiet_ns = (until_ns - self.limits.awake_ns, until_ns)

    def _note_decided(self, kernel: Kernel, events: list[Event]) -> None:
        for event in events:
            if type(event) is AttemptAssigned:
                end = kernel._workers.get(event.worker)
                if end is not None and end in self._streams:
                    self.assigned_on[event.task, event.number] = self._streams[end]
            elif type(event) is AttemptFailed and event.failure.kind == "heartbeat":
                self._check_silent(event)

    def _check_silent(self, event: AttemptFailed) -> None:
        """Who was heard of just now is not silent; but what has come may not have been looked at in a busy world, and
        a clock that jumps takes everybody by surprise."""
        world = self._world
        world.coverage["attempt fell silent"] += 1
        heard_ns = self._heard_ns.get((event.task, event.number), 0)
        calm = not self._clock_offset_ns and not self._clock_stands_until_ns and not self._deferred
        if calm and self.limits.batch_items_max > 8 and world.now_ns - heard_ns < 50 * MILLISECOND_NS:
            message = f"attempt {event.number} was called silent {world.now_ns - heard_ns} ns after it was heard of"
            raise Violation("heartbeat", event.task, message)

    def _append(self, kernel: Kernel, record: Record) -> bool:
        """Whether the cell lives on."""
        world, number = self._world, self.disk.appends + 1
        deposed = world.chance(world.weather.deposition, "leadership lost")
        if deposed:
            # Somebody else took over while this one was not looking, and is gone again.
            self.disk.depose()
            usurper = MemoryJournal(self.disk)
            usurper.lead("usurper", world.now_ns)
            usurper.crash()
        if world.weather.append_fault and world.rng.random() < world.weather.append_fault:
            kind = world.rng.choice(("refused", "stored", "lost"))
            self.disk.faults = FaultPlan(**{kind: frozenset({number})})
        try:
            pending = self._journal.append(record)
        except JournalUnavailable:
            self.die("append refused")
            return False
        except OutcomeUnknown:
            self.die("append unknown, stored" if number in self.disk.faults.stored else "append unknown, lost")
            return False
        except Fenced as fenced:
            if deposed:
                self.die("append fenced", stopped=record)
                return False
            raise Violation("journal sequence", "", str(fenced)) from fenced
        if isinstance(pending, PendingAppend):
            self._pending.append(pending)
            world.after(world.between(0.5, 15), "journal settles", self._settled, self._lives)
            return True
        self._catch_up()
        if self._dies("after append, before committed"):
            return False
        kernel.committed(record.last)
        return not self._dies("after committed, before frames")

    def _settled(self, life: int) -> None:
        kernel = self._kernel
        if kernel is None or life != self._lives or not self._pending:
            return
        self._journal.settle(1)
        pending = self._pending.popleft()
        record = pending.record
        self._catch_up()
        if pending.error is not None:
            self.die("append fenced")
            return
        if self._dies("after append, before committed"):
            return
        kernel.committed(record.last)
        if not self._dies("after committed, before frames") and self._flush(kernel):
            self._look(kernel)
            self._sleep(kernel)

    def _catch_up(self) -> None:
        """The ledger reads what has become durable."""
        ledger = self.ledger
        for record in self.disk.ever[self._records_read :]:
            self._records_read += 1
            ledger.take(record, self._decoded.pop(record.first, None))
        if self._kernel is None:
            self._decoded.clear()

    def _flush(self, kernel: Kernel, *, acks: bool = True) -> bool:
        """Let out what may go out; whether the cell lives on."""
        frames = kernel.outgoing(acks=acks)
        if kernel.owes and not self._acknowledges:
            self._acknowledges = True
            self._world.coverage["acknowledgement put off"] += 1
            self._world.after(20 * MILLISECOND_NS, "acknowledges", self._acknowledge, self._lives)
        for end, frame in frames:
            stream = self._streams.get(end)
            if stream is None:
                continue
            if self._dies("between frames"):
                return False
            self._witness.leaves(stream, frame)
            self._network.send(stream, frame, up=False)
            if frame.refused:
                self._world.coverage["stream refused"] += 1
                self._network.hang_up(stream, by_cell=True)
        for answer in kernel.answers():
            answered = self._answers.pop(answer.ticket, None)
            if answered is not None:
                answered(answer.refusals)
        for wanted in kernel.times():
            self._world.coverage["times worked out"] += 1
            self._world.after(self._world.between(0.1, 20), "times worked out", self._plan, wanted, self._lives)
        for lookup in kernel.lookups():
            self._world.coverage["lookup"] += 1
            self._world.after(self._world.between(0.1, 20), "lookup answered", self._answer, lookup, self._lives)
        return True

    def _acknowledge(self, life: int) -> None:
        if self._kernel is not None and life == self._lives:
            self._acknowledges = False
            self._flush(self._kernel)

    def _answer(self, lookup: Lookup, life: int) -> None:
        if self._kernel is None or life != self._lives:
            return
        if self._world.chance(self._world.weather.lookup_fault, "lookup fails"):
            self._kernel.not_found_out(lookup, "the journal could not be searched")
            self._flush(self._kernel)
            self._wake(0)
            return
        if lookup.again:
            self._world.coverage["submitted again, looked up"] += 1
        if lookup.keys:
            self._world.coverage["key looked up"] += 1
        kernel = self._kernel

        def found(answer: Found | str) -> None:
            if isinstance(answer, str):
                self._world.coverage["nobody can tell"] += 1
                kernel.not_found_out(lookup, answer)
            else:
                kernel.found(lookup, *answer)
            self._flush(kernel)
            self._wake(0)

        work = look_up(lookup, kernel, self.disk, self.memory)
        drive(self._world, "cell looks up", work, found, lambda: life == self._lives and self.up)

    def _plan(self, wanted: WorkOutTimes, life: int) -> None:
        """What the library that knows cron expressions would say; here they are numbers of milliseconds."""
        kernel, schedule = self._kernel, wanted.schedule
        if kernel is None or life != self._lives:
            return
        times_ns = times_of(schedule, wanted.after_ns, self._clock())
        kernel.offer(
            PlanSchedule(
                schedule.tenant, "scheduler", schedule.name, schedule.cron, schedule.zone, wanted.after_ns, times_ns
            )
        )
        self._wake(0)

    def _sleep(self, kernel: Kernel) -> None:
        """Wake when something is due; and let the weather have its way with disk and clock."""
        world = self._world
        if kernel.busy:
            self._wake(world.between(0, 1))
            return
        due_ns = kernel.machine.next_due_ns()
        if due_ns is not None:
            self._wake(max(due_ns - self._clock(), MILLISECOND_NS // 4))

    def _machine_clock(self) -> int:
        """The clock by which others on this machine go."""
        return self._world.now_ns + self._clock_offset_ns

    def _clock(self) -> int:
        """The cell's own clock: it jumps ahead and stands still, and never runs backwards."""
        world = self._world
        if world.chance(world.weather.clock_jump, "clock jumps"):
            self._clock_offset_ns += world.between(10, 10_000)
        if world.chance(world.weather.clock_stop, "clock stands still"):
            self._clock_stands_until_ns = world.now_ns + world.between(10, 2_000)
        if world.now_ns >= self._clock_stands_until_ns:
            self._clock_ns = world.now_ns + self._clock_offset_ns
        return self._clock_ns

    # Looking inside

    def _look(self, kernel: Kernel) -> None:
        """Cheap checks of what must hold between any two steps."""
        machine = kernel.machine
        tasks = machine.state.tasks
        if self._world.rng.random() < LOOKED_AT:
            self._check_all(kernel)
            if self.memory is None and self._world.rng.random() < 0.5:
                self.snapshots.save(
                    self.ledger.state.sequence,
                    FOLD_VERSION,
                    self.ledger.tail.last_hash,
                    encode_state(self.ledger.state),
                )
                self.snapshots.drop(list(self.snapshots.sequences())[:-SNAPSHOTS_KEPT])
        if kernel._batches or kernel._waiting or self._pending:
            return
        waiting = [task for task in self.ledger.unsettled() if tasks[task].state is TaskState.PENDING]
        if waiting and self._world.rng.random() < LOOKED_AT:
            self._world.coverage["waiting task explained"] += 1
            task = self._world.rng.choice(waiting)
            check_waiting(machine, self.ledger.fleet_book, self.ledger.submitted[task])
        for task in kernel.watchers.tasks():
            if task not in tasks or tasks[task].state.final:
                raise Violation("bounded", task, "is watched and is not alive")
        for end in self._streams:
            if end.closing or end.hello is None:
                continue
            if isinstance(end, ServerEnd) and end in kernel._recall._parked:
                continue  # the journal is searched for what it submits again
            if isinstance(end, CellEnd) and kernel._workers.get(end.hello.worker) is not end:
                continue  # it said goodbye: nothing more that it says counts
            if end._link._dealt != end.received:
                message = f"frame {end.received} is durable, and only {end._link._dealt} is said to be dealt with"
                raise Violation("acknowledgements", self._streams[end].peer.name, message)

    def _check_all(self, kernel: Kernel) -> None:
        machine = kernel.machine
        try:
            check(machine, machine.state)
            if not kernel.busy:
                check_allocated(machine)
        except InvariantBroken as broken:
            raise Violation("invariants", broken.about.split()[-1], str(broken)) from broken

    def final_checks(self) -> None:
        """What must hold when all is quiet."""
        assert self._kernel is not None
        self._check_all(self._kernel)
        check_started(self._kernel.machine.state, self.ledger, self.acknowledged)
        if self.memory is not None:
            self.memory.final_checks()
        for worker in self._kernel.machine.state.workers.values():
            if worker.attempts:
                raise Violation("bounded", worker.id, f"has live attempts of no task: {worker.attempts}")
        if self._explains:
            self._world.coverage["all decisions explained"] += 1
            check_explained(self.disk.ever, self.limits)


def new_end(tenant: str = "") -> End:
    """What the cell's shell makes when a stream is opened: by a client of a tenant, or by a worker."""
    return ServerEnd(tenant=tenant) if tenant else CellEnd()
