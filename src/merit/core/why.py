"""Why a task is where it is, in a sentence for people."""

from __future__ import annotations

from itertools import islice

from merit.allocation.feasibility import reasons_against
from merit.core.backlog import LineQueue
from merit.core.desk import Desk
from merit.core.gates import Gate
from merit.core.liberty import clock, holds_back, paused_because
from merit.core.line import Line
from merit.core.retrying import failed_by
from merit.model.limits import SECOND_NS
from merit.model.rules import RuleKind
from merit.model.tasks import Task, TaskState
from merit.model.tenancy import PROBE_TENANT
from merit.model.workers import Worker, WorkerState

_NAMED_MAX = 3
_LIMITED_BY = {
    RuleKind.CAPABILITY: "capability {name}",
    RuleKind.TENANT: "tenant {name}",
    RuleKind.KEY: "each key of capability {name}",
}


def why(desk: Desk, task: Task) -> str:
    """The reason for a task's state; for one that waits, what it waits for."""
    if task.state.final:
        ended = task.failure.message if task.failure else f"it is {task.state.name}"
        return f"{ended}; tried again as {task.successor}" if task.successor else ended
    if task.state is TaskState.WAITING:
        return _waiting(desk, task)
    if task.state is TaskState.PENDING:
        return _pending(desk, task)
    if task.state is TaskState.AUDITING:
        return _audited(desk, task)
    attempt = task.attempts[-1]
    doing = "runs" if task.state is TaskState.RUNNING else "is with the worker"
    seat = desk.seats.get(attempt.worker)
    away = "" if seat is not None and seat.attached else ", which is disconnected at the moment"
    return f"attempt {attempt.number} {doing} on {attempt.worker}{away}"


def _audited(desk: Desk, task: Task) -> str:
    case = desk.state.cases[task.id]
    asked = ", ".join(case.reviews[:_NAMED_MAX]) or "nobody"
    said = f"{len(case.answers)} of {case.asked} have answered"
    return (
        f"the result of {case.worker} is being looked at by others (tasks {asked}; {said}), until {clock(task.due_ns)}"
    )


def _waiting(desk: Desk, task: Task) -> str:
    state = desk.state
    until = f"until {clock(task.due_ns)}, {_wait_s(desk, task.due_ns)}"
    if task.blocked_by:
        despite = task.terms is not None and task.terms.despite_dead
        needed = [
            other.id
            for name in task.after
            if (other := state.tasks.get(name)) is not None
            and not (other.state.final if despite else other.state is TaskState.COMPLETED)
        ]
        more = f" and {len(needed) - _NAMED_MAX} more" if len(needed) > _NAMED_MAX else ""
        delayed = f", and is delayed {until}" if task.due_ns > desk.now_ns else ""
        return (
            f"it needs {', '.join(needed[:_NAMED_MAX])}{more} to be {'over' if despite else 'completed'} first{delayed}"
        )
    if not task.attempts:
        return f"it is delayed {until}"
    last = task.attempts[-1]
    failure = f": {last.failure.message}" if last.failure else ""
    wait_s = (task.due_ns - last.ended_ns) / SECOND_NS
    return f"attempt {last.number} {last.state.name}{failure}; it is tried again {wait_s:.1f} s after that"


def _pending(desk: Desk, task: Task) -> str:
    state, capability = desk.state, task.capability
    if capability in state.paused:
        reason = f": {state.paused[capability]}" if state.paused[capability] else ""
        return f"the queue of {capability} is paused{reason}; resume it with: merit queue resume {capability}"
    offering = [worker for worker in state.workers.values() if worker.offer(capability) is not None]
    able = [worker for worker in offering if desk.seats[worker.id].attached]
    if not able:
        known = capability in state.offers
        return (
            f"no connected worker offers {capability}"
            + (" now, though one did before" if known else "")
            + f"; start one: merit worker MODULE with a capability named {capability}"
        )
    for gate in desk.gates.over(task, desk.now_ns):
        if gate.closed(desk.now_ns):
            return _limited(gate)
    line = desk.lines.route(task)
    if not line.roster:
        return _nobody(desk, line, able)
    failed = failed_by(task) & line.roster.keys()
    if failed & line.strategy.placed() and len(failed) < len(line.roster):
        return f"it waits for a worker that has not failed it; {', '.join(sorted(failed)[:_NAMED_MAX])} did"
    queue = desk.backlog.queue_of(task)
    before = _before(queue, task) if queue is not None else 0
    next_ = f"about {before:,} go before it" if before else "it is next"
    names = list(line.roster)
    held = {name: reason for name in names if (reason := holds_back(desk, state.workers[name]))}
    said = "; ".join(f"{name} {reason}" for name, reason in islice(held.items(), _NAMED_MAX))
    more = f" and {len(held) - _NAMED_MAX} more" if len(held) > _NAMED_MAX else ""
    if len(held) == len(names):
        return f"those that may do it are held back: {said}{more}; {next_}"
    suited = f"offer {capability}" if line.plain else f"may do it of those that offer {capability}"
    workers = f"all {len(names)} workers that {suited} are" if len(names) > 1 else f"{names[0]} is"
    return f"{workers} busy{f', or held back: {said}{more}' if held else ''}; {next_}"


def _nobody(desk: Desk, line: Line, able: list[Worker]) -> str:
    """Why none of the workers that offer the capability may do the task."""
    capability = line.capability
    if all(worker.state is WorkerState.DRAINING for worker in able):
        return f"every worker that offers {capability} is draining"
    probing = line.tenant == PROBE_TENANT
    said: list[str] = []
    for worker in able[:_NAMED_MAX]:
        reasons = reasons_against(worker, capability, line.demand, line.tenant, probing=probing)
        said.append(f"{worker.id} {next(reasons, 'was not looked at yet')}{paused_because(desk.state, worker)}")
    more = f" and {len(able) - _NAMED_MAX} more" if len(able) > _NAMED_MAX else ""
    return f"no connected worker may do it: {'; '.join(said)}{more}"


def _limited(gate: Gate) -> str:
    rule = gate.rule
    what = _LIMITED_BY[rule.kind].format(name=rule.name)
    if rule.concurrency and len(gate.holders) >= rule.concurrency:
        return f"the limit of {rule.concurrency:,} at a time for {what} is reached"
    return f"the limit of {rule.rate_millihz / 1_000:g} a second for {what} is reached"


def _before(queue: LineQueue, task: Task) -> int:
    """About how many of the same capability go before the task, without counting them: of its own tenant those that
    came before it and are still there at most, and of each other tenant as many."""
    flow = queue.flows.get(task.tenant)
    head = flow.lane.head() if flow is not None else None
    if flow is None or head is None:
        return 0
    own = max(0, min(flow.size - 1, task.order - head.order))
    return own + sum(min(other.size, own + 1) for other in queue.flows.values() if other is not flow)


def _wait_s(desk: Desk, time_ns: int) -> str:
    return f"in {max(0, time_ns - desk.now_ns) / SECOND_NS:.0f} s"
