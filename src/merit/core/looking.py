"""Which results are looked at closely, and by whom."""

from __future__ import annotations

from collections.abc import Collection

from merit.allocation.feasibility import NOTHING, reasons_against
from merit.auditing.sampling import audit_permille, is_looked_at
from merit.core.desk import Desk
from merit.core.state import State
from merit.model.auditing import AuditPolicy
from merit.model.limits import CASES_MAX
from merit.model.tasks import Task
from merit.model.tenancy import PROBE_TENANT
from merit.model.track_record import TrackRecord
from merit.model.workers import Worker


def is_to_be_audited(desk: Desk, worker: Worker, task: Task) -> bool:
    """Whether a result of the worker at this task is looked at before it counts; never more at a time than the cell can keep."""
    policy = desk.state.audits.get(task.capability)
    if policy is None or not asks_others(policy) or len(desk.state.cases) >= CASES_MAX:
        return False
    terms = task.terms
    if task.tenant == PROBE_TENANT or (terms is not None and terms.review is not None):
        return False
    if not policy.judge and not _can_be_copied(worker, task):
        return False
    profile = desk.state.profiles.get(worker.id)
    record = profile.records.get(task.capability) if profile is not None else None
    record = record or TrackRecord()
    permille = audit_permille(
        record.rating,
        record.passed + record.wrong,
        record.in_row,
        newcomer_tasks=policy.newcomer_tasks,
        floor_permille=policy.floor_permille,
    )
    return is_looked_at(task.id, desk.state.salt, permille) and could_be_asked(desk, policy.judge, task, (worker.id,))


def asks_others(policy: AuditPolicy) -> bool:
    """Whether it takes somebody else's work to look at a result."""
    return policy.copies > 1 or bool(policy.judge)


def _can_be_copied(worker: Worker, task: Task) -> bool:
    """Whether somebody else may do the same once more: not what is not safe to repeat, or bound to this worker."""
    offer, terms = worker.offer(task.capability), task.terms
    if offer is not None and not (offer.safe_to_repeat and not offer.stateful):
        return False
    return terms is None or (terms.safe_to_repeat and (terms.demand is None or not terms.demand.worker))


def could_be_asked(desk: Desk, judge: str, task: Task, barred: Collection[str]) -> bool:
    """Whether there is anybody here, and not among the barred, to judge a result, or without a judge to copy it. Who is
    disconnected counts until he is given up: after a restart nobody would look at the results of who comes back first."""
    line = desk.lines.route(task)
    able = desk.lines.offering(judge) if judge else line.roster
    if any(name not in barred for name in able):
        return True
    asked = (judge, NOTHING, task.tenant) if judge else (task.capability, line.demand, line.tenant)
    return any(
        not any(reasons_against(worker, *asked, probing=False))
        for worker in desk.state.workers.values()
        if worker.id not in barred and not desk.seats[worker.id].attached
    )


def barred_from(state: State, task: Task) -> Collection[str]:
    """Those who may not do a task by which a result is looked at: who has had anything to do with it."""
    review = task.terms.review if task.terms is not None else None
    case = state.cases.get(review.of) if review is not None and review.of else None
    if case is None:
        return ()
    barred = {case.worker, *(answer.worker for answer in case.answers)}
    for other in case.reviews:
        if other != task.id and (known := state.tasks.get(other)) is not None:
            barred.update(attempt.worker for attempt in known.attempts)
    return barred
