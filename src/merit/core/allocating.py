"""Binding tasks to workers."""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace

from merit.core.backlog import CapabilityQueue, Pick
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
    backlog, now_ns = desk.backlog, desk.now_ns
    heap = _candidates(desk)
    passed_over: list[Task] = []
    left = command.count_max
    while heap:
        if not left:
            desk.ready.update((capability, None) for _, _, capability in heap)
            break
        if len(heap) == 1:
            left -= _give_out(desk, backlog.queues[heap[0][2]], left)
        charged, _, capability = heap[0]
        queue = backlog.queues.get(capability)
        if queue is None:
            break
        if not left:
            continue
        # Picked anew each time: what was given out since may have closed a limit that it stands before.
        pick = queue.pick(now_ns)
        if pick is not None and len(heap) > 1 and pick.flow.account.charged != charged:
            # Its tenant was given something of another capability since: others may come before it now.
            heapreplace(heap, _entry(desk, pick))
            continue
        if pick is not None:
            patient = len(passed_over) < AVOIDED_MAX
            worker_id = _choose(desk, pick.task, patient=patient)
            if worker_id is None and not _passes(desk, pick.task):
                pick = None
            elif worker_id is None:
                backlog.take(queue, pick)
                passed_over.append(pick.task)
                pick = queue.pick(now_ns)
            else:
                left -= 1
                desk.cursor = pick.task.id
                backlog.take(queue, pick)
                queue.pool.charge(pick.flow.account, cost_ns(desk, pick.task))
                for gate in desk.gates.over(pick.task, now_ns) if desk.gates.any else ():
                    gate.take((pick.task.id,), now_ns)
                _assign(desk, pick.task, worker_id)
                pick = queue.pick(now_ns)
        if pick is None:
            heappop(heap)
        elif len(heap) > 1:
            heapreplace(heap, _entry(desk, pick))
    for task in passed_over:
        backlog.push(task)


_Entry = tuple[int, Rank, str]
"""What the tenant of a queue's next task was charged, the rank of that task, the capability."""


def _candidates(desk: Desk) -> list[_Entry]:
    """A heap of the queues that may have something for somebody."""
    heap: list[_Entry] = []
    for capability in desk.ready:
        queue = desk.backlog.queues.get(capability)
        if queue is not None and queue.size and capability not in desk.state.paused:
            pick = queue.pick(desk.now_ns)
            if pick is not None:
                heap.append(_entry(desk, pick))
    desk.ready.clear()
    heapify(heap)
    return heap


def _entry(desk: Desk, pick: Pick) -> _Entry:
    task = pick.task
    return (pick.flow.account.charged, rank_of(task, desk.backlog.ageing_ns), task.capability)


def _give_out(desk: Desk, queue: CapabilityQueue, count_max: int) -> int:
    """The quick way where there is nothing to choose between: new tasks of one flow, to whoever has room; how many.
    Whatever is not as usual is left for the long way."""
    flow = queue.only_flow()
    if flow is None:
        return 0
    capability, gates, now_ns = queue.capability, desk.gates, desk.now_ns
    before = [gate for gate in (gates.capabilities.get(capability), gates.tenants.get(flow.tenant)) if gate is not None]
    for gate in before:
        count_max = min(count_max, gate.room(now_ns))
    keys = gates.keys.get(capability)
    choose = desk.strategy.choose
    usual_ns = desk.usual_ns.get(capability, COST_NS_DEFAULT)
    cost = 0
    given: list[str] = []
    lane, plain = flow.lane, flow.plain
    while len(given) < count_max:
        task = lane.head() if plain else flow.head(now_ns)
        worker_id = choose(capability) if task is not None and not task.attempts else None
        if task is None or worker_id is None:
            break
        terms = task.terms
        if keys is not None and terms is not None and terms.key:
            gate = keys.gates.get(terms.key) or keys.of(terms.key, now_ns)
            if not gate.enter(task.id, now_ns):
                flow.hold(task, terms.key, gate)
                plain = False
                continue
        desk.cursor = task.id
        given.append(task.id)
        flow.take(task)
        cost += usual_ns if terms is None or not terms.estimate_ns else terms.estimate_ns
        _assign(desk, task, worker_id)
    if given:
        for gate in before:
            gate.take(given, now_ns)
        desk.backlog.left(queue, flow, len(given))
        queue.pool.charge(flow.account, cost, len(given))
    return len(given)


def _choose(desk: Desk, task: Task, *, patient: bool) -> str | None:
    return desk.strategy.choose(task.capability) if not task.attempts else _choose_again(desk, task, patient=patient)


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


def _passes(desk: Desk, task: Task) -> bool:
    """Whether to look past a task for which nobody has room: when somebody has whom only this task has to avoid."""
    return bool(task.attempts) and desk.strategy.choose(task.capability) is not None


def _assign(desk: Desk, task: Task, worker_id: str) -> None:
    """Bind a task that has been taken from the backlog and has passed its limits."""
    number = len(task.attempts) + 1
    due_ns = desk.now_ns + task.run_timeout_ns
    if task.deadline_ns:
        due_ns = min(due_ns, task.deadline_ns)
    desk.emit(AttemptAssigned(task.id, number, worker_id, due_ns))
    desk.timers.arm(task.id, max(desk.state.grace_until_ns, due_ns))
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
