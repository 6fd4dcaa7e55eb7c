"""The client's end of its stream: what it has submitted and what it waits for."""

from __future__ import annotations

from collections import deque
from itertools import islice

from msgspec import Struct, field

from merit.model.frames import ClientFrame, ClientHello, ServerFrame, Settled, Update
from merit.model.limits import FRAME_ITEMS_MAX
from merit.model.tasks import Refusal, TaskSpec
from merit.session.link import Link, Outbox

Submit = list[TaskSpec]
"""One task, or several that are taken all or not at all."""


class News(Struct):
    """What a frame from the control plane brought. ``accepted``: tasks that are durable now and not refused;
    ``known``: the ids of submits, and of the tasks that they are by their idempotency keys."""

    accepted: list[str]
    refusals: list[Refusal]
    outcomes: list[Settled]
    updates: list[Update] = field(default_factory=list)
    known: list[tuple[str, str]] = field(default_factory=list)


class _Sent(Struct):
    sequence: int
    submits: list[Submit]
    watch: list[str]
    cancels: list[str]


class ClientEnd:
    """One for the life of the client; ``connect`` begins each new stream.

    A submit is kept until it is acknowledged as durable and goes out again on a new stream until then; the ids make a
    repeated one harmless. What is accepted and not yet final is watched again on each new stream, and what is followed
    is followed again. A submit that turns out to be another task, by its idempotency key, counts as accepted, and that
    task is watched in its place.
    """

    def __init__(self, client: str) -> None:
        self.client = client
        self.connected = False
        self._link = Link()
        self._submits: Outbox[Submit] = Outbox()
        self._watch: dict[str, None] = {}
        self._submitted = 0
        self._cancels: dict[str, int] = {}
        """And how many submits have to be on their way before, so that none is overtaken."""
        self._follow: dict[str, int] = {}
        """As ``_cancels``."""
        self._following: dict[str, None] = {}
        """Not final, as far as is known here."""
        self._sent: deque[_Sent] = deque()
        self._aliases: dict[str, str] = {}
        """Submits that are known as other tasks and not acknowledged yet."""
        self._waiting: dict[str, None] = {}
        """Accepted and not final, as far as is known here."""
        self._again: set[str] = set()
        """Submitted tasks that the control plane may have taken already, and may have forgotten since."""
        self._hello: ClientHello | None = None

    @property
    def unacknowledged(self) -> int:
        """Submits that are not yet known to be durable."""
        return len(self._submits) + sum(len(sent.submits) for sent in self._sent)

    def connect(self) -> None:
        """A new stream is open: say again what was not acknowledged, and what is waited for."""
        self.connected = True
        self._link = Link()
        self._hello = ClientHello(self.client)
        sent, self._sent = self._sent, deque()
        waiting, self._submits = self._submits, Outbox()
        self._submitted = 0
        for frame in sent:
            for submit in frame.submits:
                self.submit(submit, again=True)
        while waiting:
            for submit in waiting.take():
                self.submit(submit)
        unsaid = [task_id for frame in sent for task_id in frame.cancels]
        self._cancels = dict.fromkeys([*unsaid, *self._cancels], self._submitted)
        self._follow = dict.fromkeys(self._following, self._submitted)
        self._watch = dict(self._waiting)

    def disconnected(self) -> None:
        """The stream is gone; nothing can be sent until ``connect``."""
        self.connected = False

    def submit(self, tasks: Submit, *, again: bool = False) -> None:
        """Several tasks in one submit are taken all or not at all. ``again``: they may have been submitted before."""
        self._submitted += 1
        if again:
            self._again.update(task.id for task in tasks)
        self._submits.push(tasks, sum(task.frame_bytes for task in tasks))

    def watch(self, task_id: str) -> None:
        """Be told the outcome of a task that was submitted before."""
        self._waiting[task_id] = None
        self._watch[task_id] = None

    def follow(self, task_id: str) -> None:
        """Be told of every step of a task until it has ended; its outcome comes only if it is also watched."""
        self.unfollow(task_id)
        self._following[task_id] = None
        self._follow[task_id] = self._submitted

    def unfollow(self, task_id: str) -> None:
        """It need not be said again on another stream. On this one it goes on."""
        self._following.pop(task_id, None)
        self._follow.pop(task_id, None)

    def cancel(self, task_id: str) -> None:
        """Ask for a task to be called off."""
        self._cancels[task_id] = self._submitted

    def take(self, frame: ServerFrame) -> News:
        """What the control plane says.

        Raises:
            ProtocolViolation: the stream is broken; open a new one.
        """
        fresh = self._link.admit(frame.sequence, frame.ack)
        refused = {refusal.task for refusal in frame.refusals} if fresh else set()
        if fresh and frame.known:
            self._aliases.update(frame.known)
        accepted: list[str] = []
        waiting, aliases = self._waiting, self._aliases
        while self._sent and self._sent[0].sequence <= self._link.acked:
            for submit in self._sent.popleft().submits:
                for task in submit:
                    self._again.discard(task.id)
                    if task.id not in refused:
                        accepted.append(task.id)
                        if not (aliases and aliases.pop(task.id, "")):
                            waiting[task.id] = None
        if not fresh:
            return News(accepted, [], [])
        following = self._following
        for task_id, existing in frame.known:
            waiting.pop(task_id, None)
            if existing not in waiting:
                self.watch(existing)
            if task_id in following:
                self.unfollow(task_id)
                self.follow(existing)
        for task_id in refused:
            waiting.pop(task_id, None)
            following.pop(task_id, None)
        for outcome in frame.outcomes:
            waiting.pop(outcome.task, None)
            if following:
                following.pop(outcome.task, None)
        self._link.deal(frame.sequence)
        return News(accepted, frame.refusals, frame.outcomes, frame.updates, frame.known)

    def frame(self) -> ClientFrame | None:
        """The next frame to send now, or None."""
        if not self.connected:
            return None
        link = self._link
        if link.open and (self._hello is not None or self._submits or self._watch or self._cancels or self._follow):
            return self._content()
        if link.ack_urgent:
            _, ack = link.stamp(content=False)
            return ClientFrame(ack=ack)
        return None

    def _content(self) -> ClientFrame:
        submits = self._submits.take()
        watch = _first(self._watch, FRAME_ITEMS_MAX)
        # Not before everything that was submitted until then is out: one of it may be what is to be called off.
        sent = self._submitted - len(self._submits)
        cancels = _due(self._cancels, sent) if self._cancels else []
        follow = _due(self._follow, sent) if self._follow else []
        # Single tasks are taken before groups. One that was submitted after a group may need a task of it, and so goes
        # as a group of its own.
        first_group = next((place for place, submit in enumerate(submits) if len(submit) > 1), len(submits))
        single = [submit[0] for submit in submits[:first_group]]
        groups = submits[first_group:]
        again = [task.id for submit in submits for task in submit if task.id in self._again] if self._again else []
        frame = ClientFrame(0, 0, self._hello, single, groups, watch, cancels, again, follow)
        frame.sequence, frame.ack = self._link.stamp(content=True)
        self._sent.append(_Sent(frame.sequence, submits, watch, cancels))
        self._hello = None
        return frame


def _due(ids: dict[str, int], sent: int) -> list[str]:
    """Take out what does not overtake a submit, now that ``sent`` of them are on their way."""
    return _first(ids, sum(1 for position in ids.values() if position <= sent))


def _first(ids: dict[str, int] | dict[str, None], count: int) -> list[str]:
    """Take the first of ``ids`` out, at most as many as a frame holds."""
    taken = list(islice(ids, min(count, FRAME_ITEMS_MAX)))
    for task_id in taken:
        del ids[task_id]
    return taken
