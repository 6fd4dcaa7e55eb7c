"""The machine: commands in, events and effects out.

One door, ``Machine.handle``. It is pure: the time comes in, nothing is random, and the same commands at the same times
give the same events. Each command is validated before the first of its events is emitted. An exception out of
``handle`` is a defect: the state may be half changed, nothing of the batch has been journalled, and the cell stops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from merit.core.admission import conclude, set_admission
from merit.core.allocating import allocate
from merit.core.attempts import task_due
from merit.core.auditing import audit_due, call_off, result_reported, review_ended
from merit.core.dead_letters import purge_dead, retry_dead
from merit.core.depending import follow_up
from merit.core.desk import Desk
from merit.core.gates import GATE_KEY
from merit.core.governing import (
    drain_worker,
    hear_words,
    pause_worker,
    register_worker,
    remove_worker,
    resume_worker,
    set_allocation,
    tell_worker,
)
from merit.core.noting import SUPERVISE_KEY
from merit.core.queueing import come_forward
from merit.core.recovering import recover
from merit.core.rollouts import end_rollout, start_rollout
from merit.core.schedules import (
    SCHEDULE_KEY,
    plan_schedule,
    remove_schedule,
    run_schedule,
    schedule_due,
    set_schedule,
)
from merit.core.settings import pause_queue, resume_queue, set_audit, set_rule, set_tenant
from merit.core.staffing import WORKER_KEY, attach_worker, detach_worker, take_frame, worker_due
from merit.core.submitting import cancel_tasks, submit_tasks
from merit.core.supervising import consider, judge_worker, set_objective, set_supervision, supervise_due
from merit.model.commands import (
    Allocate,
    AttachWorker,
    Awake,
    CancelTasks,
    Command,
    DetachWorker,
    DrainWorker,
    EndRollout,
    FollowUp,
    HearWords,
    JudgeWorker,
    PauseQueue,
    PauseWorker,
    PlanSchedule,
    PurgeDead,
    RegisterWorker,
    RemoveSchedule,
    RemoveWorker,
    ResumeQueue,
    ResumeWorker,
    RetryDead,
    RunSchedule,
    SetAdmission,
    SetAllocation,
    SetAudit,
    SetObjective,
    SetRule,
    SetSchedule,
    SetSupervision,
    SetTenant,
    StartLeadership,
    StartRollout,
    SubmitTasks,
    TakeFrame,
    TellWorker,
    Tick,
)
from merit.model.effects import Effect
from merit.model.events import Event, LeadershipStarted
from merit.model.tasks import Refusal, TaskState


class Decision(Struct):
    """What a command came to. ``refusals`` answer the one who sent it; they change nothing."""

    events: list[Event]
    effects: list[Effect]
    refusals: list[Refusal]


class Machine(Desk):
    """See the module.

    Args:
        state: where the journal ends.
        catalogue: by name, the strategies that there are.
        limits: bounds and times.
        panel: who reckons scores and reputations, and decides about workers.
    """

    def handle(self, command: Command, now_ns: int) -> Decision:
        """Decide, and apply what was decided.

        Args:
            command: what is asked.
            now_ns: Unix time; must not run backwards.
        """
        self.now_ns = now_ns
        self.cursor = command
        self.events, self.effects, self.refusals = [], [], []
        _HANDLERS[type(command)](self, command)
        while self.probed or self.reported or self.reviewed or self.orphans:
            self._follow()
        if self.suspects:
            consider(self)
        return Decision(self.events, self.effects, self.refusals)

    def _follow(self) -> None:
        """What has just happened to a task may be of consequence for others."""
        if self.probed:
            conclude(self, self.probed.popleft())
        elif self.reported:
            result_reported(self, *self.reported.popleft())
        elif self.reviewed:
            review_ended(self, self.reviewed.popleft())
        else:
            call_off(self, self.orphans.popleft())

    def next_due_ns(self) -> int | None:
        """When the next ``Tick`` is needed, or None."""
        due_ns = self.timers.next_due_ns()
        return due_ns if due_ns is None else max(due_ns, self.quiet_until_ns)


def _start_leadership(desk: Desk, command: StartLeadership) -> None:
    limits, state = desk.limits, desk.state
    # Where no worker was, none can come back: nobody who joins and dies now has to be waited for that long.
    grace_until_ns = desk.now_ns + (limits.grace_ns if state.workers else 0)
    desk.emit(
        LeadershipStarted(
            command.epoch,
            command.holder,
            grace_until_ns,
            limits.finals_max,
            limits.finals_bytes_max,
            limits.dead_letters_max,
            limits.dead_letters_bytes_max,
            limits.keys_max,
            limits.keys_ns,
            limits.profiles_max,
            limits.homes_max,
            command.salt,
        )
    )
    recover(desk, grace_until_ns)


def _awake(desk: Desk, _command: Awake) -> None:
    desk.quiet_until_ns = desk.now_ns + desk.limits.awake_ns


def _tick(desk: Desk, command: Tick) -> None:
    if desk.now_ns < desk.quiet_until_ns:
        return
    while len(desk.events) < command.events_max and (key := desk.timers.pop_due(desk.now_ns)) is not None:
        desk.cursor = key
        for prefix, due in _DUE.items():
            if key.startswith(prefix):
                due(desk, key.removeprefix(prefix))
                break
        else:
            task = desk.state.tasks.get(key)
            (audit_due if task is not None and task.state is TaskState.AUDITING else task_due)(desk, key)


def _gate_due(desk: Desk, name: str) -> None:
    come_forward(desk, desk.gates.due(GATE_KEY + name))


_DUE: Mapping[str, Callable[[Desk, str], None]] = {
    WORKER_KEY: worker_due,
    GATE_KEY: _gate_due,
    SCHEDULE_KEY: schedule_due,
    SUPERVISE_KEY: supervise_due,
}
"""By prefix of a timer's key: what is done when it goes off. All others are those of tasks."""

_HANDLERS: Mapping[type[Command], Callable[[Desk, Any], None]] = {
    StartLeadership: _start_leadership,
    SubmitTasks: submit_tasks,
    CancelTasks: cancel_tasks,
    AttachWorker: attach_worker,
    TakeFrame: take_frame,
    DetachWorker: detach_worker,
    Awake: _awake,
    Tick: _tick,
    FollowUp: follow_up,
    Allocate: allocate,
    RetryDead: retry_dead,
    PurgeDead: purge_dead,
    PauseQueue: pause_queue,
    ResumeQueue: resume_queue,
    SetRule: set_rule,
    SetTenant: set_tenant,
    SetSchedule: set_schedule,
    RemoveSchedule: remove_schedule,
    RunSchedule: run_schedule,
    PlanSchedule: plan_schedule,
    RegisterWorker: register_worker,
    DrainWorker: drain_worker,
    PauseWorker: pause_worker,
    ResumeWorker: resume_worker,
    RemoveWorker: remove_worker,
    TellWorker: tell_worker,
    HearWords: hear_words,
    SetAllocation: set_allocation,
    SetAdmission: set_admission,
    SetAudit: set_audit,
    StartRollout: start_rollout,
    EndRollout: end_rollout,
    SetSupervision: set_supervision,
    SetObjective: set_objective,
    JudgeWorker: judge_worker,
}
