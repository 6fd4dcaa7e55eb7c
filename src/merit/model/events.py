"""What has happened: the journal is a sequence of these, and the state is their fold.

An event says everything that applying it needs, computed: applying never decides. Parameters, results and trails
stand beside the events in the record and are named here by their SHA-256, so that they can be erased without
breaking the chain of hashes. All events of a record happened at the record's time.

The tag is the event's name; when a field changes its meaning the tag gets a version (``TaskSubmitted/2``) and
:mod:`merit.core.codec` learns to upgrade the old form. Fields may be added at the end with a default at any time.
"""

from __future__ import annotations

from msgspec import Struct

from merit.model.auditing import AuditPolicy
from merit.model.fleet import Admission, Allocation
from merit.model.rules import Rule, TenantTerms
from merit.model.schedules import Schedule
from merit.model.supervision import Circuit, Objective, Policy, Verdict
from merit.model.tasks import AttemptState, Failure, Priority, Terms
from merit.model.track_record import Rating
from merit.model.workers import Amount, Offer, Registration, WorkerState


class Event(Struct, frozen=True, array_like=True, gc=False, tag=True):
    """Base of all events."""


class LeadershipStarted(Event, frozen=True):
    """A process began to lead this cell. Until ``grace_until_ns`` no attempt times out and no worker is lost."""

    epoch: int
    holder: str
    grace_until_ns: int
    finals_max: int
    finals_bytes_max: int
    dead_letters_max: int = 0
    """0, in journals from before there were dead letters: dead tasks are final ones like others."""
    dead_letters_bytes_max: int = 0
    keys_max: int = 0
    keys_ns: int = 0
    profiles_max: int = 0
    """0, in journals from before there were profiles: none are kept."""
    homes_max: int = 0
    salt: bytes = b""
    """Secret by which it is drawn what is looked at closely."""


class TaskSubmitted(Event, frozen=True):
    """A task was taken in. It waits for what it needs, or is pending at once."""

    task: str
    tenant: str
    principal: str
    capability: str
    parameters: bytes
    """Digest of the parameters, empty when they are a blob."""
    parameters_blob: str
    priority: Priority
    run_timeout_ns: int
    attempts_max: int
    after: tuple[str, ...] = ()
    description: str = ""
    deadline_ns: int = 0
    queue_due_ns: int = 0
    """When its queue time-out strikes, if it is pending at once."""
    terms: Terms | None = None


class TaskReleased(Event, frozen=True):
    """Nothing holds the task back any more: it goes into its queue, before the new ones if it was tried before."""

    task: str
    queue_due_ns: int = 0


class TaskDelayed(Event, frozen=True):
    """The task will be tried again at ``until_ns``."""

    task: str
    until_ns: int


class TaskCompleted(Event, frozen=True):
    """The attempt's report was accepted and is the task's result. Other attempts of the task are over with it."""

    task: str
    number: int
    """0: it is the answer of those who were asked whether another one was right."""
    result: bytes
    """Digest of the result, empty when it is a blob."""
    result_blob: str
    wall_ns: int
    cpu_ns: int
    memory_bytes: int
    trail: bytes = b""


class AuditStarted(Event, frozen=True):
    """The attempt's report was accepted as far as it goes; whether its result is right is found out by others, until
    ``due_ns`` at most."""

    task: str
    number: int
    result: bytes
    """Digest of the result."""
    wall_ns: int
    cpu_ns: int
    memory_bytes: int
    trail: bytes
    due_ns: int


class AuditAnswered(Event, frozen=True):
    """One of those who were asked about the result of ``task`` has answered; ``result`` is empty if none came."""

    task: str
    review: str
    worker: str
    result: bytes
    """Digest."""


class ResultJudged(Event, frozen=True):
    """A result of the worker was looked at closely: ``how`` by copies, gold or a judge. ``task`` is the one that it is a
    result of."""

    worker: str
    capability: str
    task: str
    right: bool
    how: str
    reason: str


class TaskDied(Event, frozen=True):
    """The task failed for good."""

    task: str
    failure: Failure


class TaskCanceled(Event, frozen=True):
    """By ``principal``. Attempts that are alive are over with it; their workers are told."""

    task: str
    principal: str
    reason: str


class AttemptAssigned(Event, frozen=True):
    """The task was bound to a worker, which has not necessarily heard of it yet."""

    task: str
    number: int
    worker: str
    due_ns: int


class AttemptStarted(Event, frozen=True):
    """The worker says that it has begun; the run time-out counts from here."""

    task: str
    number: int
    due_ns: int


class AttemptReturned(Event, frozen=True):
    """The worker handed it back unstarted; the task goes to the head of its queue."""

    task: str
    number: int
    queue_due_ns: int = 0


class AttemptFailed(Event, frozen=True):
    """``state`` says how: FAILED, REFUSED, TIMED_OUT, LOST or CANCELED. What becomes of the task is the next event."""

    task: str
    number: int
    state: AttemptState
    failure: Failure
    wall_ns: int = 0
    cpu_ns: int = 0
    memory_bytes: int = 0
    trail: bytes = b""


class WorkerJoined(Event, frozen=True):
    """A worker is there, new or started anew, or with other capabilities than before."""

    worker: str
    boot: str
    tenant: str
    offers: tuple[Offer, ...]
    concurrency: int
    tags: tuple[str, ...]
    capacity: tuple[Amount, ...] = ()
    tenants: tuple[str, ...] = ()
    state: WorkerState = WorkerState.ACTIVE
    """ACTIVE, PAUSED or PROBATION."""


class RoomSeen(Event, frozen=True):
    """How many more attempts these workers take: what the decisions after it went by. What a worker offers is not
    journalled as it comes; only who has changed since the last decision stands here."""

    rooms: tuple[tuple[str, int], ...]


class WorkerReserved(Event, frozen=True):
    """What the worker frees is kept for this task, which has waited long for as much."""

    worker: str
    task: str


class WorkerReleased(Event, frozen=True):
    """Nothing is kept free any more."""

    worker: str


class WorkerRegistered(Event, frozen=True):
    """A worker of the unary contract said what it is."""

    worker: str
    registration: Registration


class WorkerPaused(Event, frozen=True):
    """By ``principal``: it gets nothing more until it is resumed."""

    worker: str
    principal: str
    reason: str


class WorkerResumed(Event, frozen=True):
    """By ``principal``: a pause is over, or one that was removed may join again."""

    worker: str
    principal: str
    state: WorkerState = WorkerState.ACTIVE
    """ACTIVE or PROBATION, if it is here."""


class WorkerRemoved(Event, frozen=True):
    """By ``principal``: it may not join until it is resumed. Its attempts have been dealt with by the events before."""

    worker: str
    principal: str
    reason: str


class WorkerAdmitted(Event, frozen=True):
    """It has passed the probes of what it offers."""

    worker: str
    admitted: tuple[str, ...]


class WorkerRated(Event, frozen=True):
    """What its record comes to: its score, how far it is trusted over all, and at each capability with news, with what the
    model of reputation remembers of that."""

    worker: str
    score: int
    rating: Rating
    ratings: tuple[tuple[str, Rating, tuple[int, ...]], ...]


class WorkerJudged(Event, frozen=True):
    """By ``principal``, a person or supervision: something was decided about it. ``figures``: what was gone by, by name.
    What else follows (a pause, say) stands in events of its own, behind this one."""

    worker: str
    principal: str
    verdict: Verdict
    factor: int
    """From now on, in thousandths."""
    reason: str
    figures: tuple[tuple[str, int], ...] = ()
    undoes: int = 0
    """Sequence of the judgement that does not hold any more; 0: none."""


class CircuitChanged(Event, frozen=True):
    """Its attempts fail, or do not any more."""

    worker: str
    circuit: Circuit
    reason: str


class SupervisionSet(Event, frozen=True):
    """By ``principal``: from now on the fleet is supervised like this."""

    policy: Policy
    principal: str


class ObjectiveSet(Event, frozen=True):
    """By ``principal``: what tasks of a capability are to reach; a share of 0 ends it."""

    objective: Objective
    principal: str


class WorkerTold(Event, frozen=True):
    """By ``principal``: a command for it is kept until it has heard it."""

    worker: str
    principal: str
    word: str


class WorkerHeard(Event, frozen=True):
    """It has been told the oldest ``count`` of its commands."""

    worker: str
    count: int


class AllocationSet(Event, frozen=True):
    """By ``principal``: from now on workers are chosen like this."""

    allocation: Allocation
    principal: str


class AdmissionSet(Event, frozen=True):
    """By ``principal``: a worker that comes from now on has to pass these probes."""

    admission: Admission
    principal: str


class AuditSet(Event, frozen=True):
    """By ``principal``: results of this capability are looked at like this; one that asks nothing ends what was."""

    policy: AuditPolicy
    principal: str


class RolloutStarted(Event, frozen=True):
    """By ``principal``: the version gets this share of the capability's tasks; the count of outcomes begins."""

    capability: str
    version: str
    share_permille: int
    principal: str
    floors: tuple[str, ...] = ()
    """What of earlier rollouts goes on to hold: see ``Rollout``."""
    barred: tuple[str, ...] = ()


class RolloutShared(Event, frozen=True):
    """By ``principal``: the version that is being introduced gets another share."""

    capability: str
    share_permille: int
    principal: str


class RolloutEnded(Event, frozen=True):
    """By ``principal``: it gets everything, or nothing."""

    capability: str
    promoted: bool
    principal: str


class WorkerDraining(Event, frozen=True):
    """The worker finishes what it holds and takes nothing more."""

    worker: str


class WorkerLeft(Event, frozen=True):
    """For good; ``lost``: not by its own word. Its attempts have been dealt with by the events before."""

    worker: str
    lost: bool
    reason: str


class DeadLetterClosed(Event, frozen=True):
    """By ``principal``: it was looked at. ``successor`` is the task that tries again; without one it was purged."""

    task: str
    principal: str
    successor: str = ""


class QueuePaused(Event, frozen=True):
    """By ``principal``: nothing of the capability is given out until it is resumed."""

    capability: str
    principal: str
    reason: str


class QueueResumed(Event, frozen=True):
    """By ``principal``."""

    capability: str
    principal: str


class RuleSet(Event, frozen=True):
    """By ``principal``: from now on this limit holds; one that limits nothing ends the one that was there."""

    rule: Rule
    principal: str


class TenantSet(Event, frozen=True):
    """By ``principal``: what a tenant may have."""

    terms: TenantTerms
    principal: str


class ScheduleSet(Event, frozen=True):
    """By ``principal``: a schedule is there, new or with another content."""

    schedule: Schedule
    principal: str


class ScheduleRemoved(Event, frozen=True):
    """By ``principal``: it makes no more tasks; those that it made go on."""

    schedule: str
    principal: str


class SchedulePlanned(Event, frozen=True):
    """The next times of a schedule, as the shell has worked them out from its expression."""

    schedule: str
    times_ns: tuple[int, ...]


class ScheduleFired(Event, frozen=True):
    """The time ``at_ns`` of a schedule came. ``task`` was made for it; without one it was passed over, and ``why``
    says so."""

    schedule: str
    at_ns: int
    task: str = ""
    why: str = ""
