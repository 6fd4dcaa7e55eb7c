"""What a batch lets out once it is durable: acknowledgements, replies, effects."""

from __future__ import annotations

from merit.core.desk import Desk
from merit.kernel.following import Followers
from merit.kernel.outgoing import Outgoing
from merit.kernel.waiting import Answer, Attached, Batch, Closed, End, Lookup
from merit.kernel.watchers import Watchers
from merit.model.effects import (
    CloseWorker,
    Effect,
    SendAssignment,
    SendCancel,
    SendDrain,
    SendWords,
    TellSettled,
    WorkOutTimes,
)
from merit.model.frames import settled
from merit.session.cell_end import CellEnd


class Release:
    """The side of the kernel that faces outwards. Nothing here may run ahead of the journal."""

    def __init__(self, machine: Desk) -> None:
        self._machine = machine
        self.streams: dict[str, CellEnd] = {}
        """By worker: the stream on which it is spoken to. Follows the one on which it speaks when that is durable."""
        self.watchers = Watchers()
        self.followers = Followers()
        self.out = Outgoing()
        self.answers: list[Answer] = []
        self.lookups: list[Lookup] = []
        self.times: list[WorkOutTimes] = []
        self.moved: set[str] = set()

    def gone(self, end: CellEnd) -> None:
        """A worker's stream has ended."""
        self.out.drop(end)
        if end.hello is not None and self.streams.get(end.hello.worker) is end:
            del self.streams[end.hello.worker]

    def release(self, batch: Batch) -> None:
        """Everything that this batch has been holding back."""
        dirty = self.out.dirty
        for end, sequence in batch.acks:
            end.durable(sequence)
            if not end.closing:
                dirty[end] = None
        for client, refusals in batch.refusals:
            for refusal in refusals:
                client.refusal(refusal)
        for client, outcome in batch.told:
            client.outcome(outcome)
        for client, task_id, known in batch.known:
            client.known(task_id, known)
        for client, tasks in batch.watches:
            if not client.closing:
                for task_id in tasks:
                    self.watchers.add(task_id, client)
        self._carry_out(batch.effects)
        for client, update in batch.updates:
            if not client.closing:
                client.update(update)
                dirty[client] = None
        self.answers += batch.answers
        self.lookups += batch.lookups
        self.moved |= batch.moved

    def _carry_out(self, effects: list[Effect | Attached | Closed]) -> None:
        dirty, streams = self.out.dirty, self.streams
        for effect in effects:
            if type(effect) is SendAssignment:
                worker = streams.get(effect.worker)
                if worker is not None:
                    worker.assign(effect.assignment)
                    dirty[worker] = None
            elif type(effect) is TellSettled:
                self._tell(effect.task)
            elif isinstance(effect, SendCancel | SendDrain | SendWords):
                self._say(effect)
            elif type(effect) is Attached:
                self._open(effect)
            elif type(effect) is CloseWorker:
                self._close_worker(effect)
            elif type(effect) is Closed:
                self.close(effect.end, effect.reason, permanent=effect.permanent)
            elif type(effect) is WorkOutTimes:
                self.times.append(effect)

    def _say(self, effect: SendCancel | SendDrain | SendWords) -> None:
        worker = self.streams.get(effect.worker)
        if worker is None:
            return
        if isinstance(effect, SendCancel):
            worker.cancel(effect.attempt)
        elif isinstance(effect, SendDrain):
            worker.drain()
        else:
            worker.tell(effect.words)
        self.out.dirty[worker] = None

    def _tell(self, task_id: str) -> None:
        task = self._machine.state.tasks.get(task_id)
        # Forgotten, and submitted again since: there will be news of it later.
        if task is not None and not task.state.final:
            return
        for end in self.watchers.take(task_id):
            if task is None:
                self.lookups.append(Lookup(end, [task_id]))
                continue
            end.outcome(settled(task))
            self.out.dirty[end] = None

    def _open(self, attached: Attached) -> None:
        end = attached.end
        assert end.hello is not None
        name = end.hello.worker
        before = self.streams.pop(name, None)
        if before is not None and not before.closing and before.hello is not None:
            same = before.hello.boot == end.hello.boot
            newer = "it opened a newer stream" if same else "another process has its name; give each its own"
            # Not for good: it may be the other one that is dead, and its hello that was long on its way.
            self.close(before, f"superseded: worker {name}: {newer}")
        if end.closing:
            # It has gone while its coming became durable. The stream before it is over all the same.
            return
        self.streams[name] = end
        end.welcome(attached.welcome)
        self.out.dirty[end] = None

    def _close_worker(self, effect: CloseWorker) -> None:
        end = self.streams.get(effect.worker)
        if end is None or end.hello is None:
            return
        if (end.hello.boot, end.hello.session) == (effect.boot, effect.session):
            self.close(end, effect.reason, permanent=effect.permanent)

    def close(self, end: End, reason: str, *, permanent: bool = False) -> None:
        """End a stream, saying why; ``permanent``: opening another one cannot help."""
        end.refuse(reason, permanent=permanent)
        self.out.dirty[end] = None
