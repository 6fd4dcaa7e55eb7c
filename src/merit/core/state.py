"""The state of a cell: the fold of its journal. Only :mod:`merit.core.apply` changes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from msgspec import Struct, field

from merit.model.auditing import AuditCase, AuditPolicy
from merit.model.fleet import Admission, Allocation, Rollout
from merit.model.rules import Rule, RuleKind, TenantTerms
from merit.model.schedules import Planned
from merit.model.supervision import Objective, Policy
from merit.model.tasks import Task
from merit.model.workers import Offer, Profile, Worker

Payloads = Mapping[bytes, bytes]
"""Contents by their SHA-256 digest. One that is missing has been erased and reads as empty."""


class Tenant(Struct):
    """A tenant that has tasks which are not final, or settings of its own."""

    terms: TenantTerms
    live: int = 0


class KeyEntry(Struct, array_like=True, gc=False):
    """The task that an idempotency key stands for. ``content``: digest of what was asked."""

    task: str
    content: bytes
    until_ns: int


class State(Struct):
    """All of it. ``dependents``, ``live_bytes`` and the counts by tenant follow from the tasks."""

    sequence: int = 0
    """Of the last event applied."""
    epoch: int = 0
    holder: str = ""
    grace_until_ns: int = 0
    finals_max: int = 0
    finals_bytes_max: int = 0
    order: int = 0
    """Tasks submitted so far."""
    completed: int = 0
    dead: int = 0
    canceled: int = 0
    tasks: dict[str, Task] = field(default_factory=dict)
    """Live tasks, and final ones until they are forgotten."""
    finals: deque[Task] = field(default_factory=deque)
    finals_weights: deque[int] = field(default_factory=deque)
    """What each of ``finals`` weighs, in bytes; follows from them, and does not change any more."""
    finals_bytes: int = 0
    """The sum of these."""
    forgotten: int = 0
    """Final tasks that are no longer in ``tasks``; the journal has them."""
    dependents: dict[str, dict[str, Task]] = field(default_factory=dict)
    """By task: the waiting ones that need it completed, by their ids."""
    workers: dict[str, Worker] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)
    """By capability: as it was offered last."""
    live_bytes: int = 0
    dead_letters_max: int = 0
    dead_letters_bytes_max: int = 0
    dead_letters: dict[str, Task] = field(default_factory=dict)
    """Dead tasks that nobody has retried or purged, oldest first. Not among ``finals``."""
    dead_letters_bytes: int = 0
    keys_max: int = 0
    keys_ns: int = 0
    keys: dict[tuple[str, str], KeyEntry] = field(default_factory=dict)
    """By tenant and idempotency key, oldest first."""
    keys_forgotten: int = 0
    """Keys that are no longer here; the journal has them."""
    tenants: dict[str, Tenant] = field(default_factory=dict)
    paused: dict[str, str] = field(default_factory=dict)
    """By capability of which nothing is given out: why."""
    rules: dict[tuple[RuleKind, str], Rule] = field(default_factory=dict)
    schedules: dict[str, Planned] = field(default_factory=dict)
    profiles_max: int = 0
    homes_max: int = 0
    profiles: dict[str, Profile] = field(default_factory=dict)
    """By worker, also while it is away; who joined longest ago comes first."""
    allocations: dict[str, Allocation] = field(default_factory=dict)
    """By capability; under the empty name that of the system."""
    admissions: dict[str, Admission] = field(default_factory=dict)
    """By capability."""
    audits: dict[str, AuditPolicy] = field(default_factory=dict)
    """By capability."""
    rollouts: dict[str, Rollout] = field(default_factory=dict)
    """By capability."""
    policy: Policy = Policy()
    """How workers are supervised."""
    objectives: dict[str, Objective] = field(default_factory=dict)
    """By capability."""
    salt: bytes = b""
    """Secret by which it is drawn what is looked at closely."""
    cases: dict[str, AuditCase] = field(default_factory=dict)
    """By task: its result is being looked at."""
    homes: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """By tenant, stateful capability and key, oldest first: the worker that has its tasks."""
    homes_of: dict[str, dict[tuple[str, str, str], None]] = field(default_factory=dict)
    """The same by worker; follows from ``homes``."""
    reserved: dict[str, str] = field(default_factory=dict)
    """By task that waits: the worker that is kept free for it. Follows from the workers."""

    def needed(self, task: Task) -> list[Task]:
        """Of what ``task`` needs, what is kept here. A task that came under such an id later than ``task`` itself is
        another one: that which was needed had been forgotten by then."""
        found = (self.tasks.get(other) for other in task.after)
        return [other for other in found if other is not None and other.order < task.order]

    @property
    def live(self) -> int:
        """Tasks that are not final."""
        return len(self.tasks) - len(self.finals) - len(self.dead_letters)
