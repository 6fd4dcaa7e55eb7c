"""Binding tasks to workers."""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace

from merit.core.desk import Desk
from merit.model.commands import Allocate
from merit.model.effects import SendAssignment
from merit.model.events import (
    AttemptAssigned,
)
from merit.model.frames import Assignment
from merit.model.limits import HELD_MAX
from merit.model.tasks import Task
from merit.model.workers import WorkerState


def allocate(desk: Desk, command: Allocate) -> None:
    """Bind what waits to who has room: over all capabilities the most urgent task first."""
    queues, choose = desk.state.queues, desk.strategy.choose
    heap: list[tuple[int, int, str]] = []
    for capability in desk.ready:
        queue = queues.get(capability)
        task = queue.head() if queue is not None else None
        if task is not None:
            heap.append((-task.priority, task.order, capability))
    desk.ready.clear()
    heapify(heap)
    left = command.count_max
    while heap:
        if not left:
            desk.ready.update((capability, None) for _, _, capability in heap)
            return
        capability = heap[0][2]
        worker_id = choose(capability)
        if worker_id is None:
            heappop(heap)
            continue
        left -= 1
        queue = queues[capability]
        task = queue.head()
        assert task is not None
        desk.cursor = task.id
        _assign(desk, task, worker_id)
        task = queue.head() if queue.size else None
        if task is None:
            heappop(heap)
        else:
            heapreplace(heap, (-task.priority, task.order, capability))


def _assign(desk: Desk, task: Task, worker_id: str) -> None:
    number = len(task.attempts) + 1
    due_ns = desk.now_ns + task.run_timeout_ns
    desk.emit(AttemptAssigned(task.id, number, worker_id, due_ns))
    grace_ns = desk.state.grace_until_ns
    desk.timers.arm(task.id, max(grace_ns, due_ns))
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
            Assignment(task.id, number, task.capability, task.parameters, task.parameters_blob, task.run_timeout_ns),
        )
    )
