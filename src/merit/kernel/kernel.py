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
from merit.kernel.outgoing import Outgoing
from merit.kernel.quarantine import Quarantine, Stopped
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
from merit.model.effects import CloseWorker, Effect, SendAssignment, SendCancel, TellSettled
from merit.model.frames import (
    CellFrame,
    ClientFrame,
    ClientWelcome,
    Hello,
    ServerFrame,
    Settled,
    Welcome,
    WorkerFrame,
    settled,
)
from merit.model.record import Record, Tail, record_hash, seal
from merit.model.tasks import Refusal
from merit.session.cell_end import CellEnd
from merit.session.server_end import ServerEnd

TENANT = "default"
PRINCIPAL = "local"
"""Whom everybody is, as long as there are no identities and the server listens on loopback only."""
_SYSTEM = "cell"


class Kernel:
    """See the module.

    Args:
        cell: the cell's name, which stands in every record.
        machine: holds the state at the journal's end.
        tail: of the journal, with the epoch that this leader was given.
        holder: this leader's name.
        quarantine: what stopped the cell before.
    """

    def __init__(self, cell: str, machine: Machine, tail: Tail, holder: str, quarantine: Quarantine) -> None:
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
        self._streams: dict[str, CellEnd] = {}
        """By worker: the stream on which it is spoken to. Follows ``_workers`` when that is durable."""
        self.watchers = Watchers()
        self._out = Outgoing()
        self._parked: dict[ServerEnd, list[FromClient]] = {}
        """Clients that may have submitted something before, and all that they say until that is known."""
        self._answers: list[Answer] = []
        self._lookups: list[Lookup] = []
        self._ticket = 0
        self.offer(StartLeadership(TENANT, _SYSTEM, self.epoch, holder))
        if quarantine.tasks:
            reason = "it stopped the cell; see the quarantine file beside the journal"
            self.offer(CancelTasks(TENANT, _SYSTEM, list(quarantine.tasks), reason))

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
        self._out.dirty[end] = None

    def worker_gone(self, end: CellEnd) -> None:
        """A worker's stream has ended, whoever ended it."""
        end.closing = True
        self._out.drop(end)
        if end.hello is not None and self._streams.get(end.hello.worker) is end:
            del self._streams[end.hello.worker]
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
        self._out.dirty[end] = None

    def client_gone(self, end: ServerEnd) -> None:
        """A client's stream has ended; nobody is told of its tasks any more, which go on."""
        end.closing = True
        self._out.drop(end)

    def offer(self, command: Command) -> int:
        """Take a command that came on no stream; the ticket under which ``answers`` will have what came of it."""
        self._ticket += 1
        self._waiting.append(Offered(command, self._ticket))
        return self._ticket

    def awake(self, now_ns: int) -> None:
        """This process was stopped until ``now_ns``: nothing times out before what has arrived meanwhile is heard."""
        self._now_ns = max(self._now_ns, now_ns)
        self._handle(Awake(TENANT, _SYSTEM))

    def found(self, lookup: Lookup, outcomes: list[Settled]) -> None:
        """What a ``Lookup`` came to: the outcomes of those of its tasks that are final."""
        end = lookup.end
        known = {outcome.task: outcome for outcome in outcomes}
        if lookup.again:
            first, *others = self._parked.pop(end)
            looked = first.known | {task_id: known.get(task_id) for task_id in lookup.tasks}
            self._waiting.extendleft(reversed([FromClient(end, first.frame, first.refusals, looked), *others]))
            return
        for task_id in lookup.tasks:
            if task_id in known:
                end.outcome(known[task_id])
            else:
                end.refusal(Refusal(task_id, "not_found", "watch", "no such task in this cell's journal"))
        if not end.closing:
            self._out.dirty[end] = None

    def not_found_out(self, lookup: Lookup, reason: str) -> None:
        """The journal could not be read: end the client's stream, so that it asks again on another one."""
        self._parked.pop(lookup.end, None)
        self._close(lookup.end, reason)

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
            self._handle(Tick(TENANT, _SYSTEM))
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
            self._handle(FollowUp(TENANT, _SYSTEM, limits.batch_follow_ups_max))
        if machine.ready:
            self._handle(Allocate(TENANT, _SYSTEM, limits.batch_items_max))
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
                TENANT,
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
            )
        )
        self._batch.acks.append((end, frame.sequence))
        if frame.bye:
            self._handle(DetachWorker(TENANT, hello.worker, hello.worker, hello.boot, hello.session, True))
            if self._workers.get(hello.worker) is end:
                del self._workers[hello.worker]

    def _attach(self, end: CellEnd, hello: Hello, granted: int) -> None:
        effects = self._decide(AttachWorker(TENANT, hello.worker, hello, granted)).effects
        if effects and type(effects[0]) is CloseWorker:
            end.closing = True
            self._batch.effects.append(Closed(end, effects[0].reason))
            return
        self._workers[hello.worker] = end
        self._batch.effects.append(Attached(end, Welcome(self.cell, self.epoch, self.machine.limits.beat_ns)))
        self._batch.effects += effects

    def _gone(self, end: CellEnd) -> None:
        hello = end.hello
        if hello is None or self._workers.get(hello.worker) is not end:
            return
        del self._workers[hello.worker]
        self._handle(DetachWorker(TENANT, hello.worker, hello.worker, hello.boot, hello.session, False))

    def _from_client(self, item: FromClient) -> None:
        end, frame = item.end, item.frame
        if self._parks(item):
            return
        if frame.hello is not None:
            end.welcome(ClientWelcome(self.cell, self.epoch))
        refusals = list(item.refusals)
        submits = [(frame.tasks, False)] if frame.tasks else []
        submits += [(group, True) for group in frame.groups]
        if item.known:
            known = {task_id: outcome for task_id, outcome in item.known.items() if outcome is not None}
            self._batch.told += [(end, outcome) for outcome in known.values()]
            submits = [([spec for spec in specs if spec.id not in known], atomic) for specs, atomic in submits]
        for described, atomic in submits:
            tasks = described
            if self._quarantine:
                tasks, set_aside = self._quarantine.without(described, atomic=atomic)
                refusals += set_aside
            refused = self._handle(SubmitTasks(TENANT, PRINCIPAL, tasks, atomic))
            refusals += refused
            names = {refusal.task for refusal in refused} if refused else ()
            self._batch.watches.append((end, [spec.id for spec in tasks if spec.id not in names]))
        if frame.cancels:
            # A cancel that comes too late is no news to a client that will hear the outcome anyway.
            refused = self._handle(CancelTasks(TENANT, PRINCIPAL, frame.cancels))
            refusals += [refusal for refusal in refused if refusal.code == "not_found"]
        if frame.watch:
            self._take_watch(end, frame.watch)
        if refusals:
            self._batch.refusals.append((end, refusals))
        self._batch.acks.append((end, frame.sequence))

    def _parks(self, item: FromClient) -> bool:
        """Whether what a client says has to wait until the journal has told if its tasks are new."""
        end, state = item.end, self.machine.state
        if end in self._parked:
            self._parked[end].append(item)
            return True
        if not state.forgotten or not item.frame.again:
            return False
        # Also after looking: what was there then may have been forgotten while the journal was read.
        doubtful = [name for name in item.frame.again if name not in state.tasks and name not in item.known]
        if doubtful:
            self._parked[end] = [item]
            self._batch.lookups.append(Lookup(end, doubtful, again=True))
        return bool(doubtful)

    def _take_watch(self, end: ServerEnd, ids: list[str]) -> None:
        known: list[str] = []
        unknown: list[str] = []
        for task_id in ids:
            task = self.machine.state.tasks.get(task_id)
            if task is None:
                unknown.append(task_id)
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
            self._release(self._batches.popleft())

    def _release(self, batch: Batch) -> None:
        dirty = self._out.dirty
        for end, sequence in batch.acks:
            end.durable(sequence)
            if not end.closing:
                dirty[end] = None
        for client, refusals in batch.refusals:
            for refusal in refusals:
                client.refusal(refusal)
        for client, outcome in batch.told:
            client.outcome(outcome)
        for client, tasks in batch.watches:
            if not client.closing:
                for task_id in tasks:
                    self.watchers.add(task_id, client)
        self._carry_out(batch.effects)
        self._answers += batch.answers
        self._lookups += batch.lookups

    def _carry_out(self, effects: list[Effect | Attached | Closed]) -> None:
        dirty, streams = self._out.dirty, self._streams
        for effect in effects:
            if type(effect) is SendAssignment:
                worker = streams.get(effect.worker)
                if worker is not None:
                    worker.assign(effect.assignment)
                    dirty[worker] = None
            elif type(effect) is TellSettled:
                self._tell(effect.task)
            elif type(effect) is SendCancel:
                worker = streams.get(effect.worker)
                if worker is not None:
                    worker.cancel(effect.attempt)
                    dirty[worker] = None
            elif type(effect) is Attached:
                self._open(effect)
            elif type(effect) is CloseWorker:
                self._close_worker(effect)
            elif type(effect) is Closed:
                self._close(effect.end, effect.reason)

    def _tell(self, task_id: str) -> None:
        task = self.machine.state.tasks.get(task_id)
        # Forgotten, and submitted again since: there will be news of it later.
        if task is not None and not task.state.final:
            return
        for end in self.watchers.take(task_id):
            if task is None:
                self._lookups.append(Lookup(end, [task_id]))
                continue
            end.outcome(settled(task))
            self._out.dirty[end] = None

    def _open(self, attached: Attached) -> None:
        end = attached.end
        assert end.hello is not None
        name = end.hello.worker
        before = self._streams.pop(name, None)
        if before is not None and not before.closing and before.hello is not None:
            same = before.hello.boot == end.hello.boot
            newer = "it opened a newer stream" if same else "another process has its name; give each its own"
            # Not for good: it may be the other one that is dead, and its hello that was long on its way.
            self._close(before, f"superseded: worker {name}: {newer}")
        if end.closing:
            # It has gone while its coming became durable. The stream before it is over all the same.
            return
        self._streams[name] = end
        end.welcome(attached.welcome)
        self._out.dirty[end] = None

    def _close_worker(self, effect: CloseWorker) -> None:
        end = self._streams.get(effect.worker)
        if end is None or end.hello is None:
            return
        if (end.hello.boot, end.hello.session) == (effect.boot, effect.session):
            self._close(end, effect.reason)

    def _close(self, end: End, reason: str) -> None:
        end.refuse(reason)
        self._out.dirty[end] = None

    def outgoing(self, *, acks: bool = True) -> list[tuple[End, CellFrame | ServerFrame]]:
        """The frames that can be sent now; see ``Outgoing.frames``."""
        return self._out.frames(acks=acks)

    @property
    def owes(self) -> bool:
        """Whether there are acknowledgements that ``outgoing`` has put off."""
        return self._out.owes

    def answers(self) -> list[Answer]:
        """Answers to offered commands, since the last call."""
        answers, self._answers = self._answers, []
        return answers

    def lookups(self) -> list[Lookup]:
        """Questions that only the journal can answer, since the last call."""
        lookups, self._lookups = self._lookups, []
        return lookups
