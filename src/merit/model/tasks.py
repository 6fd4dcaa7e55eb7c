"""Tasks and their attempts."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

from merit.model.limits import ATTEMPTS_DEFAULT, RUN_TIMEOUT_NS_DEFAULT, TIMEOUT_NS_DEFAULT
from merit.model.workers import Amount

ID_FRAME_BYTES = 38
"""What an id takes in a frame."""
CONTENTS_GONE = "its contents are older than what the journal keeps, or were erased"
"""What people are told of a task of which ``Task.contents_gone`` holds."""
DEPENDENCY_BYTES = 100
"""What one entry in ``after`` costs: the text of an id, and the way back from it."""


class Priority(IntEnum):
    """Higher goes first."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class TaskState(IntEnum):
    """Life of a task; the numbers are those of the wire. COMPLETED, DEAD and CANCELED are final and never change."""

    WAITING = 1
    """For a dependency, for its time, or for the end of a back-off."""
    PENDING = 2
    """In its queue: could start now if a worker had room."""
    ASSIGNED = 3
    RUNNING = 4
    COMPLETED = 5
    DEAD = 6
    """Failed for good."""
    CANCELED = 7
    AUDITING = 8
    """There is a result, which is being looked at."""

    @property
    def final(self) -> bool:
        return TaskState.COMPLETED <= self <= TaskState.CANCELED


class AttemptState(IntEnum):
    """Life of one try at a task by one worker; from COMPLETED on it is over."""

    ASSIGNED = 1
    RUNNING = 2
    COMPLETED = 3
    FAILED = 4
    REFUSED = 5
    TIMED_OUT = 6
    LOST = 7
    CANCELED = 8
    RETURNED = 9
    """Handed back unstarted: as if it had never been assigned; not counted against ``attempts_max``."""
    REJECTED = 10
    """Its result did not pass the audit."""
    REPORTED = 11
    """There is a result, which is being looked at; the worker is done with it."""


class Failure(Struct, frozen=True, array_like=True, gc=False):
    """Why an attempt or a task failed. ``permanent``: trying again cannot help."""

    kind: str
    message: str
    detail: str = ""
    permanent: bool = False

    @property
    def text_bytes(self) -> int:
        """Roughly what it adds to a frame."""
        return len(self.message) + len(self.detail)


class RetryPolicy(Struct, frozen=True, array_like=True, gc=False):
    """How often a task is tried again after an attempt that ended in a certain way; -1: as often as ``attempts_max``
    lets it, which bounds all kinds together."""

    refused: int = -1
    failed: int = -1
    timed_out: int = -1
    """The run time-out struck."""
    silent: int = -1
    """The heartbeat time-out struck: the worker lived, and the attempt showed no progress."""
    lost: int = -1
    backoff_ns: int = 0
    """First wait, doubling with each attempt, with jitter; 0: the cell's."""
    backoff_ns_max: int = 0
    rejected: int = -1
    """The result did not pass the audit."""


class Demand(Struct, frozen=True, array_like=True, gc=False):
    """What a task asks of whoever does it, beyond its capability. All of it always holds but ``prefers``."""

    versions: str = ""
    """Range of semantic versions of the capability, such as ``>=1.2.0,<2.0.0``; empty: any."""
    worker: str = ""
    """The worker that has to do it."""
    tags: tuple[str, ...] = ()
    """The worker, or its offer, has all of these."""
    without_tags: tuple[str, ...] = ()
    """… and none of these."""
    resources: tuple[Amount, ...] = ()
    """What an attempt needs, in place of what the offer says of each."""
    strategy: str = ""
    """How its worker is chosen; empty: as for its capability."""
    prefers: tuple[str, ...] = ()
    """Tags of the worker that it would rather have, such as the zone where its data are; strategies may go by them."""


class ReviewKind(IntEnum):
    """How another task finds out whether a result is right."""

    COPY = 1
    """It does the same once more; the answers are compared."""
    GOLD = 2
    """It is one of which the right result is known, and stands for all others of its worker."""
    JUDGE = 3
    """It is given the result, and says what it thinks of it."""


class Review(Struct, frozen=True, array_like=True, gc=False):
    """What a task that the cell has made itself is to find out."""

    kind: ReviewKind
    of: str = ""
    """The task whose result is looked at; of a gold task nothing."""
    number: int = 0
    """GOLD: which of those of its capability it is."""


class Terms(Struct, frozen=True, array_like=True, gc=False):
    """What a requester may ask for beyond the usual; most tasks have none. Times are Unix nanoseconds, durations
    nanoseconds; 0: not asked for."""

    not_before_ns: int = 0
    deadline_ns: int = 0
    """At which the task dies if it is not final; its time-out (``TaskSpec.timeout_ns``) may come before."""
    queue_timeout_ns: int = 0
    """How long it may be pending, each time, before a worker gets it."""
    heartbeat_timeout_ns: int = 0
    """How long an attempt may run without a sign of progress; 0: what its capability says."""
    estimate_ns: int = 0
    """How long an attempt is expected to run; 0: what those of its capability took lately."""
    retry: RetryPolicy | None = None
    safe_to_repeat: bool = True
    """False, here or in the capability: never tried again unless it is known not to have started."""
    key: str = ""
    """What limits per key count by, and by which the tasks of a stateful capability stay on one worker."""
    idempotency_key: str = ""
    """Another task of the tenant with the same key is this one."""
    inputs: tuple[tuple[str, str], ...] = ()
    """Parameters that are results of tasks it needs: name of the parameter, id of the task (which is in ``after``)."""
    despite_dead: bool = False
    """It runs also when tasks that it needs die or are canceled; inputs from those are null."""
    labels: tuple[tuple[str, str], ...] = ()
    origin: str = ""
    """The dead letter that it is another try at."""
    schedule: str = ""
    """The schedule that made it."""
    demand: Demand | None = None
    review: Review | None = None
    """The cell has made it to look at a result; nobody else sets this."""

    @property
    def request_bytes(self) -> int:
        """Roughly what it takes in memory and in a frame."""
        size = 200 + len(self.key) + len(self.idempotency_key)
        if self.demand is not None:
            names = (*self.demand.tags, *self.demand.without_tags, *self.demand.prefers)
            size += 200 + sum(len(name) + 60 for name in names) + 100 * len(self.demand.resources)
        return size + sum(len(a) + len(b) + 100 for a, b in (*self.inputs, *self.labels))


class Input(Struct, frozen=True, array_like=True, gc=False):
    """A parameter that another task's result has given; ``blob`` names a large one."""

    name: str
    result: bytes
    blob: str = ""


class TaskSpec(Struct, frozen=True, gc=False):
    """A task as its requester describes it.

    ``id`` is a UUID version 7 in its usual text form. ``parameters`` is a JSON object in UTF-8; when it is larger
    than the inline limit it is empty and ``parameters_blob`` names the content in the blob store.
    """

    id: str
    capability: str
    parameters: bytes = b"{}"
    parameters_blob: str = ""
    priority: Priority = Priority.MEDIUM
    run_timeout_ns: int = RUN_TIMEOUT_NS_DEFAULT
    attempts_max: int = ATTEMPTS_DEFAULT
    after: tuple[str, ...] = ()
    description: str = ""
    timeout_ns: int = TIMEOUT_NS_DEFAULT
    """From when it is taken in (or from ``not_before_ns``) to its end, all attempts together; then it dies."""
    terms: Terms | None = None

    @property
    def frame_bytes(self) -> int:
        """Roughly what it adds to a frame."""
        size = len(self.parameters) + len(self.description) + ID_FRAME_BYTES * len(self.after) + 128
        return size if self.terms is None else size + self.terms.request_bytes

    @property
    def request_bytes(self) -> int:
        """As ``Task.request_bytes``."""
        size = len(self.parameters) + len(self.description) + DEPENDENCY_BYTES * len(self.after)
        return size if self.terms is None else size + self.terms.request_bytes


class Attempt(Struct, array_like=True, gc=False):
    """One try. Times are Unix nanoseconds by the control plane's clock, 0 while they have not come."""

    number: int
    worker: str
    assigned_ns: int
    due_ns: int
    """When the run time-out strikes, and never after the task's deadline."""
    state: AttemptState = AttemptState.ASSIGNED
    started_ns: int = 0
    ended_ns: int = 0
    wall_ns: int = 0
    cpu_ns: int = 0
    memory_bytes: int = 0
    failure: Failure | None = None
    trail: bytes = b""
    """JSON: log lines and evidence, as the worker handed them in."""

    @property
    def live(self) -> bool:
        return self.state <= AttemptState.RUNNING


class Task(Struct, array_like=True, gc=False):
    """A task and all that happened to it. Only :mod:`merit.core.apply` changes one."""

    id: str
    tenant: str
    principal: str
    capability: str
    parameters: bytes
    parameters_blob: str
    priority: Priority
    run_timeout_ns: int
    attempts_max: int
    after: tuple[str, ...]
    description: str
    submitted_ns: int
    order: int
    """Place in the sequence of all submitted tasks: first come, first served."""
    state: TaskState = TaskState.PENDING
    attempts: tuple[Attempt, ...] = ()
    blocked_by: int = 0
    """Dependencies that are not completed yet."""
    due_ns: int = 0
    """While WAITING: when its time comes or its back-off ends; 0 if it is not time that the task waits for. While
    PENDING: when its queue time-out strikes, or 0."""
    ended_ns: int = 0
    result: bytes = b""
    result_blob: str = ""
    failure: Failure | None = None
    deadline_ns: int = 0
    """When it dies if it is not final by then; 0: never."""
    terms: Terms | None = None
    inputs: tuple[Input, ...] = ()
    """Results of tasks that it needed, as far as they have come."""
    successor: str = ""
    """Of a dead letter that was retried: the task that does it."""

    @property
    def since_ns(self) -> int:
        """From when on it has a right to be done: when it was taken in, or its time came."""
        terms = self.terms
        return self.submitted_ns if terms is None else max(self.submitted_ns, terms.not_before_ns)

    @property
    def counted(self) -> int:
        """Attempts that count against ``attempts_max``."""
        return sum(1 for attempt in self.attempts if attempt.state is not AttemptState.RETURNED)

    @property
    def contents_gone(self) -> bool:
        """Whether its parameters or its result are not there any more: nothing is taken in without."""
        return not (self.parameters or self.parameters_blob) or (
            self.state is TaskState.COMPLETED and not (self.result or self.result_blob)
        )

    def attempt(self, number: int) -> Attempt | None:
        """The attempt with this number (they count from 1), or None."""
        return self.attempts[number - 1] if 0 < number <= len(self.attempts) else None

    @property
    def request_bytes(self) -> int:
        """What the task's own description takes in memory, roughly, for the bound on live tasks."""
        size = len(self.parameters) + len(self.description) + DEPENDENCY_BYTES * len(self.after)
        if self.terms is not None:
            size += self.terms.request_bytes + sum(len(item.result) for item in self.inputs)
        return size

    def weight_bytes(self) -> int:
        """What the task's contents take in memory, for the cell's bounds."""
        weight = len(self.parameters) + len(self.result)
        if self.inputs:
            weight += sum(len(item.result) for item in self.inputs)
        for attempt in self.attempts:
            weight += len(attempt.trail)
            if attempt.failure is not None:
                weight += len(attempt.failure.message) + len(attempt.failure.detail)
        return weight


class Progress(Struct, frozen=True, gc=False):
    """How far a running attempt is: ``fraction`` 0..1; -1: a sign of life, without a word on how far. ``log``: lines
    that it has written since the last note."""

    task: str
    number: int
    fraction: float
    message: str = ""
    log: tuple[str, ...] = ()


class Refusal(Struct, frozen=True, gc=False):
    """Why something asked for was not done. ``code``: invalid, conflict, not_found, exhausted, batch or poisoned."""

    task: str
    code: str
    field: str
    reason: str
    retry_after_ns: int = 0
