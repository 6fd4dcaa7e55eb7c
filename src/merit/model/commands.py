"""What the machine can be told. Imperative; each carries who says it for whom, and nothing it does not need.

Commands are never journalled: what came of them is, as events.
"""

from __future__ import annotations

from msgspec import Struct

from merit.model.auditing import AuditPolicy
from merit.model.fleet import Admission, Allocation
from merit.model.frames import AttemptRef, Hello, Report
from merit.model.rules import Rule, TenantTerms
from merit.model.schedules import Schedule
from merit.model.supervision import Objective, Policy, Verdict
from merit.model.tasks import Progress, TaskSpec
from merit.model.workers import Registration


class Command(Struct, frozen=True):
    """``tenant`` is whose things it is about, ``principal`` who says so."""

    tenant: str
    principal: str


class StartLeadership(Command, frozen=True):
    """First command of each epoch: a leader begins where the journal ends."""

    epoch: int
    holder: str
    salt: bytes = b""
    """Random; no worker may know it."""


class SubmitTasks(Command, frozen=True):
    """``atomic``: all of ``tasks`` or none; otherwise each by itself."""

    tasks: list[TaskSpec]
    atomic: bool


class CancelTasks(Command, frozen=True):
    """Call tasks off; each by itself."""

    tasks: list[str]
    reason: str = "canceled on request"


class RetryDead(Command, frozen=True):
    """Try dead letters again: for each its id, and that of the task which does it."""

    pairs: list[tuple[str, str]]


class PurgeDead(Command, frozen=True):
    """Dead letters that nobody needs any more."""

    tasks: list[str]


class PauseQueue(Command, frozen=True):
    """Give nothing of a capability out; what runs goes on."""

    capability: str
    reason: str


class ResumeQueue(Command, frozen=True):
    """Give it out again."""

    capability: str


class SetRule(Command, frozen=True):
    """From now on this limit holds, in place of the one of the same kind and name."""

    rule: Rule


class SetTenant(Command, frozen=True):
    """From now on a tenant gets this."""

    terms: TenantTerms


class SetSchedule(Command, frozen=True):
    """A schedule, new or in place of the one of its name."""

    schedule: Schedule


class RemoveSchedule(Command, frozen=True):
    """No more tasks of this schedule."""

    name: str


class RunSchedule(Command, frozen=True):
    """Make a schedule's task now, beside its times, under the id ``task``."""

    name: str
    task: str


class PlanSchedule(Command, frozen=True):
    """The shell's answer to ``WorkOutTimes``: the times of a schedule from ``after_ns`` on, in order. Of no effect when
    the schedule is not waiting for just this any more."""

    name: str
    cron: str
    zone: str
    after_ns: int
    times_ns: tuple[int, ...]


class AttachWorker(Command, frozen=True):
    """A worker opened a stream; ``credits`` is what it takes at first."""

    hello: Hello
    credits: int


class TakeFrame(Command, frozen=True):
    """What an attached worker says. Ignored whole when the worker has since attached anew."""

    worker: str
    boot: str
    session: int
    reports: list[Report]
    started: list[AttemptRef]
    returned: list[AttemptRef]
    progress: list[Progress]
    credits: int
    draining: bool
    heard: int = 0
    """How many more commands of operators it has acknowledged, of those that it was told on this stream."""


class DetachWorker(Command, frozen=True):
    """A worker's stream ended; ``bye``: it said that it leaves for good."""

    worker: str
    boot: str
    session: int
    bye: bool


class RegisterWorker(Command, frozen=True):
    """A worker of the unary contract says what it is; under an id that is known it replaces what was there."""

    worker: str
    registration: Registration


class DrainWorker(Command, frozen=True):
    """Let a worker finish what it holds, and leave."""

    worker: str


class PauseWorker(Command, frozen=True):
    """Give a worker nothing more until it is resumed, however often it comes back."""

    worker: str
    reason: str


class ResumeWorker(Command, frozen=True):
    """End a pause, or let one that was removed join again."""

    worker: str


class RemoveWorker(Command, frozen=True):
    """Take a worker out: what it holds goes elsewhere, and it may not join until it is resumed."""

    worker: str
    reason: str


class TellWorker(Command, frozen=True):
    """Have a worker told a word such as RESET, RETRAIN, UPDATE_CONFIG or STOP; which there are is the door's business."""

    worker: str
    word: str


class HearWords(Command, frozen=True):
    """A worker that has no session to acknowledge them in has heard these, the first that were kept for it. Of no effect
    when they are not the first any more."""

    worker: str
    words: tuple[str, ...]


class SetAllocation(Command, frozen=True):
    """From now on workers are chosen like this."""

    allocation: Allocation


class SetAdmission(Command, frozen=True):
    """From now on a worker that comes has to pass these probes."""

    admission: Admission


class SetAudit(Command, frozen=True):
    """From now on the results of a capability are looked at like this."""

    policy: AuditPolicy


class SetSupervision(Command, frozen=True):
    """From now on the fleet is supervised like this."""

    policy: Policy


class SetObjective(Command, frozen=True):
    """What tasks of a capability are to reach; a share of 0 ends it."""

    objective: Objective


class JudgeWorker(Command, frozen=True):
    """A person decides about a worker: PARDON, PIN (with a factor), UNPIN, or undo (PARDON with the sequence of the
    judgement that is not to hold)."""

    worker: str
    verdict: Verdict
    reason: str
    factor: int = 0
    """With PIN: thousandths; 0: as it is."""
    undoes: int = 0


class StartRollout(Command, frozen=True):
    """Give a version of a capability a share of the tasks; of one that is being introduced: another share.

    ``only_running``: nothing but that. A rollout that has ended, perhaps just now, does not begin again.
    """

    capability: str
    version: str
    share_permille: int
    only_running: bool = False


class EndRollout(Command, frozen=True):
    """Give the version everything (``promote``), or nothing."""

    capability: str
    promote: bool


class Tick(Command, frozen=True):
    """Time has passed: do what is due, until ``events_max`` events have come of it; what is left stays due."""

    events_max: int = 8_192


class FollowUp(Command, frozen=True):
    """Release or fail the tasks that waited for those that have ended, ``count_max`` at most; what is left stays for
    the next one.

    The kernel says it at the end of each batch, before ``Allocate``.
    """

    count_max: int


class Awake(Command, frozen=True):
    """The process was stopped for a while (suspended, SIGSTOP, a paused machine): what has arrived meanwhile is to be
    heard before anything times out."""


class Allocate(Command, frozen=True):
    """Bind waiting tasks to workers that have room, ``count_max`` at most; what is left stays for the next one.

    The kernel says it once at the end of each batch.
    """

    count_max: int
