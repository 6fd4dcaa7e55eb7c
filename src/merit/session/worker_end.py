"""The worker's end of its stream: what it holds, what it has to report, and how much more it takes."""

from __future__ import annotations

from collections import deque

from merit.model.frames import Assignment, AttemptRef, CellFrame, Hello, Report, Welcome, WorkerFrame
from merit.model.limits import MILLISECOND_NS
from merit.model.tasks import Progress
from merit.model.workers import Amount, Offer
from merit.session.link import Link, Outbox
from merit.session.newest import Newest, newer_progress

LOOKAHEAD_NS = 100 * MILLISECOND_NS
"""A worker takes as many attempts in advance as it will need for this long: enough to bridge the way to the control
plane and back with very short tasks, nothing with long ones, which are bound late and so to whoever is free first."""
PREFETCH_MAX = 1_024
_SMOOTHING = 0.1

Key = tuple[str, int]


class WorkerEnd:
    """One for the life of the worker's process; ``connect`` begins each new stream.

    A report is kept until the control plane has acknowledged that it is durable, and goes out again on a new stream
    until then.

    Args:
        worker: the worker's name, which it keeps from start to start.
        boot: new at each start of the process.
        offers: the capabilities.
        concurrency: attempts that run at the same time.
        tags: words by which workers are told apart.
        capacity: what it has of resources.
        tenants: whose tasks it takes; none: anybody's.
    """

    def __init__(
        self,
        worker: str,
        boot: str,
        offers: tuple[Offer, ...],
        concurrency: int,
        tags: tuple[str, ...] = (),
        capacity: tuple[Amount, ...] = (),
        tenants: tuple[str, ...] = (),
    ) -> None:
        self.worker = worker
        self.boot = boot
        self.offers = offers
        self.concurrency = concurrency
        self.tags = tags
        self.capacity = capacity
        self.tenants = tenants
        self.session = 0
        self.welcome: Welcome | None = None
        """Of the present stream; None until the control plane has said it."""
        self.draining = False
        self.left = False
        """The goodbye is on its way and acknowledged: the process may end."""
        self._link = Link()
        self._held: dict[Key, bool] = {}
        """Attempts, and whether they have been said to have begun."""
        self._unsent: Outbox[Report] = Outbox()
        self._sent: deque[tuple[int, list[Report]]] = deque()
        self._started: list[AttemptRef] = []
        self._returned: list[AttemptRef] = []
        self._progress: Newest[Key, Progress] = Newest(newer_progress)
        self._mean_ns = 0.0
        self._taken = 0
        self._granted = 0
        self._granted_told = 0
        self._hello: Hello | None = None
        self._drain_told = False
        self._drain_sequence = 0
        self._bye_sequence = 0
        self._connected = False
        self._words: list[str] = []

    @property
    def held(self) -> int:
        """Attempts that are running or about to."""
        return len(self._held)

    @property
    def unacknowledged(self) -> int:
        """Reports that the control plane has not yet acknowledged as durable."""
        return len(self._unsent) + sum(len(reports) for _, reports in self._sent)

    def connect(self) -> None:
        """A new stream is open: everything begins anew but what is held and what is not acknowledged."""
        self.session += 1
        self.welcome = None
        self._connected = True
        self._link = Link()
        sent, self._sent = self._sent, deque()
        waiting = self._unsent
        self._unsent = Outbox()
        for _, reports in sent:
            for report in reports:
                self._queue(report)
        while waiting:
            for report in waiting.take():
                self._queue(report)
        # Whether the old stream carried it is not known; saying it again is harmless.
        self._started = [AttemptRef(task, number) for (task, number), begun in self._held.items() if begun]
        unreported = [AttemptRef(report.task, report.number) for report in self._unsent]
        held = [AttemptRef(task, number) for task, number in self._held]
        # What was handed back on the old stream may or may not have arrived; saying that it is held keeps it from
        # being sent again, and it is handed back once more.
        held += self._returned
        self._taken = self._granted = self._granted_told = 0
        self._drain_told = False
        self._drain_sequence = self._bye_sequence = 0
        self._hello = Hello(
            self.worker,
            self.boot,
            self.session,
            self.offers,
            self.concurrency,
            tuple(held + unreported),
            self.tags,
            self.capacity,
            self.tenants,
        )

    def disconnected(self) -> None:
        """The stream is gone; nothing can be sent until ``connect``."""
        self._connected = False
        self.welcome = None

    def take(self, frame: CellFrame) -> tuple[list[Assignment], list[AttemptRef]]:
        """What the control plane wants started and canceled; both are to be carried out now.

        Raises:
            ProtocolViolation: the stream is broken; open a new one.
        """
        fresh = self._link.admit(frame.sequence, frame.ack)
        while self._sent and self._sent[0][0] <= self._link.acked:
            self._sent.popleft()
        if self._bye_sequence and self._link.acked >= self._bye_sequence:
            self.left = True
        if not fresh:
            return [], []
        if frame.welcome is not None:
            self.welcome = frame.welcome
        if frame.drain:
            self.draining = True
        self._words += frame.words
        new: list[Assignment] = []
        for assignment in frame.assignments:
            self._taken += 1
            key = (assignment.task, assignment.number)
            if key not in self._held:
                self._held[key] = False
                new.append(assignment)
        self._link.deal(frame.sequence)
        return new, frame.cancels

    def words(self) -> list[str]:
        """Commands of an operator that have come since this was asked last, oldest first. One that came shortly before the
        stream broke may come again on the next."""
        words, self._words = self._words, []
        return words

    def started(self, task: str, number: int) -> None:
        """An attempt has begun (worth telling only if it does not end at once)."""
        if (task, number) in self._held:
            self._held[task, number] = True
            self._started.append(AttemptRef(task, number))

    def progressed(self, progress: Progress) -> None:
        """How far an attempt is; the newest word wins, and log lines add up."""
        key = (progress.task, progress.number)
        if key in self._held:
            self._progress.put(key, progress)

    def ended(self, report: Report) -> None:
        """An attempt is over; its report is kept until it is acknowledged."""
        if self._held.pop((report.task, report.number), None) is None:
            return
        if self._progress:
            self._progress.drop((report.task, report.number))
        if report.wall_ns:
            mean = self._mean_ns
            self._mean_ns = mean + _SMOOTHING * (report.wall_ns - mean) if mean else float(report.wall_ns)
        self._queue(report)

    def running_for(self, wall_ns: int) -> None:
        """An attempt has been running for this long already: expect others to take as long, before it has ended."""
        self._mean_ns = max(self._mean_ns, float(wall_ns))

    def handed_back(self, task: str, number: int) -> None:
        """An attempt that had not begun is given back."""
        if self._held.pop((task, number), None) is not None:
            self._returned.append(AttemptRef(task, number))

    def drain(self) -> None:
        """Take nothing more; when nothing is held and every report is acknowledged, say goodbye."""
        self.draining = True

    def frame(self, *, beat: bool = False) -> WorkerFrame | None:
        """The next frame to send now, or None.

        Args:
            beat: send one even if there is nothing to say; one without a sequence, which nobody has to answer.
        """
        link = self._link
        if not self._connected:
            return None
        # After the goodbye nothing more is said.
        if link.open and not self._bye_sequence:
            self._grant()
            # Until the control plane has taken in that this worker drains, assignments may be on their way to it.
            drained = 0 < self._drain_sequence <= link.acked
            bye = drained and not self._held
            if (
                bye
                or self._hello is not None
                or self._unsent
                or self._started
                or self._returned
                or self._progress
                or self._credit_due()
                or (self.draining and not self._drain_told)
            ):
                return self._content(bye=bye)
        if beat or link.ack_urgent:
            _, ack = link.stamp(content=False)
            return WorkerFrame(ack=ack)
        return None

    def _content(self, *, bye: bool) -> WorkerFrame:
        reports = self._unsent.take()
        ended = {(report.task, report.number) for report in reports} if self._started else ()
        started = [ref for ref in self._started if (ref.task, ref.number) not in ended]
        # A goodbye has to be the last word: not while reports are left over for another frame.
        bye = bye and not self._unsent
        frame = WorkerFrame(
            0,
            0,
            self._hello,
            reports,
            started,
            self._returned,
            self._progress.take() if self._progress else [],
            self._granted,
            self.draining,
            bye,
        )
        frame.sequence, frame.ack = self._link.stamp(content=True)
        if reports:
            self._sent.append((frame.sequence, reports))
        if bye:
            self._bye_sequence = frame.sequence
        if self.draining and not self._drain_told:
            self._drain_sequence = frame.sequence
        self._hello, self._started, self._returned = None, [], []
        self._granted_told = self._granted
        self._drain_told = self.draining
        return frame

    def _queue(self, report: Report) -> None:
        text_bytes = report.failure.text_bytes if report.failure is not None else 0
        self._unsent.push(report, len(report.result) + len(report.trail) + text_bytes + 96)

    def _grant(self) -> None:
        """Offer to take as many more as there is room for, all counted since the stream began."""
        if self.draining:
            return
        # Whatever has been granted and has not come is on its way: it counts as if it were here.
        self._granted = max(self._granted, self._taken + self.target - len(self._held))

    @property
    def target(self) -> int:
        """Attempts to hold at a time: those that run, and enough in advance."""
        if not self._mean_ns:
            return 2 * self.concurrency
        ahead = int(LOOKAHEAD_NS * self.concurrency / self._mean_ns)
        return self.concurrency + min(PREFETCH_MAX, ahead)

    def _credit_due(self) -> bool:
        """A word about credit alone is worth a frame when it is a good part of all, or when nothing is left."""
        fresh = self._granted - self._granted_told
        return fresh > 0 and (4 * fresh >= self.target or self._granted_told <= self._taken)
