"""Binding tasks to workers."""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from itertools import islice

from merit.allocation.strategy import CRITICAL
from merit.core.backlog import LineQueue, Pick
from merit.core.desk import Desk
from merit.core.line import Line, wish_of
from merit.core.looking import barred_from
from merit.core.queueing import COST_NS_DEFAULT, cost_ns
from merit.core.ranking import Rank
from merit.core.ranking import rank as rank_of
from merit.core.reserving import keep_free, let_go, moved
from merit.core.retrying import failed_by
from merit.core.timing import heartbeat_ns
from merit.model.commands import Allocate
from merit.model.effects import SendAssignment
from merit.model.events import (
    AttemptAssigned,
    RoomSeen,
)
from merit.model.frames import Assignment
from merit.model.limits import AVOIDED_MAX, HELD_MAX
from merit.model.supervision import FACTOR_ONE, Conduct, Policy, Stage
from merit.model.tasks import Priority, Task
from merit.model.workers import Worker
from merit.supervision import breaker

_CRITICAL_PRIORITY = Priority.CRITICAL
_PASSED_OVER_MAX = 64
"""Tasks that look at results, and whom nobody who has room may do, until those behind them wait too."""


def allocate(desk: Desk, command: Allocate) -> None:
    """Bind what waits to who has room: over all lines first for the tenant that has had least, and then the most urgent
    task."""
    desk.lines.tidy()
    left = command.count_max
    while left and desk.ready:
        # Once, nearly always: again when a worker that was kept free for a task is let go.
        left = _round(desk, left)


def _round(desk: Desk, left: int) -> int:
    """Look at each line that is ready; ``left`` tasks may be bound, then as many as this returns."""
    heap = _candidates(desk)
    if not heap:
        return left
    see_rooms(desk)
    listed = {name for _, _, name in heap}
    backlog, now_ns, by_name = desk.backlog, desk.now_ns, desk.lines.by_name
    passed_over: list[tuple[Task, Line]] = []
    while heap:
        if not left:
            desk.ready.update((name, None) for _, _, name in heap)
            break
        if len(heap) == 1:
            left -= _give_out(desk, backlog.queues[heap[0][2]], by_name[heap[0][2]], left)
        charged, _, name = heap[0]
        queue, line = backlog.queues.get(name), by_name[name]
        if queue is None:
            listed.discard(heappop(heap)[2])
            continue
        if not left:
            continue
        # Picked anew each time: what was given out since may have closed a limit that it stands before.
        pick = queue.pick(now_ns)
        if pick is not None and len(heap) > 1 and pick.flow.account.charged != charged:
            # Its tenant was given something of another line since: others may come before it now.
            heapreplace(heap, _entry(desk, pick, name))
            continue
        passed = len(passed_over)
        to = _advance(desk, queue, line, pick, passed_over)
        if to is None:
            listed.discard(heappop(heap)[2])
            continue
        left -= len(passed_over) == passed
        pick = queue.pick(now_ns)
        if pick is None:
            listed.discard(heappop(heap)[2])
        elif len(heap) > 1:
            heapreplace(heap, _entry(desk, pick, name))
        if to and to not in listed and (first := backlog.queues[to].pick(now_ns)) is not None:
            listed.add(to)
            heappush(heap, _entry(desk, first, to))
    for task, line in passed_over:
        backlog.push(task, line.name)
        moved(desk, task, line)
    return left


_Entry = tuple[int, Rank, str]
"""What the tenant of a line's next task was charged, the rank of that task, the line."""


def _candidates(desk: Desk) -> list[_Entry]:
    """A heap of the lines that may have something for somebody."""
    heap: list[_Entry] = []
    for name in desk.ready:
        queue = desk.backlog.queues.get(name)
        if queue is not None and queue.size and queue.capability not in desk.state.paused:
            pick = queue.pick(desk.now_ns)
            if pick is not None:
                heap.append(_entry(desk, pick, name))
    desk.ready.clear()
    heapify(heap)
    return heap


def _entry(desk: Desk, pick: Pick, name: str) -> _Entry:
    return (pick.flow.account.charged, rank_of(pick.task, desk.backlog.ageing_ns), name)


def see_rooms(desk: Desk) -> None:
    """Write down who has room, as far as that has changed: the decisions that follow go by it, and by nothing that does
    not stand in the journal."""
    if not desk.touched:
        return
    state, rooms = desk.state, []
    touched = [worker for name in sorted(desk.touched) if (worker := state.workers.get(name)) is not None]
    desk.touched.clear()
    for worker in touched:
        room = room_of(desk, worker)
        if room != worker.room:
            rooms.append((worker.id, room))
    if rooms:
        desk.emit(RoomSeen(tuple(rooms)))
    for worker in touched:
        desk.lines.refresh(worker)


def room_of(desk: Desk, worker: Worker) -> int:
    """How many more attempts the worker takes now."""
    seat = desk.seats.get(worker.id)
    if seat is None or not seat.attached:
        return 0
    live = len(worker.attempts)
    room = min(seat.granted - seat.used, HELD_MAX - live)
    profile = desk.state.profiles.get(worker.id)
    if profile is not None and room > 0:
        conduct = profile.conduct
        if conduct.factor < FACTOR_ONE or not conduct.at_liberty:
            room = allowed(conduct, desk.state.policy, room, live)
    return max(0, room)


def allowed(conduct: Conduct, policy: Policy, room: int, live: int) -> int:
    """How many more attempts it gets, of those that it has room for: its factor's share of all that it would hold, one at
    least; while it is being tried, no more than it has to prove itself with, one by one."""
    if conduct.stage is Stage.PROBATION:
        room = min(room, 1 - live, policy.canaries - conduct.right)
    room = min(room, max(1, (room + live) * conduct.factor // FACTOR_ONE) - live)
    return breaker.room(conduct.circuit, room, live, policy)


def _advance(
    desk: Desk, queue: LineQueue, line: Line, pick: Pick | None, passed_over: list[tuple[Task, Line]]
) -> str | None:
    """Do what can be done with the first of a line: the line to which a task was moved, empty if none was, None if there
    is nothing to be done."""
    if pick is not None and desk.lines.belongs(pick.task, line):
        if _serve(desk, queue, line, pick, passed_over):
            return ""
        pick = desk.lines.astray(queue, line, desk.now_ns)
    return _move(desk, queue, pick) if pick is not None else None


def _serve(desk: Desk, queue: LineQueue, line: Line, pick: Pick, passed_over: list[tuple[Task, Line]]) -> bool:
    """Give the task to somebody, or look past it; whether anything of the kind could be done."""
    worker_id = _choose(desk, line, pick.task, patient=len(passed_over) < AVOIDED_MAX)
    if worker_id is not None:
        _give(desk, queue, line, pick, worker_id)
    elif len(passed_over) < _PASSED_OVER_MAX and _passes(desk, line, pick.task):
        desk.backlog.take(queue, pick)
        passed_over.append((pick.task, line))
    else:
        if any(fit.needs for fit in islice(line.roster.values(), 1)):
            keep_free(desk, line, pick.task)
        return False
    return True


def _move(desk: Desk, queue: LineQueue, pick: Pick) -> str:
    """What decides the task's line has changed since it was put there: to its new one, whose name this is."""
    desk.backlog.take(queue, pick)
    line = desk.lines.route(pick.task)
    desk.backlog.push(pick.task, line.name)
    moved(desk, pick.task, line)
    return line.name


def _give(desk: Desk, queue: LineQueue, line: Line, pick: Pick, worker_id: str) -> None:
    task, now_ns = pick.task, desk.now_ns
    desk.cursor = task.id
    if desk.state.reserved and (kept := desk.state.reserved.get(task.id)):
        let_go(desk, kept)
    desk.backlog.take(queue, pick)
    queue.pool.charge(pick.flow.account, cost_ns(desk, task))
    for gate in desk.gates.over(task, now_ns) if desk.gates.any else ():
        gate.take((task.id,), now_ns)
    _assign(desk, line, task, worker_id)


def _give_out(desk: Desk, queue: LineQueue, line: Line, count_max: int) -> int:
    """The quick way where there is nothing to choose between: new tasks of one flow, to whoever has room; how many.
    Whatever is not as usual is left for the long way."""
    flow = queue.only_flow()
    if flow is None or line.reviews or not desk.lines.uniform(line):
        return 0
    capability, gates, now_ns = queue.capability, desk.gates, desk.now_ns
    before = [gate for gate in (gates.capabilities.get(capability), gates.tenants.get(flow.tenant)) if gate is not None]
    for gate in before:
        count_max = min(count_max, gate.room(now_ns))
    keys = gates.keys.get(capability)
    strategy = line.strategy
    choose, wishes = strategy.choose, strategy.reads_wish
    usual_ns = desk.usual_ns.get(capability, COST_NS_DEFAULT)
    cost = 0
    given: list[str] = []
    lane, plain, reserved = flow.lane, flow.plain, desk.state.reserved
    while len(given) < count_max:
        task = lane.head() if plain else flow.head(now_ns)
        if task is None or task.attempts or (reserved and task.id in reserved):
            break
        if wishes:
            worker_id = choose(wish_of(strategy, task, now_ns))
        else:  # as `wish_of` has it
            worker_id = choose(CRITICAL) if task.priority is _CRITICAL_PRIORITY else choose()
        if worker_id is None:
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
        _assign(desk, line, task, worker_id)
    if given:
        for gate in before:
            gate.take(given, now_ns)
        desk.backlog.left(queue, flow, given)
        queue.pool.charge(flow.account, cost, len(given))
    return len(given)


def _choose(desk: Desk, line: Line, task: Task, *, patient: bool) -> str | None:
    """Who gets it: somebody else than those who have failed it, if there is anybody else at all, and as long as one is
    patient: otherwise those whom only such tasks have to avoid would stand idle while others wait behind these."""
    wish = wish_of(line.strategy, task, desk.now_ns)
    barred = set(barred_from(desk.state, task)) if line.reviews else set[str]()
    failed = failed_by(task) | barred if task.attempts else barred
    if not failed:
        return line.strategy.choose(wish)
    worker_id = line.strategy.choose(wish, failed)
    if worker_id is None and task.attempts and (not patient or line.roster.keys() <= failed):
        return line.strategy.choose(wish, barred)
    return worker_id


def _passes(desk: Desk, line: Line, task: Task) -> bool:
    """Whether to look past a task for which nobody has room: when somebody has whom only this task has to avoid."""
    return (
        bool(task.attempts or line.reviews)
        and line.strategy.choose(wish_of(line.strategy, task, desk.now_ns)) is not None
    )


def _assign(desk: Desk, line: Line, task: Task, worker_id: str) -> None:
    """Bind a task that has been taken from the backlog and has passed its limits."""
    number = len(task.attempts) + 1
    due_ns = desk.now_ns + task.run_timeout_ns
    if task.deadline_ns:
        due_ns = min(due_ns, task.deadline_ns)
    desk.emit(AttemptAssigned(task.id, number, worker_id, due_ns))
    desk.timers.arm(task.id, max(desk.state.grace_until_ns, due_ns))
    send(desk, worker_id, task, number)
    desk.lines.assigned(desk.state.workers[worker_id], task, line)


def rate(desk: Desk, worker_id: str) -> None:
    """The worker's room, or what it is at, may have changed."""
    worker = desk.state.workers.get(worker_id)
    if worker is not None:
        desk.touched[worker_id] = None
        if room_of(desk, worker):
            desk.lines.mark_stands(worker_id)


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
