"""Binding tasks to workers."""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace

from merit.core.backlog import CapabilityQueue, Flow
from merit.core.desk import Desk
from merit.core.queueing import COST_NS_DEFAULT, cost_ns
from merit.core.ranking import Rank
from merit.core.ranking import rank as rank_of
from merit.core.retrying import failed_by
from merit.core.timing import heartbeat_ns
from merit.model.commands import Allocate
from merit.model.effects import SendAssignment
from merit.model.events import (
    AttemptAssigned,
)
from merit.model.frames import Assignment
from merit.model.limits import AVOIDED_MAX, HELD_MAX
from merit.model.tasks import Task
from merit.model.workers import WorkerState


def allocate(desk: Desk, command: Allocate) -> None:
    """Bind what waits to who has room: over all capabilities first for the tenant that has had least, and then the most
    urgent task."""
    state, backlog, now_ns = desk.state, desk.backlog, desk.now_ns
    heap: list[tuple[int, Rank, str]] = []
    for capability in desk.ready:
        queue = backlog.queues.get(capability)
        if queue is not None and capability not in state.paused and (pick := queue.pick(now_ns)) is not None:
            heap.append((pick.flow.account.charged, rank_of(pick.task, backlog.ageing_ns), capability))
    desk.ready.clear()
    heapify(heap)
    passed_over: list[Task] = []
    left = command.count_max
    while heap:
        if not left:
            desk.ready.update((capability, None) for _, _, capability in heap)
            break
        capability = heap[0][2]
        queue = backlog.queues.get(capability)
        if len(heap) == 1 and queue is not None and (flow := queue.only_flow()) is not None:
            left -= _give_out(desk, queue, flow, left)
            if not left:
                continue
            queue = backlog.queues.get(capability)
        # Picked anew each time: what was given out since may have closed a limit that it stands before.
        pick = queue.pick(now_ns) if queue is not None else None
        if queue is None or pick is None:
            heappop(heap)
            continue
        task = pick.task
        if len(heap) > 1 and pick.flow.account.charged != heap[0][0]:
            # Its tenant was given something of another capability since: others may come before it now.
            heapreplace(heap, (pick.flow.account.charged, rank_of(task, backlog.ageing_ns), capability))
            continue
        patient = len(passed_over) < AVOIDED_MAX
        choose = desk.strategy.choose
        worker_id = choose(capability) if not task.attempts else _choose_again(desk, task, patient=patient)
        if worker_id is None:
            if not _pass_over(desk, pick.task, passed_over):
                heappop(heap)
                continue
            backlog.take(queue, pick)
        else:
            left -= 1
            desk.cursor = task.id
            backlog.take(queue, pick)
            backlog.charge(pick.flow.account, cost_ns(desk, task))
            _assign(desk, task, worker_id)
        if len(heap) > 1 and (queue.size == 0 or (pick := queue.pick(now_ns)) is None):
            heappop(heap)
        elif len(heap) > 1:
            heapreplace(heap, (pick.flow.account.charged, rank_of(pick.task, backlog.ageing_ns), capability))
    for task in passed_over:
        backlog.push(task)


def _give_out(desk: Desk, queue: CapabilityQueue, flow: Flow, count_max: int) -> int:
    """The quick way where there is nothing to choose between: new tasks of one flow, to whoever has room; how many.
    Whatever is not as usual is left for the long way."""
    lane = flow.lanes.get("")
    choose, capability = desk.strategy.choose, queue.capability
    usual_ns = desk.usual_ns.get(capability, COST_NS_DEFAULT)
    count = charge = 0
    while lane is not None and count < count_max:
        task = lane.head()
        worker_id = choose(capability) if task is not None and not task.attempts else None
        if task is None or worker_id is None:
            break
        count += 1
        charge += usual_ns if task.terms is None else cost_ns(desk, task)
        desk.cursor = task.id
        lane.take(task)
        _assign(desk, task, worker_id)
    if count:
        desk.backlog.take_run(queue, flow, count, charge)
    return count


def _choose_again(desk: Desk, task: Task, *, patient: bool) -> str | None:
    """Somebody else than those who have failed the task, if there is anybody else at all, and as long as one is patient:
    otherwise those whom only such tasks have to avoid would stand idle while others wait behind these."""
    failed = failed_by(task)
    if not failed:
        return desk.strategy.choose(task.capability)
    worker_id = desk.strategy.choose(task.capability, failed)
    if worker_id is None and (not patient or desk.staff.get(task.capability, {}).keys() <= failed):
        return desk.strategy.choose(task.capability)
    return worker_id


def _pass_over(desk: Desk, task: Task, passed_over: list[Task]) -> bool:
    """Whether to look past a task for which nobody has room: when somebody has whom only this task has to avoid."""
    if not task.attempts or desk.strategy.choose(task.capability) is None:
        return False
    passed_over.append(task)
    return True


def _assign(desk: Desk, task: Task, worker_id: str) -> None:
    number = len(task.attempts) + 1
    due_ns = desk.now_ns + task.run_timeout_ns
    if task.deadline_ns:
        due_ns = min(due_ns, task.deadline_ns)
    desk.emit(AttemptAssigned(task.id, number, worker_id, due_ns))
    desk.timers.arm(task.id, max(desk.state.grace_until_ns, due_ns))
    if desk.gates.any:
        for gate in desk.gates.over(task, desk.now_ns):
            gate.take(task.id, desk.now_ns)
    send(desk, worker_id, task, number)
    worker, seat = desk.state.workers[worker_id], desk.seats[worker_id]
    if seat.used < seat.granted and len(worker.attempts) < HELD_MAX:
        desk.strategy.place(worker_id, seat.capabilities, len(worker.attempts), worker.concurrency)
    else:
        desk.strategy.remove(worker_id)


def rate(desk: Desk, worker_id: str) -> None:
    """Tell the strategy what has become of the worker's room."""
    worker = desk.state.workers.get(worker_id)
    seat = desk.seats.get(worker_id)
    if worker is None or seat is None:
        return
    held = len(worker.attempts)
    if seat.attached and seat.used < seat.granted and held < HELD_MAX and worker.state is WorkerState.ACTIVE:
        desk.strategy.place(worker_id, seat.capabilities, len(worker.attempts), worker.concurrency)
        ready = desk.ready
        for capability in seat.capabilities:
            ready[capability] = None
    else:
        desk.strategy.remove(worker_id)


def send(desk: Desk, worker_id: str, task: Task, number: int) -> None:
    """Hand an attempt that stands in the state to its worker, on a credit."""
    desk.seats[worker_id].used += 1
    desk.effects.append(
        SendAssignment(
            worker_id,
            Assignment(
                task.id,
                number,
                task.capability,
                task.parameters,
                task.parameters_blob,
                task.run_timeout_ns,
                task.inputs,
                heartbeat_ns(desk, task, worker_id) if task.terms is not None or task.capability in desk.beating else 0,
            ),
        )
    )
