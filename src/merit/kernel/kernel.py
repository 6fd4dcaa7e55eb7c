"""The kernel of a cell: it stands between the streams and the machine, and keeps the order of things.

The shell hands in what comes (``worker_frame``, ``client_frame``, ``offer``, …) and calls ``step``, which lets the
machine handle all that is there as one batch and returns the batch's record. Only when the shell has made the record
durable and says so (``committed``) do the batch's effects, acknowledgements and replies come out: as frames
(``outgoing``) and as answers to requests (``answers``). Records may be on their way to the journal while the next batch
is handled; what comes out waits for the sequence it depends on.
"""

from __future__ import annotations

from collections import deque

from merit.core.codec import encode_event
from merit.core.machine import Decision, Machine
from merit.core.state import KeyEntry
from merit.kernel.moving import moved
from merit.kernel.quarantine import Quarantine, Stopped
from merit.kernel.recalling import Recall, keep_keys, without_recalled
from merit.kernel.release import Release
from merit.kernel.waiting import (
    Answer,
    Attached,
    Batch,
    Closed,
    End,
    FromClient,
    FromWorker,
    Gone,
    Lookup,
    Offered,
)
from merit.kernel.watchers import Watchers
from merit.model.commands import (
    Allocate,
    AttachWorker,
    Awake,
    CancelTasks,
    Command,
    DetachWorker,
    FollowUp,
    StartLeadership,
    SubmitTasks,
    TakeFrame,
    Tick,
)
from merit.model.effects import (
    CloseWorker,
    TellKnown,
    TellSettled,
    WorkOutTimes,
)
from merit.model.frames import (
    CellFrame,
    ClientFrame,
    ClientWelcome,
    Hello,
    ServerFrame,
    Settled,
    Welcome,
    WorkerFrame,
)
from merit.model.record import Record, Tail, record_hash, seal
from merit.model.tasks import Refusal, TaskSpec
from merit.model.tenancy import DEFAULT_TENANT, LOCAL_PRINCIPAL
from merit.session.cell_end import CellEnd
from merit.session.server_end import ServerEnd

_SYSTEM = "cell"


class Kernel:
    """See the module.

    Args:
        cell: the cell's name, which stands in every record.
        machine: holds the state at the journal's end.
        tail: of the journal, with the epoch that this leader was given.
        holder: this leader's name.
        quarantine: what stopped the cell before.
        salt: random, and a secret of the cell.
    """

    def __init__(
        self, cell: str, machine: Machine, tail: Tail, holder: str, quarantine: Quarantine, salt: bytes = b""
    ) -> None:
        if machine.state.sequence + 1 != tail.next:
            raise ValueError(f"state at {machine.state.sequence}, journal at {tail.next - 1}: they must agree")
        self.cell = cell
        self.machine = machine
        self.epoch = tail.epoch
        self.durable = tail.next - 1
        """Sequence of the last event that is durable."""
        self._holder = holder
        self._previous = tail.last_hash
        self._next = tail.next
        self._quarantine = quarantine
        self._now_ns = 0
        self._waiting: deque[FromWorker | FromClient | Gone | Offered] = deque()
        self._batches: deque[Batch] = deque()
        self._batch = Batch()
        self._events: list[bytes] = []
        self._bytes = 0
        self._workers: dict[str, CellEnd] = {}
        """By worker: the stream on which it speaks."""
        self._release = Release(machine)
        self._recall = Recall()
        self._ticket = 0
        self.watched = False
        """Whether anybody wants to know of ``moved``; the shell says so."""
        self.offer(StartLeadership(DEFAULT_TENANT, _SYSTEM, self.epoch, holder, salt))
        if quarantine.tasks:
            reason = "it stopped the cell; see the quarantine"
            tasks = machine.state.tasks
            for name in quarantine.tasks:
                if name in tasks:
                    self.offer(CancelTasks(tasks[name].tenant, _SYSTEM, [name], reason))

    @property
    def watchers(self) -> Watchers:
        """Who waits for which task."""
        return self._release.watchers

    # What comes in

    @property
    def busy(self) -> bool:
        """Whether ``step`` has something to do before time passes."""
        return bool(self._waiting) or bool(self.machine.ready) or bool(self.machine.affected)

    def worker_frame(self, end: CellEnd, frame: WorkerFrame) -> None:
        """A worker says something.

        Raises:
            ProtocolViolation: the worker broke the protocol; the stream has to end.
        """
        if end.closing:
            return
        if end.take(frame) or not frame.sequence:  # one without a sequence has no content, and yet is a sign of life
            self._waiting.append(FromWorker(end, frame))
        self._release.out.dirty[end] = None

    def worker_gone(self, end: CellEnd) -> None:
        """A worker's stream has ended, whoever ended it."""
        end.closing = True
        self._release.gone(end)
        self._waiting.append(Gone(end))

    def client_frame(self, end: ServerEnd, frame: ClientFrame, refusals: list[Refusal]) -> None:
        """A client says something; ``refusals`` is what the door did not let through.

        Raises:
            ProtocolViolation: the client broke the protocol; the stream has to end.
        """
        if end.closing:
            return
        if end.take(frame):
            self._waiting.append(FromClient(end, frame, refusals))
        self._release.out.dirty[end] = None

    def client_gone(self, end: ServerEnd) -> None:
        """A client's stream has ended; nobody is told of its tasks any more, which go on."""
        end.closing = True
        self._release.out.drop(end)
        self._release.followers.gone(end)

    def offer(self, command: Command) -> int:
        """Take a command that came on no stream; the ticket under which ``answers`` will have what came of it."""
        self._ticket += 1
        self._waiting.append(Offered(command, self._ticket))
        return self._ticket

    def awake(self, now_ns: int) -> None:
        """This process was stopped until ``now_ns``: nothing times out before what has arrived meanwhile is heard."""
        self._now_ns = max(self._now_ns, now_ns)
        self._handle(Awake(DEFAULT_TENANT, _SYSTEM))

    def found(
        self, lookup: Lookup, outcomes: list[Settled], keys: dict[tuple[str, str], KeyEntry] | None = None
    ) -> None:
        """What a ``Lookup`` came to: the outcomes of those of its tasks that are final, and what its keys stand for."""
        end = lookup.end
        if lookup.again:
            self._waiting.extendleft(reversed(self._recall.found(lookup, outcomes, keys or {})))
            return
        known = {outcome.task: outcome for outcome in outcomes}
        for task_id in lookup.tasks:
            if task_id in known:
                end.outcome(known[task_id])
            else:
                end.refusal(_not_here(task_id))
        if not end.closing:
            self._release.out.dirty[end] = None

    def not_found_out(self, lookup: Lookup, reason: str) -> None:
        """The journal could not be read: end the client's stream, so that it asks again on another one."""
        self._recall.drop(lookup.end)
        self._release.close(lookup.end, reason)

    # The batch

    def step(self, now_ns: int) -> Record | None:
        """Handle what is there, as one batch.

        Args:
            now_ns: Unix time. Should it run backwards, it stands still.

        Returns:
            The record to make durable, or None when nothing has changed.

        Raises:
            Stopped: the machine met a defect. Nothing of the batch may be made durable and the cell must stop; what
                caused it is named, to be set aside.
        """
        self._now_ns = max(self._now_ns, now_ns)
        machine, limits = self.machine, self.machine.limits
        left = limits.batch_items_max
        due_ns = machine.next_due_ns()
        if due_ns is not None and due_ns <= self._now_ns:
            self._handle(Tick(DEFAULT_TENANT, _SYSTEM))
        while (
            self._waiting
            and left > 0
            and len(self._events) < limits.batch_events_max
            and self._bytes + machine.payload_bytes < limits.batch_bytes_max
        ):
            item = self._waiting.popleft()
            if type(item) is FromWorker:
                left -= item.frame.items
                self._from_worker(item.end, item.frame)
            elif type(item) is FromClient:
                left -= item.frame.items
                self._from_client(item)
            elif type(item) is Gone:
                self._gone(item.end)
            elif type(item) is Offered:
                left -= 1
                self._batch.answers.append(Answer(item.ticket, self._handle(item.command)))
        if machine.affected:
            self._handle(FollowUp(DEFAULT_TENANT, _SYSTEM, limits.batch_follow_ups_max))
        if machine.ready:
            self._handle(Allocate(DEFAULT_TENANT, _SYSTEM, limits.batch_items_max))
        return self._close_batch()

    def _close_batch(self) -> Record | None:
        batch, self._batch = self._batch, Batch()
        events, self._events, self._bytes = self._events, [], 0
        record = None
        if events:
            payloads = self.machine.take_payloads()
            record = seal(
                self.cell,
                self._next,
                self.epoch,
                self._holder,
                self._now_ns,
                self._previous,
                events,
                list(payloads.values()),
            )
            self._previous = record_hash(record)
            self._next += len(events)
        batch.last = self._next - 1
        self._batches.append(batch)
        if record is None:
            self.committed(self.durable)
        return record

    def _handle(self, command: Command) -> list[Refusal]:
        decision = self._decide(command)
        self._batch.effects += decision.effects
        return decision.refusals

    def _decide(self, command: Command) -> Decision:
        try:
            decision = self.machine.handle(command, self._now_ns)
            events = [encode_event(event) for event in decision.events]
        except Exception as error:
            raise Stopped(self.machine.cursor, error) from error
        self._events += events
        self._bytes += sum(map(len, events))
        if self._release.followers:
            self._batch.updates += self._release.followers.steps(self.machine, decision.events)
        if self.watched:
            self._batch.moved.update(moved(command, decision.events, self.machine.state))
        return decision

    def _from_worker(self, end: CellEnd, frame: WorkerFrame) -> None:
        hello = end.hello
        if hello is None or end.closing:
            return
        if frame.hello is not None:
            self._attach(end, hello, frame.credits)
        if self._workers.get(hello.worker) is not end:
            return
        reports, started, returned = frame.reports, frame.started, frame.returned
        if self._quarantine:
            reports = [self._quarantine.instead_of(report) for report in reports]
            started, returned = self._quarantine.refs(started), self._quarantine.refs(returned)
        self._handle(
            TakeFrame(
                DEFAULT_TENANT,
                hello.worker,
                hello.worker,
                hello.boot,
                hello.session,
                reports,
                started,
                returned,
                frame.progress,
                frame.credits,
                frame.draining,
                end.heard(),
            )
        )
        self._batch.acks.append((end, frame.sequence))
        if self._release.followers and (worker := self.machine.state.workers.get(hello.worker)) is not None:
            for note in frame.progress:
                # Of attempts that it has, and has not ended in this very frame.
                if worker.attempts.get(note.task) == note.number:
                    self._batch.updates += self._release.followers.tell(self.machine, note.task, note)
        if frame.bye:
            self._handle(DetachWorker(DEFAULT_TENANT, hello.worker, hello.worker, hello.boot, hello.session, True))
            if self._workers.get(hello.worker) is end:
                del self._workers[hello.worker]

    def _attach(self, end: CellEnd, hello: Hello, granted: int) -> None:
        effects = self._decide(AttachWorker(DEFAULT_TENANT, hello.worker, hello, granted)).effects
        if effects and type(effects[0]) is CloseWorker:
            end.closing = True
            self._batch.effects.append(Closed(end, effects[0].reason, effects[0].permanent))
            return
        self._workers[hello.worker] = end
        self._batch.effects.append(Attached(end, Welcome(self.cell, self.epoch, self.machine.limits.beat_ns)))
        self._batch.effects += effects

    def _gone(self, end: CellEnd) -> None:
        hello = end.hello
        if hello is None or self._workers.get(hello.worker) is not end:
            return
        del self._workers[hello.worker]
        self._handle(DetachWorker(DEFAULT_TENANT, hello.worker, hello.worker, hello.boot, hello.session, False))

    def _from_client(self, item: FromClient) -> None:
        end, frame = item.end, item.frame
        if waits := self._recall.park(item, self.machine.state):
            if isinstance(waits, Lookup):
                self._batch.lookups.append(waits)
            return
        keep_keys(item, self.machine.state)
        if frame.hello is not None:
            end.welcome(ClientWelcome(self.cell, self.epoch))
        refusals = list(item.refusals)
        submits = [(frame.tasks, False)] if frame.tasks else []
        submits += [(group, True) for group in frame.groups]
        self._batch.told += [(end, outcome) for outcome in item.known.values() if outcome is not None]
        for described, atomic in submits:
            refusals += self._submit(item, described, atomic=atomic)
        if frame.cancels:
            # A cancel that comes too late is no news to a client that will hear the outcome anyway.
            refused = self._handle(CancelTasks(end.tenant, LOCAL_PRINCIPAL, frame.cancels))
            refusals += [refusal for refusal in refused if refusal.code == "not_found"]
        if frame.watch:
            self._take_watch(end, frame.watch)
        for task_id in frame.follow:
            task = self.machine.state.tasks.get(task_id)
            # Of one that is not here its outcome tells all there is.
            if task is not None and task.tenant == end.tenant:
                self._batch.updates.append((end, self._release.followers.follow(self.machine, task, end)))
        if refusals:
            self._batch.refusals.append((end, refusals))
        self._batch.acks.append((end, frame.sequence))

    def _submit(self, item: FromClient, described: list[TaskSpec], *, atomic: bool) -> list[Refusal]:
        end, tasks = item.end, described
        refusals: list[Refusal] = []
        if item.known or item.keys:
            tasks, known, refusals = without_recalled(item, tasks, atomic=atomic)
            self._batch.known += [(end, *pair) for pair in known]
        if self._quarantine:
            tasks, set_aside = self._quarantine.without(tasks, atomic=atomic)
            refusals += set_aside
        decision = self._decide(SubmitTasks(end.tenant, LOCAL_PRINCIPAL, tasks, atomic))
        names = {refusal.task for refusal in decision.refusals}
        for effect in decision.effects:
            if type(effect) is TellKnown:
                names.add(effect.task)
                self._batch.known.append((end, effect.task, effect.known))
            else:
                self._batch.effects.append(effect)
        self._batch.watches.append((end, [spec.id for spec in tasks if spec.id not in names]))
        return refusals + decision.refusals

    def _take_watch(self, end: ServerEnd, ids: list[str]) -> None:
        known: list[str] = []
        unknown: list[str] = []
        for task_id in ids:
            task = self.machine.state.tasks.get(task_id)
            if task is None:
                unknown.append(task_id)
                continue
            if task.tenant != end.tenant:
                self._batch.refusals.append((end, [_not_here(task_id)]))
                continue
            known.append(task_id)
            if task.state.final:
                self._batch.effects.append(TellSettled(task_id))
        self._batch.watches.append((end, known))
        if unknown:
            self._batch.lookups.append(Lookup(end, unknown))

    # What goes out

    def committed(self, sequence: int) -> None:
        """The journal is durable up to ``sequence``: let out what waited for it."""
        self.durable = max(self.durable, sequence)
        while self._batches and self._batches[0].last <= self.durable:
            self._release.release(self._batches.popleft())

    def outgoing(self, *, acks: bool = True) -> list[tuple[End, CellFrame | ServerFrame]]:
        """The frames that can be sent now; see ``Outgoing.frames``."""
        return self._release.out.frames(acks=acks)

    @property
    def owes(self) -> bool:
        """Whether there are acknowledgements that ``outgoing`` has put off."""
        return self._release.out.owes

    def answers(self) -> list[Answer]:
        """Answers to offered commands, since the last call."""
        answers, self._release.answers = self._release.answers, []
        return answers

    def moved(self) -> set[str]:
        """Workers to which something has happened, since the last call; only while somebody watches."""
        workers, self._release.moved = self._release.moved, set()
        return workers

    def times(self) -> list[WorkOutTimes]:
        """Schedules whose next times have to be worked out, since the last call; ``PlanSchedule`` is the answer."""
        times, self._release.times = self._release.times, []
        return times

    def lookups(self) -> list[Lookup]:
        """Questions that only the journal can answer, since the last call."""
        lookups, self._release.lookups = self._release.lookups, []
        return lookups


def _not_here(task_id: str) -> Refusal:
    """The same for a task that never was, for one that nobody remembers and for one that is another tenant's."""
    reason = "there is no such task in this cell, or it is not remembered any more"
    return Refusal(task_id, "not_found", "watch", reason)
