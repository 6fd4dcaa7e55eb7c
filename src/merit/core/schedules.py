"""Tasks that come again and again.

When a schedule is due next is worked out in the shell, by a library that knows cron expressions and time zones, and
comes in as a command; from then on it stands in the journal, and everything else is decided here.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from merit.core.desk import Desk
from merit.core.submitting import admit, cancel, refusal_of
from merit.core.timing import arm
from merit.model.commands import PlanSchedule, RemoveSchedule, RunSchedule, SetSchedule
from merit.model.effects import WorkOutTimes
from merit.model.events import ScheduleFired, SchedulePlanned, ScheduleRemoved, ScheduleSet
from merit.model.ids import make_id
from merit.model.limits import SCHEDULES_MAX, SECOND_NS
from merit.model.schedules import Missed, Overlap, Planned, Schedule
from merit.model.tasks import Refusal, Terms

SCHEDULE_KEY = "schedule/"
"""Prefix of the timer keys of schedules."""
_LATE_NS = 60 * SECOND_NS
"""A time that passed this long ago was missed."""


def set_schedule(desk: Desk, command: SetSchedule) -> None:
    """A schedule is there, new or with another content; its times count from now."""
    schedule = command.schedule
    known = desk.state.schedules.get(schedule.name)
    if known is None and len(desk.state.schedules) >= SCHEDULES_MAX:
        reason = f"this cell keeps {SCHEDULES_MAX:,} schedules; remove some first"
        desk.refusals.append(Refusal("", "exhausted", "name", reason))
        return
    if known is not None and known.schedule.tenant != schedule.tenant:
        desk.refusals.append(
            Refusal("", "conflict", "name", f"{schedule.name} belongs to another tenant; take another")
        )
        return
    desk.emit(ScheduleSet(schedule, command.principal))
    plan(desk, desk.state.schedules[schedule.name])


def remove_schedule(desk: Desk, command: RemoveSchedule) -> None:
    """It makes no more tasks."""
    if _known(desk, command.tenant, command.name) is not None:
        desk.emit(ScheduleRemoved(command.name, command.principal))
        desk.timers.disarm(SCHEDULE_KEY + command.name)


def run_schedule(desk: Desk, command: RunSchedule) -> None:
    """Its task, now and beside its times; the overlap policy holds."""
    planned = _known(desk, command.tenant, command.name)
    if planned is not None:
        why = _fire(desk, planned, 0, command.task)
        if why:
            desk.refusals.append(Refusal(command.task, "conflict", "schedule", why))


def _known(desk: Desk, tenant: str, name: str) -> Planned | None:
    planned = desk.state.schedules.get(name)
    if planned is None or (tenant and planned.schedule.tenant != tenant):
        desk.refusals.append(Refusal("", "not_found", "name", f"there is no schedule {name}"))
        return None
    return planned


def plan(desk: Desk, planned: Planned) -> None:
    """See to it that its next time is known and waited for."""
    key = SCHEDULE_KEY + planned.schedule.name
    if planned.schedule.paused:
        desk.timers.disarm(key)
    elif planned.times_ns:
        desk.timers.arm(key, planned.times_ns[0])
    else:
        desk.timers.disarm(key)
        desk.effects.append(WorkOutTimes(planned.schedule, planned.since_ns))


def plan_schedule(desk: Desk, command: PlanSchedule) -> None:
    """The shell has worked out the next times."""
    planned = desk.state.schedules.get(command.name)
    if planned is None or planned.times_ns or planned.since_ns != command.after_ns or not command.times_ns:
        return
    if (planned.schedule.cron, planned.schedule.zone) == (command.cron, command.zone):
        desk.emit(SchedulePlanned(command.name, command.times_ns))
        plan(desk, planned)


def schedule_due(desk: Desk, name: str) -> None:
    """One or several of its times have come; those that nobody was there for are dealt with as it says."""
    planned = desk.state.schedules.get(name)
    if planned is None or planned.schedule.paused:
        return
    due = [time_ns for time_ns in planned.times_ns if time_ns <= desk.now_ns]
    missed = [time_ns for time_ns in due if time_ns < desk.now_ns - _LATE_NS]
    if missed and planned.times_ns[-1] <= desk.now_ns:
        # More may have been missed than were planned: only when all are known can it be said what becomes of them.
        desk.emit(SchedulePlanned(name, ()))
        plan(desk, planned)
        return
    policy = planned.schedule.missed
    for time_ns in due:
        why = ""
        if time_ns in missed and policy is Missed.SKIP:
            why = "nobody was there at that time"
        elif time_ns in missed and policy is Missed.ONE and time_ns != due[-1]:
            why = "nobody was there at that time, and a later one stands for it"
        if why:
            desk.emit(ScheduleFired(name, time_ns, "", why))
        else:
            _fire(desk, planned, time_ns, _task_id(planned.schedule, time_ns))
    plan(desk, planned)


def _task_id(schedule: Schedule, time_ns: int) -> str:
    """The same for the same time of the same schedule, whoever asks: it cannot be made twice."""
    return make_id(time_ns, sha256(f"{schedule.name}\0{time_ns}".encode()).digest()[:10])


def _fire(desk: Desk, planned: Planned, at_ns: int, task_id: str) -> str:
    """Make the task; why not, if not."""
    schedule = planned.schedule
    before = desk.state.tasks.get(planned.last)
    if before is not None and not before.state.final:
        if schedule.overlap is Overlap.SKIP:
            why = f"the task before it, {before.id}, is not final"
            desk.emit(ScheduleFired(schedule.name, at_ns, "", why))
            return why
        if schedule.overlap is Overlap.CANCEL:
            cancel(desk, before, f"schedule {schedule.name}", "the next one of its schedule is due")
    # A key that all of them had would make them all the same task.
    terms = msgspec.structs.replace(schedule.template.terms or Terms(), schedule=schedule.name, idempotency_key="")
    spec = msgspec.structs.replace(schedule.template, id=task_id, terms=terms)
    refusal = refusal_of(desk, spec, schedule.tenant)
    if refusal is not None:
        desk.emit(ScheduleFired(schedule.name, at_ns, "", f"{refusal.field}: {refusal.reason}"))
        return refusal.reason
    arm(desk, admit(desk, spec, schedule.tenant, f"schedule {schedule.name}"))
    desk.emit(ScheduleFired(schedule.name, at_ns, task_id))
    return ""
