"""A task that needs much of a worker must not wait for ever while small ones take what is freed bit by bit: after a while
one worker is kept free for it, until it has what the task needs."""

from __future__ import annotations

from merit.allocation.feasibility import capacity_of
from merit.core.desk import Desk
from merit.core.line import Line, in_use_by
from merit.core.retrying import failed_by
from merit.model.events import WorkerReleased, WorkerReserved
from merit.model.tasks import Task
from merit.model.workers import PERMILLE, Worker


def keep_free(desk: Desk, line: Line, task: Task) -> None:
    """The first of a line was just found to have nobody: if it has waited long for resources that are in use, keep a
    worker free for it. This looks at all workers of the line, once for a task."""
    state = desk.state
    if task.id in state.reserved or desk.now_ns < task.since_ns + desk.limits.patience_ns:
        return
    failed = failed_by(task)
    if line.roster.keys() <= failed:
        failed = set()
    # One that has failed it would not be given it as long as there is another one.
    able = [state.workers[name] for name, fit in line.roster.items() if fit.counted and name not in failed]
    able = [worker for worker in able if not worker.reserved and worker.attempts]
    if not able:
        return
    worker = min(able, key=lambda worker: (_shortfall_permille(desk, line, worker), worker.turn, worker.id))
    desk.emit(WorkerReserved(worker.id, task.id))
    desk.lines.refresh(worker)


def _shortfall_permille(desk: Desk, line: Line, worker: Worker) -> int:
    """How far it is from what the line needs, as the sum of shares of what it has."""
    capacity, in_use = capacity_of(worker), in_use_by(desk.state, worker)
    total = 0
    for need in line.roster[worker.id].needs:
        has_in_all = capacity.get(need.name)
        if has_in_all:
            total += max(0, need.thousandths + in_use[need.name] - has_in_all) * PERMILLE // has_in_all
    return total


def moved(desk: Desk, task: Task, line: Line) -> None:
    """The task was put into this line, perhaps another one than that in which a worker was kept free for it: that is of
    use no longer if the worker may not do it any more."""
    if desk.state.reserved and (kept := desk.state.reserved.get(task.id)):
        worker = desk.state.workers[kept]
        if line.fit(worker) is None:
            let_go(desk, kept)
        else:
            desk.lines.refresh(worker)


def let_go(desk: Desk, worker_id: str) -> None:
    """The worker is given anything again: the task has got one, is over, or the worker takes nothing anyway."""
    worker = desk.state.workers.get(worker_id)
    if worker is not None and worker.reserved:
        desk.emit(WorkerReleased(worker_id))
        # At once: what is decided next goes by what stands in the journal.
        desk.lines.refresh(worker)
        desk.lines.mark_stands(worker_id)
