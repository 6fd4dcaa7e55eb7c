"""What holds between any two commands, whatever came before: for tests, the simulator and ``merit journal verify``.

It looks at everything, so that it costs as much as the state is large.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from merit.allocation.feasibility import capacity_of, lacking
from merit.core.allocating import room_of
from merit.core.desk import Desk
from merit.core.line import Line, in_use_by
from merit.core.looking import barred_from
from merit.core.noting import SUPERVISE_KEY
from merit.core.retrying import failed_by
from merit.core.schedules import SCHEDULE_KEY
from merit.core.staffing import WORKER_KEY
from merit.core.state import State
from merit.core.story import story_of_task
from merit.core.timing import due_next_ns
from merit.model.limits import HELD_MAX
from merit.model.rules import RuleKind
from merit.model.supervision import FACTOR_MAX, FACTOR_MIN, SCORE_MAX, CircuitState, Stage
from merit.model.tasks import Task, TaskState
from merit.model.tenancy import GOLD_TENANT
from merit.model.workers import Worker, WorkerState

TIMER_SLACK_NS = 1 << 24
"""A timer goes off up to this much late."""


class InvariantBroken(AssertionError):
    """Something that must hold does not: a defect. ``about`` is the id of what it is about, ``story`` its past."""

    def __init__(self, about: str, what: str, story: list[str]) -> None:
        self.about = about
        self.story = story
        super().__init__(f"{about}: {what}" + "".join(f"\n  {line}" for line in story))


def check(desk: Desk | None, state: State) -> None:
    """Check the state, and with a desk also what follows from it.

    Raises:
        InvariantBroken: names the object, what is wrong with it, and its story.
    """
    for task_id, task in state.tasks.items():
        _that(task.id == task_id, task, f"is kept under the id {task_id}")
        _check_task(state, task)
    for worker_id, worker in state.workers.items():
        _holds(worker.id == worker_id, f"worker {worker.id}", f"is kept under the id {worker_id}")
        _check_worker(state, worker)
    _check_dependents(state)
    _check_sums(state)
    _check_dead_letters(state)
    _check_fleet(state)
    if desk is not None:
        _check_backlog(desk)
        _check_gates(desk)
        _check_waiting(desk)
        _check_timers(desk)
        _check_seats(desk)
        _check_tested(desk)


def check_allocated(desk: Desk) -> None:
    """After an ``Allocate`` that was not cut short: nothing waits that somebody has room for.

    Raises:
        InvariantBroken: something does.
    """
    _holds(not desk.ready, "cell", f"lines {list(desk.ready)} are still to be allocated")
    # A rate may allow it by now, while the timer that says so is about to go off.
    soon = {
        unit.line for gate in desk.gates if desk.timers.due_ns(gate.key) is not None for unit in gate.parked.values()
    }
    for name, queue in desk.backlog.queues.items():
        waits = queue.capability in desk.state.paused or name in soon
        pick = None if waits else queue.pick(desk.now_ns)
        if pick is None:
            continue
        line = desk.lines.by_name[name]
        if not desk.lines.belongs(pick.task, line) and not (line.guided and line.demand.worker):
            # It goes to its own line when it would be given out: until then nobody there may be able to do it. (If another
            # worker has its key by now, it waits its turn.)
            line = desk.lines.route(pick.task)
        able = {worker.id for worker in desk.state.workers.values() if _may_take(desk, line, worker)}
        barred = set(barred_from(desk.state, pick.task))
        able -= barred
        if not line.roster.keys() <= failed_by(pick.task) | barred:
            able -= failed_by(pick.task)
        if able:
            _that(False, pick.task, f"waits for {queue.capability}, and worker {min(able)} has room")


def _may_take(desk: Desk, line: Line, worker: Worker) -> bool:
    """Whether the worker can be given one more task of the line now; worked out anew from the state."""
    seat = desk.seats[worker.id]
    fit = line.fit(worker) if seat.attached else None
    if fit is None or not room_of(desk, worker):
        return False
    if worker.reserved:
        queue = desk.backlog.queue_of(desk.state.tasks[worker.reserved])
        if queue is None or queue.line != line.name:
            return False
    return not any(lacking(fit.offer, fit.needs, capacity_of(worker), in_use_by(desk.state, worker)))


def _holds(true: bool, about: str, what: str, story: list[str] | None = None) -> None:
    if not true:
        raise InvariantBroken(about, what, story or [])


def _that(true: bool, task: Task, what: str) -> None:
    if not true:
        raise InvariantBroken(f"task {task.id} ({task.state.name})", what, story_of_task(task))


def _check_task(state: State, task: Task) -> None:
    live = [attempt for attempt in task.attempts if attempt.live]
    numbers = [attempt.number for attempt in task.attempts]
    _that(numbers == list(range(1, len(numbers) + 1)), task, f"attempts are numbered {numbers}")
    _that(task.counted <= task.attempts_max, task, f"{task.counted} attempts of at most {task.attempts_max}")
    _that(0 <= task.order < state.order, task, f"place {task.order} of {state.order}")
    for attempt in task.attempts:
        _that(attempt.live == (attempt.ended_ns == 0), task, f"attempt {attempt.number} ended at {attempt.ended_ns}")
        if attempt.live:
            worker = state.workers.get(attempt.worker)
            held = worker.attempts.get(task.id) if worker is not None else None
            _that(held == attempt.number, task, f"attempt {attempt.number} lives, but {attempt.worker} has {held}")
    running = task.state in (TaskState.ASSIGNED, TaskState.RUNNING)
    _that(bool(live) == running, task, f"has {len(live)} live attempts")
    _that(task.state.final == bool(task.ended_ns), task, f"ended at {task.ended_ns}")
    waits = task.state is TaskState.WAITING
    idle = waits or task.state is TaskState.PENDING or task.state.final
    audited = task.state is TaskState.AUDITING
    _that(idle or audited or not task.due_ns, task, f"is due at {task.due_ns}")
    _that(audited == (task.id in state.cases), task, "is looked at, or not, and the cases say otherwise")
    _that(waits or not task.blocked_by or task.state.final, task, f"is blocked by {task.blocked_by} tasks")
    if task.state is TaskState.DEAD:
        _that(task.failure is not None, task, "died of nothing")
    if task.state is TaskState.COMPLETED:
        _that(not task.blocked_by, task, "completed before what it needs")


def _check_worker(state: State, worker: Worker) -> None:
    about = f"worker {worker.id}"
    _holds(worker.state is not WorkerState.GONE, about, "is gone and still there")
    _holds(len(worker.attempts) <= HELD_MAX, about, f"has {len(worker.attempts):,} attempts")
    for task_id, number in worker.attempts.items():
        task = state.tasks.get(task_id)
        attempt = task.attempt(number) if task is not None else None
        good = attempt is not None and attempt.live and attempt.worker == worker.id
        _holds(good, about, f"has attempt {number} of task {task_id}", story_of_task(task) if task else [])


def _check_backlog(desk: Desk) -> None:
    queued: Counter[str] = Counter()
    backlog = desk.backlog
    for name, queue in backlog.queues.items():
        about, capability = f"queue {name}", queue.capability
        _holds(name in desk.lines.by_name and queue.line == name, about, "has no line")
        _holds(queue.size == sum(flow.size for flow in queue.flows.values()), about, "counts wrong")
        _holds(queue.size > 0 and queue.pool is backlog.shares.pool(capability), about, "is out of place")
        for tenant, flow in queue.flows.items():
            size = 0
            for lane in flow.lanes:
                tasks = list(lane.tasks())
                size += len(tasks)
                _holds(lane.size == len(tasks), about, f"counts {lane.size} and has {len(tasks)}")
                for task in tasks:
                    queued[task.id] += 1
                    _that(desk.state.tasks.get(task.id) is task, task, "is queued and unknown")
                    _that(backlog.queue_of(task) is queue, task, f"is in queue {name}, and not known to be")
                    _that((task.capability, task.tenant) == (capability, tenant), task, f"is queued for {capability}")
            _holds(flow.size == size, about, f"counts {flow.size} of {tenant} and has {size}")
            _holds(flow.account is queue.pool.account(tenant), about, f"charges {tenant} in the wrong place")
            stuck = flow.lane.size and not flow.listed and not flow.parked
            _holds(not stuck, about, f"has forgotten tenant {tenant}")
    for task in desk.state.tasks.values():
        pending = int(task.state is TaskState.PENDING)
        _that(queued[task.id] == pending, task, f"is queued {queued[task.id]} times")
    waiting = Counter((task.tenant, id(backlog.shares.pool(task.capability))) for task in _pending_tasks(desk.state))
    for pool in backlog.shares.pools():
        for account in pool.accounts():
            expected = waiting[account.tenant, id(pool)]
            _holds(account.pending == expected, f"tenant {account.tenant}", f"{account.pending} for {expected} pending")
    counts = Counter(task.capability for task in _pending_tasks(desk.state))
    for capability in {*counts, *desk.state.offers}:
        _holds(backlog.pending(capability) == counts[capability], f"capability {capability}", "counts wrong")
    _holds(backlog.size == sum(waiting.values()), "backlog", f"counts {backlog.size} for {sum(waiting.values())}")


def _pending_tasks(state: State) -> list[Task]:
    return [task for task in state.tasks.values() if task.state is TaskState.PENDING]


def _check_gates(desk: Desk) -> None:
    """Those who hold a place at a limit are those who have a live attempt, and nobody else."""
    state = desk.state
    live = [task for task in state.tasks.values() if any(attempt.live for attempt in task.attempts)]
    for gate in desk.gates:
        expected = {task.id for task in live if gate in desk.gates.over(task, desk.now_ns)}
        _holds(gate.holders == expected, f"limit {gate.key}", f"{sorted(gate.holders ^ expected)} are counted wrongly")
    rules: set[tuple[RuleKind, str]] = {
        (gate.rule.kind, gate.rule.name) for gate in desk.gates if gate.rule.kind is not RuleKind.KEY
    }
    rules |= {(RuleKind.KEY, name) for name in desk.gates.keys}
    _holds(rules == state.rules.keys(), "limits", f"are {sorted(rules)}, set were {sorted(state.rules)}")


def _check_dead_letters(state: State) -> None:
    for task_id, task in state.dead_letters.items():
        _that(task.state is TaskState.DEAD and state.tasks.get(task_id) is task, task, "is kept as a dead letter")
    _holds(len(state.dead_letters) <= max(state.dead_letters_max, 0), "dead letters", f"{len(state.dead_letters)}")
    size = sum(task.weight_bytes() for task in state.dead_letters.values())
    _holds(state.dead_letters_bytes == size, "dead letters", f"{state.dead_letters_bytes} bytes for {size}")
    live: Counter[str] = Counter()
    for task in state.tasks.values():
        if not task.state.final:
            live[task.tenant] += 1
    counted = {name: tenant.live for name, tenant in state.tenants.items() if tenant.live}
    _holds(counted == dict(live), "tenants", f"{counted} for {dict(live)}")


def _check_fleet(state: State) -> None:
    homes = {at: worker for worker, of_worker in state.homes_of.items() for at in of_worker}
    reserved = {worker.reserved: worker.id for worker in state.workers.values() if worker.reserved}
    _holds(reserved == state.reserved, "reserved", f"are {state.reserved}, workers say {reserved}")
    for task_id in reserved:
        task = state.tasks.get(task_id)
        pending = task is not None and task.state is TaskState.PENDING
        _holds(pending, f"task {task_id}", "has a worker kept free for it, and is not pending")
    _holds(homes == state.homes and all(state.homes_of.values()), "homes", "are not those of the workers")
    for worker in {*state.homes.values()} - state.workers.keys():
        _holds(False, f"worker {worker}", "is the home of keys, and not here")
    for name, profile in state.profiles.items():
        _holds(profile.worker == name, f"profile {name}", f"is that of {profile.worker}")
        conduct = profile.conduct
        bounded = FACTOR_MIN <= conduct.factor <= FACTOR_MAX and 0 <= conduct.score <= SCORE_MAX
        _holds(bounded, f"worker {name}", f"has the factor {conduct.factor} and the score {conduct.score}")
        _holds(not profile.removed or name not in state.workers, f"worker {name}", "was removed, and is here")
    if state.profiles_max:
        unknown = state.workers.keys() - state.profiles.keys()
        _holds(not unknown or len(state.profiles) >= state.profiles_max, "profiles", f"there is none of {unknown}")


def _check_dependents(state: State) -> None:
    expected: defaultdict[str, set[str]] = defaultdict(set)
    for task in state.tasks.values():
        if task.state is not TaskState.WAITING or not task.blocked_by:
            continue
        live = [other.id for other in state.needed(task) if not other.state.final]
        _that(len(live) <= task.blocked_by, task, f"is blocked by {task.blocked_by}, while {len(live)} are alive")
        for needed in live:
            expected[needed].add(task.id)
    kept = {needed: set(others) for needed, others in state.dependents.items()}
    for needed in kept.keys() | expected.keys():
        have, want = kept.get(needed, set()), expected.get(needed, set())
        _holds(have == want, f"task {needed}", f"is needed by {sorted(want)}, noted are {sorted(have)}")


def _check_sums(state: State) -> None:
    finals = [task for task in state.tasks.values() if task.state.final and task.id not in state.dead_letters]
    live = [task for task in state.tasks.values() if not task.state.final]
    counts = Counter(task.state for task in finals)
    _holds(
        {task.id for task in state.finals} == {task.id for task in finals} and len(state.finals) == len(finals),
        "finals",
        f"has {len(state.finals)} of {len(finals)} final tasks",
    )
    _holds(state.live == len(live), "live", f"{state.live} for {len(live)}")
    _holds(state.live_bytes == sum(task.request_bytes for task in live), "live_bytes", str(state.live_bytes))
    weights = [task.weight_bytes() for task in state.finals]
    _holds(list(state.finals_weights) == weights, "finals_weights", "are not those of the final tasks")
    _holds(state.finals_bytes == sum(weights), "finals_bytes", str(state.finals_bytes))
    _holds(len(finals) <= state.finals_max, "finals", f"{len(finals)} of at most {state.finals_max}")
    _holds(state.finals_bytes <= state.finals_bytes_max, "finals_bytes", f"{state.finals_bytes} are too many")
    ended = state.completed + state.dead + state.canceled
    kept = len(finals) + len(state.dead_letters) + state.forgotten
    _holds(ended == kept, "counters", f"{ended} ended, {kept} kept or forgotten")
    _holds(state.order == len(state.tasks) + state.forgotten, "order", f"{state.order} submitted")
    for name, counter in (
        ("completed", TaskState.COMPLETED),
        ("dead", TaskState.DEAD),
        ("canceled", TaskState.CANCELED),
    ):
        _holds(getattr(state, name) >= counts[counter], name, f"{getattr(state, name)} for {counts[counter]}")


def _check_waiting(desk: Desk) -> None:
    noted = {task.id for task, _ in desk.affected}
    for task in desk.state.tasks.values():
        if task.state is not TaskState.WAITING or task.id in noted or (task.due_ns and not task.blocked_by):
            continue
        alive = sum(1 for other in task.after if task.id in desk.state.dependents.get(other, ()))
        _that(bool(task.blocked_by), task, "waits for nothing")
        _that(alive == task.blocked_by, task, f"is blocked by {task.blocked_by} tasks, of which {alive} live")


def _check_timers(desk: Desk) -> None:
    state, timers = desk.state, desk.timers
    noted = {task.id for task, _ in desk.affected}
    expected: dict[str, int] = {}
    for task in state.tasks.values():
        if not task.state.final and (due_ns := due_next_ns(desk, task)) is not None:
            expected[task.id] = due_ns
    for key, due_ns in expected.items():
        at = timers.due_ns(key)
        story = story_of_task(state.tasks[key])
        _holds(at is not None, f"task {key}", f"has no timer, and is due at {due_ns}", story)
        assert at is not None
        # A sign of progress does not move the timer: when that goes off, it is seen that there was one.
        early = key in desk.beats_ns
        right = at <= due_ns + TIMER_SLACK_NS and (early or due_ns <= at)
        # Nor does the end of what a task needs, before it is followed up.
        right |= key in noted
        _holds(right, f"task {key}", f"goes off {at - due_ns} ns late", story)
    for worker_id, seat in desk.seats.items():
        at = timers.due_ns(WORKER_KEY + worker_id)
        _holds(at is not None, f"worker {worker_id}", "has no timer")
        assert at is not None
        wait_ns = desk.limits.stale_ns if seat.attached else desk.limits.reconnect_ns
        last = max(desk.now_ns + wait_ns, state.grace_until_ns) + TIMER_SLACK_NS
        _holds(at <= last, f"worker {worker_id}", f"goes off at {at}, which is too late")
    others = sum(1 for gate in desk.gates if timers.due_ns(gate.key) is not None)
    rounds = timers.due_ns(SUPERVISE_KEY) is not None
    _holds(rounds or not desk.news, "news", f"of {len(desk.news)} workers, and no round is due")
    others += sum(1 for key in timers if key.startswith(SUPERVISE_KEY))
    for name, profile in state.profiles.items():
        conduct = profile.conduct
        if conduct.stage is Stage.PAUSED or conduct.circuit.state is CircuitState.OPEN:
            _holds(timers.due_ns(SUPERVISE_KEY + name) is not None, f"worker {name}", "is held back for ever")
    others += sum(1 for name in state.schedules if timers.due_ns(SCHEDULE_KEY + name) is not None)
    right = len(timers) - others == len(expected) + len(desk.seats)
    _holds(right, "timers", f"{len(timers)}: some are for nothing")


def _check_tested(desk: Desk) -> None:
    """Who has a task with a known result is who has one that is not final."""
    gold = [task for task in desk.state.tasks.values() if task.tenant == GOLD_TENANT and not task.state.final]
    known = {*desk.tested.values()}
    for task in gold:
        _that(task.id in known, task, "has a known result, and its worker may be given another one")
    _holds(len(gold) == len(known), "gold", f"{len(known)} are said to be at one, {len(gold)} are")


def _check_seats(desk: Desk) -> None:
    state = desk.state
    _holds(desk.seats.keys() == state.workers.keys(), "seats", "are not those of the workers")
    for worker_id, worker in state.workers.items():
        about = f"worker {worker_id}"
        lines = [line for line in desk.lines.by_name.values() if desk.seats[worker_id].attached and line.fit(worker)]
        stands = desk.lines.stands(worker_id)
        right = {line.name for line in stands} == {line.name for line in lines} and len(stands) == len(lines)
        _holds(right, about, f"stands in {[line.name for line in stands]}")
        if worker_id in desk.touched:
            continue
        _holds(worker.room == room_of(desk, worker), about, f"has room for {worker.room}, not {room_of(desk, worker)}")
        for line in lines:
            placed = worker_id in line.strategy.placed()
            _holds(placed == _may_take(desk, line, worker), about, f"is {placed or 'not '}placed in line {line.name}")
    for line in desk.lines.by_name.values():
        gone = {*line.roster, *line.strategy.placed()} - state.workers.keys()
        _holds(not gone and line.strategy.placed() <= line.roster.keys(), f"line {line.name}", f"knows {sorted(gone)}")
    for task_id in (*desk.progress, *desk.beats_ns):
        task = state.tasks.get(task_id)
        _holds(task is not None and not task.state.final, f"task {task_id}", "has progress and is not alive")
