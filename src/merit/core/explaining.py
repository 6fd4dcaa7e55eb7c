"""Why a task got the worker that it got, or would get now: the rules asked once more, and made to speak.

A decision goes only by what stands in the journal, so that the fold up to just before it holds all that it went by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from merit.allocation.feasibility import NOTHING, amount_text, capacity_of, lacking, reasons_against
from merit.allocation.strategy import MakeStrategy
from merit.allocation.versions import range_text
from merit.core.allocating import room_of
from merit.core.backlog import Backlog
from merit.core.desk import Desk
from merit.core.gates import Gates
from merit.core.liberty import held_back, holds_back, paused_because
from merit.core.line import Line, in_use_by, wish_of
from merit.core.lines import Lines
from merit.core.looking import barred_from
from merit.core.retrying import failed_by
from merit.core.state import State
from merit.core.timers import Timers
from merit.core.why import why
from merit.model.events import AttemptAssigned
from merit.model.limits import Limits
from merit.model.tasks import Demand, Task, TaskState
from merit.model.tenancy import PROBE_TENANT
from merit.model.workers import Worker


class Ruling(Struct, frozen=True):
    """What was, or is, to be said of one worker."""

    worker: str
    fits: bool
    """Whether it could be given the task at that moment."""
    reasons: tuple[str, ...] = ()
    """Why not; of one that fits: what speaks against it all the same."""
    figures: tuple[tuple[str, int], ...] = ()
    """What the strategy goes by, the most important first; lower is better."""
    rank: int = 0
    """1 for the one that comes first; 0 for those that do not fit."""


class Explanation(Struct, frozen=True):
    """A decision, made or to be made."""

    task: str
    number: int
    """Of the attempt; of a task that waits: of the one that would be next."""
    capability: str
    demand: str
    """What is asked of the worker beyond the capability, for people."""
    strategy: str
    at_ns: int
    chosen: str
    """The worker that got it, or that would get it now; empty: nobody."""
    agrees: bool
    """Whether the rules, asked again, choose the one that got it."""
    rulings: tuple[Ruling, ...]
    """The one that was chosen, then those that fit by rank, then the others."""
    left_out: int
    """Workers of which nothing is said, since there are too many."""
    why: str
    """The reason for the task's state now, in a sentence."""


def explain_now(desk: Desk, task: Task, rulings_max: int) -> Explanation:
    """What holds for a task at this moment; nothing is decided.

    Args:
        desk: of the cell that leads.
        task: any that is known.
        rulings_max: how many workers to speak of at most.
    """
    line = desk.lines.route(task)
    wish = wish_of(line.strategy, task, desk.now_ns)
    failed, barred = failed_by(task), set(barred_from(desk.state, task))
    chosen = line.strategy.choose(wish, failed | barred) or line.strategy.choose(wish, barred) or ""
    if task.state is not TaskState.PENDING:
        chosen = ""

    def said(worker: Worker) -> str:
        if not desk.seats[worker.id].attached:
            return "is disconnected at the moment"
        if room_of(desk, worker):
            return ""
        return holds_back(desk, worker) or f"has no room: {len(worker.attempts):,} attempts"

    rulings, left_out = _rulings(desk.state, line, task, chosen, desk.now_ns, said, rulings_max)
    number = len(task.attempts) + 1
    return _explanation(line, task, number, desk.now_ns, chosen, True, rulings, left_out, why(desk, task))


def explain_assigned(
    state: State,
    event: AttemptAssigned,
    now_ns: int,
    catalogue: Mapping[str, MakeStrategy],
    limits: Limits,
    rulings_max: int,
) -> Explanation:
    """What a decision went by, and whether the rules decide the same again.

    Args:
        state: the fold of everything up to just before the event; it is not changed.
        event: the decision.
        now_ns: when it was made: the time of its record.
        catalogue: by name, the strategies that there are.
        limits: the bounds that held.
        rulings_max: how many workers to speak of at most.
    """
    backlog = Backlog(limits.ageing_ns, Gates(Timers()))
    lines = Lines(state, backlog, {}, catalogue)
    for capability in state.rollouts:
        lines.consider(capability)
    for worker in state.workers.values():
        lines.join(worker)
    for worker in state.workers.values():
        if worker.room:
            # Nobody else can matter: who has none was away, full, or not needed.
            lines.seat(worker)
    for name, worker_id in state.reserved.items():
        # In which line a task stands can depend on who is here.
        backlog.push(state.tasks[name], lines.route(state.tasks[name]).name)
        lines.refresh(state.workers[worker_id])
    task = state.tasks[event.task]
    line = lines.route(task)
    wish = wish_of(line.strategy, task, now_ns)
    failed, barred = failed_by(task), set(barred_from(state, task))
    chosen = line.strategy.choose(wish, barred if event.worker in failed else failed | barred)

    def said(worker: Worker) -> str:
        if worker.room:
            return ""
        live, profile = len(worker.attempts), state.profiles.get(worker.id)
        # What it would have taken, nobody knows any more: as many as it makes at a time, say.
        held = held_back(profile.conduct, state.policy, worker.concurrency - live, live) if profile is not None else ""
        return held or f"had no room, or was away: {live:,} attempts"

    rulings, left_out = _rulings(state, line, task, event.worker, now_ns, said, rulings_max)
    agrees = chosen == event.worker
    reason = f"it was given to {event.worker}" + ("" if agrees else f", and the rules of this version say {chosen}")
    return _explanation(line, task, event.number, now_ns, event.worker, agrees, rulings, left_out, reason)


def _explanation(
    line: Line,
    task: Task,
    number: int,
    at_ns: int,
    chosen: str,
    agrees: bool,
    rulings: tuple[Ruling, ...],
    left_out: int,
    reason: str,
) -> Explanation:
    demand = demand_text(line.demand, line.tenant)
    return Explanation(
        task.id,
        number,
        task.capability,
        demand,
        line.strategy_name,
        at_ns,
        chosen,
        agrees,
        rulings,
        left_out,
        reason,
    )


def _rulings(
    state: State,
    line: Line,
    task: Task,
    chosen: str,
    now_ns: int,
    said: Callable[[Worker], str],
    rulings_max: int,
) -> tuple[tuple[Ruling, ...], int]:
    failed, wish = failed_by(task), wish_of(line.strategy, task, now_ns)
    placed = line.strategy.placed()
    fit: list[tuple[tuple[int, ...], str, Ruling]] = []
    unfit: list[Ruling] = []
    left_out = 0
    # Who was chosen is among those that are spoken of, whoever else is not.
    for worker in sorted(state.workers.values(), key=lambda worker: worker.id != chosen):
        if worker.offer(task.capability) is None:
            continue
        standing = line.roster.get(worker.id)
        may_fit = standing is not None and worker.id in placed
        if not may_fit and len(unfit) >= rulings_max:
            left_out += 1
            continue
        reasons = _reasons(state, line, task, worker, said)
        again = (f"has failed it before: {worker.id}",) if worker.id in failed else ()
        if reasons or standing is None or not may_fit:
            unfit.append(Ruling(worker.id, False, (*reasons, *again) or ("has not been looked at yet",)))
            continue
        figures = tuple(line.strategy.figures(standing.candidate, wish).items())
        order = (int(worker.id in failed), *(value for _, value in figures))
        fit.append((order, worker.id, Ruling(worker.id, True, again, figures)))
    fit.sort(key=lambda entry: entry[:2])
    ranked = [
        Ruling(ruling.worker, True, ruling.reasons, ruling.figures, rank)
        for rank, (_, _, ruling) in enumerate(fit, start=1)
    ]
    ranked.sort(key=lambda ruling: ruling.worker != chosen)
    rulings = [*ranked, *unfit]
    return tuple(rulings[:rulings_max]), max(0, len(rulings) - rulings_max) + left_out


def _reasons(state: State, line: Line, task: Task, worker: Worker, said: Callable[[Worker], str]) -> tuple[str, ...]:
    probing = line.tenant == PROBE_TENANT
    reasons = list(reasons_against(worker, task.capability, line.demand, line.tenant, probing=probing))
    if reasons:
        reasons[0] += paused_because(state, worker)
    if away := said(worker):
        reasons.append(away)
    if worker.reserved and worker.reserved != task.id and worker.id not in line.strategy.placed():
        # For one of another line: what stands in its own line before it may still have the worker.
        reasons.append(f"is kept free for task {worker.reserved}, which has waited long for as much")
    if worker.id in barred_from(state, task):
        reasons.append("has had to do with the result that it is about")
    standing = line.roster.get(worker.id)
    if standing is not None:
        in_use = in_use_by(state, worker)
        reasons += lacking(standing.offer, standing.needs, capacity_of(worker), in_use)
    return tuple(reasons)


def demand_text(demand: Demand, tenant: str = "") -> str:
    """What is asked of a worker, for people; empty for nothing."""
    parts = [f"tenant {tenant}"] if tenant else []
    if demand == NOTHING:
        return ", ".join(parts)
    if demand.worker:
        parts.append(f"worker {demand.worker}")
    if demand.versions:
        parts.append(f"version {range_text(demand.versions)}")
    parts += [f"tag {tag}" for tag in demand.tags]
    parts += [f"not tag {tag}" for tag in demand.without_tags]
    parts += [f"{amount_text(need.thousandths)} {need.name}" for need in demand.resources]
    if demand.strategy:
        parts.append(f"strategy {demand.strategy}")
    return ", ".join(parts)
