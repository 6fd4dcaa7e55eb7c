"""What the two ends of a stream say to each other, free of any wire format.

``merit.wire`` has the same messages as Protocol Buffers; the shells translate. Frames with content carry
``sequence`` 1, 2, 3, …; ``ack`` is the highest sequence of the other side that is dealt with (by the control plane:
durable).
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct, field

from merit.model.auditing import Finding
from merit.model.tasks import Failure, Input, Progress, Refusal, Task, TaskSpec, TaskState
from merit.model.workers import Amount, Offer


class ReportStatus(IntEnum):
    """The numbers are those of the wire."""

    COMPLETED = 1
    FAILED = 2
    CANCELED = 3
    REFUSED = 4


class AttemptRef(Struct, frozen=True, gc=False, order=True):
    """Names one attempt of one task."""

    task: str
    number: int


class Assignment(Struct, frozen=True, gc=False):
    """One attempt for a worker to make."""

    task: str
    number: int
    capability: str
    parameters: bytes
    parameters_blob: str
    run_timeout_ns: int
    inputs: tuple[Input, ...] = ()
    """More parameters: results of other tasks."""
    heartbeat_timeout_ns: int = 0
    """How often a sign of progress is due at least; 0: none is."""


class Report(Struct, frozen=True, gc=False):
    """How one attempt ended, as the worker says. ``wall_ns`` to ``memory_bytes`` are its own measurements."""

    task: str
    number: int
    status: ReportStatus
    result: bytes = b""
    result_blob: str = ""
    failure: Failure | None = None
    wall_ns: int = 0
    cpu_ns: int = 0
    memory_bytes: int = 0
    trail: bytes = b""
    findings: tuple[Finding, ...] = ()
    """Not said by the worker: what the gateway has found."""


class Hello(Struct, frozen=True):
    """A worker's first words on a stream. ``held``: what this boot has, or has not had a report acknowledged for."""

    worker: str
    boot: str
    session: int
    offers: tuple[Offer, ...]
    concurrency: int
    held: tuple[AttemptRef, ...] = ()
    tags: tuple[str, ...] = ()
    capacity: tuple[Amount, ...] = ()
    tenants: tuple[str, ...] = ()


class WorkerFrame(Struct):
    """``credits`` counts all attempts offered to be taken since the stream began."""

    sequence: int = 0
    ack: int = 0
    hello: Hello | None = None
    reports: list[Report] = field(default_factory=list)
    started: list[AttemptRef] = field(default_factory=list)
    returned: list[AttemptRef] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    credits: int = 0
    draining: bool = False
    bye: bool = False

    @property
    def items(self) -> int:
        return 1 + len(self.reports) + len(self.started) + len(self.returned) + len(self.progress)


class Welcome(Struct, frozen=True):
    """The control plane's first words to a worker, which has to send a frame every ``beat_ns`` at least."""

    cell: str
    epoch: int
    beat_ns: int


class CellFrame(Struct):
    """What the control plane says to a worker."""

    sequence: int = 0
    ack: int = 0
    welcome: Welcome | None = None
    assignments: list[Assignment] = field(default_factory=list)
    cancels: list[AttemptRef] = field(default_factory=list)
    drain: bool = False
    words: list[str] = field(default_factory=list)
    """Commands of an operator, such as RESET."""
    refused: str = ""
    permanent: bool = False
    """With ``refused``: opening another stream cannot help."""


class ClientHello(Struct, frozen=True):
    """A client's first words on a stream."""

    client: str


class ClientFrame(Struct):
    """``tasks`` are taken or refused one by one, each of ``groups`` as a whole."""

    sequence: int = 0
    ack: int = 0
    hello: ClientHello | None = None
    tasks: list[TaskSpec] = field(default_factory=list)
    groups: list[list[TaskSpec]] = field(default_factory=list)
    watch: list[str] = field(default_factory=list)
    cancels: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    """Which of the tasks may have been submitted before, on another stream."""
    follow: list[str] = field(default_factory=list)
    """Tell of every step of these tasks, of progress and log lines, until they end."""

    @property
    def items(self) -> int:
        more = len(self.watch) + len(self.cancels) + len(self.follow)
        return 1 + len(self.tasks) + sum(map(len, self.groups)) + more


class Settled(Struct, frozen=True, gc=False):
    """A task's final state, for whoever watches it."""

    task: str
    state: TaskState
    result: bytes = b""
    result_blob: str = ""
    failure: Failure | None = None
    attempts: int = 0
    worker: str = ""


def settled(task: Task) -> Settled:
    """A final task as its watchers hear of it."""
    last = task.attempts[-1] if task.attempts else None
    return Settled(
        task.id,
        task.state,
        task.result,
        task.result_blob,
        task.failure,
        task.counted,
        last.worker if last is not None else "",
    )


class ClientWelcome(Struct, frozen=True):
    """The control plane's first words to a client."""

    cell: str
    epoch: int


class Update(Struct, frozen=True, gc=False):
    """A step of a task that somebody follows. Steps may be left out when they come faster than they are read."""

    task: str
    state: TaskState
    attempts: int = 0
    worker: str = ""
    fraction: float = -1.0
    """0..1; -1: nothing is known."""
    message: str = ""
    log: tuple[str, ...] = ()


class ServerFrame(Struct):
    """What the control plane says to a client."""

    sequence: int = 0
    ack: int = 0
    welcome: ClientWelcome | None = None
    refusals: list[Refusal] = field(default_factory=list)
    outcomes: list[Settled] = field(default_factory=list)
    refused: str = ""
    permanent: bool = False
    """With ``refused``: opening another stream cannot help."""
    updates: list[Update] = field(default_factory=list)
    known: list[tuple[str, str]] = field(default_factory=list)
    """Submitted tasks that are others by their idempotency keys: the id of the submit, and that of the task."""
