"""Which results are looked at closely, and by whom."""

from __future__ import annotations

from collections.abc import Collection

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
    return is_looked_at(task.id, desk.state.salt, permille) and could_be_asked(desk, policy, task, (worker.id,))


def asks_others(policy: AuditPolicy) -> bool:
    """Whether it takes somebody else's work to look at a result."""
    return policy.copies > 1 or bool(policy.judge)


def _can_be_copied(worker: Worker, task: Task) -> bool:
    """Whether somebody else may do the same once more: not what is not safe to repeat, or bound to this worker."""
    offer, terms = worker.offer(task.capability), task.terms
    if offer is not None and not (offer.safe_to_repeat and not offer.stateful):
        return False
    return terms is None or (terms.safe_to_repeat and (terms.demand is None or not terms.demand.worker))


def could_be_asked(desk: Desk, policy: AuditPolicy, task: Task, barred: Collection[str]) -> bool:
    """Whether there is anybody who is attached, and not among the barred, to ask about a result."""
    able = desk.lines.offering(policy.judge) if policy.judge else desk.lines.route(task).roster
    return any(name not in barred for name in able)


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
