"""Tasks and their attempts."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

from merit.model.limits import ATTEMPTS_DEFAULT, RUN_TIMEOUT_NS_DEFAULT

ID_FRAME_BYTES = 38
"""What an id takes in a frame."""
DEPENDENCY_BYTES = 100
"""What one entry in ``after`` costs: the text of an id, and the way back from it."""


class Priority(IntEnum):
    """Higher goes first."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class TaskState(IntEnum):
    """Life of a task; the numbers are those of the wire. The last three are final and never change."""

    WAITING = 1
    """For a dependency, or for the end of a back-off."""
    PENDING = 2
    """In its queue: could start now if a worker had room."""
    ASSIGNED = 3
    RUNNING = 4
    COMPLETED = 5
    DEAD = 6
    """Failed for good."""
    CANCELED = 7

    @property
    def final(self) -> bool:
        return self >= TaskState.COMPLETED


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

    @property
    def frame_bytes(self) -> int:
        """Roughly what it adds to a frame."""
        return len(self.parameters) + len(self.description) + ID_FRAME_BYTES * len(self.after) + 128

    @property
    def request_bytes(self) -> int:
        """As ``Task.request_bytes``."""
        return len(self.parameters) + len(self.description) + DEPENDENCY_BYTES * len(self.after)


class Attempt(Struct, array_like=True, gc=False):
    """One try. Times are Unix nanoseconds by the control plane's clock, 0 while they have not come."""

    number: int
    worker: str
    assigned_ns: int
    due_ns: int
    """When the run time-out strikes."""
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
    """While WAITING: when the back-off ends; 0 if it is not time that the task waits for."""
    ended_ns: int = 0
    result: bytes = b""
    result_blob: str = ""
    failure: Failure | None = None

    @property
    def counted(self) -> int:
        """Attempts that count against ``attempts_max``."""
        return sum(1 for attempt in self.attempts if attempt.state is not AttemptState.RETURNED)

    def attempt(self, number: int) -> Attempt | None:
        """The attempt with this number (they count from 1), or None."""
        return self.attempts[number - 1] if 0 < number <= len(self.attempts) else None

    @property
    def request_bytes(self) -> int:
        """What the task's own description takes in memory, roughly, for the bound on live tasks."""
        return len(self.parameters) + len(self.description) + DEPENDENCY_BYTES * len(self.after)

    def weight_bytes(self) -> int:
        """What the task's contents take in memory, for the cell's bounds."""
        weight = len(self.parameters) + len(self.result)
        for attempt in self.attempts:
            weight += len(attempt.trail)
            if attempt.failure is not None:
                weight += len(attempt.failure.message) + len(attempt.failure.detail)
        return weight


class Progress(Struct, frozen=True, gc=False):
    """How far a running attempt is: ``fraction`` 0..1."""

    task: str
    number: int
    fraction: float
    message: str = ""


class Refusal(Struct, frozen=True, gc=False):
    """Why something asked for was not done. ``code``: invalid, conflict, not_found, exhausted, batch or poisoned."""

    task: str
    code: str
    field: str
    reason: str
    retry_after_ns: int = 0
