"""What follows from the state and is no part of it, made anew: queues, lines, limits, timers, seats.

A new leader does this once; and whoever looks at a state of the past, of which nobody has kept them.
"""

from __future__ import annotations

from collections.abc import Mapping

from merit.allocation.strategy import MakeStrategy
from merit.core.admission import recall_probes
from merit.core.auditing import recall_gold
from merit.core.depending import unfinished
from merit.core.desk import Desk, Seat
from merit.core.panel import BUILT_IN_PANEL, Panel
from merit.core.queueing import enqueue
from merit.core.schedules import plan
from merit.core.staffing import WORKER_KEY, welcome
from merit.core.state import State
from merit.core.supervising import recall_conduct
from merit.core.timing import arm
from merit.model.limits import Limits
from merit.model.tasks import TaskState


def recover(desk: Desk, grace_until_ns: int) -> None:
    """Fill a desk that is new from its state, at its present; no event is emitted.

    Args:
        desk: whose state, limits and present are set.
        grace_until_ns: until then workers are waited for; nobody is attached yet.
    """
    state = desk.state
    for rule in state.rules.values():
        desk.gates.set(rule, desk.now_ns)
    for name, tenant in state.tenants.items():
        desk.backlog.shares.set_weight(name, tenant.terms.weight)
    for capability in state.rollouts:
        desk.lines.consider(capability)
    for worker in state.workers.values():
        desk.seats[worker.id] = Seat(seen_ns=desk.now_ns)
        welcome(desk, worker)
        desk.timers.arm(WORKER_KEY + worker.id, grace_until_ns)
    for task in state.tasks.values():
        if task.state.final:
            continue
        if task.state is TaskState.PENDING:
            enqueue(desk, task)
        elif task.state not in (TaskState.WAITING, TaskState.AUDITING):
            desk.gates.hold((task,), desk.now_ns)
        elif task.state is TaskState.WAITING and (doom := unfinished(state, task, desk.now_ns)) is not None:
            desk.affected.append((task, doom))
        arm(desk, task)
    for planned in state.schedules.values():
        plan(desk, planned)
    recall_probes(desk)
    recall_conduct(desk)
    recall_gold(desk)


def desk_of(
    state: State, now_ns: int, catalogue: Mapping[str, MakeStrategy], limits: Limits, panel: Panel = BUILT_IN_PANEL
) -> Desk:
    """A desk as it may have been at a moment of the past, to be looked at.

    The journal does not say whether a worker was connected at that moment, so every worker that had joined and not left
    counts as attached; it does say how much room each had when it was decided last who gets what.

    Args:
        state: the fold of everything up to that moment.
        now_ns: the moment, Unix time.
        catalogue: by name, the strategies that there are.
        limits: bounds and times.
        panel: who reckons and decides about workers.
    """
    desk = Desk(state, catalogue, limits, panel)
    desk.now_ns = desk.quiet_until_ns = now_ns  # nobody is silent for too long in the past
    recover(desk, now_ns)
    for worker in state.workers.values():
        # One credit that is used says that it has offered to take something; what is left is its room.
        desk.seats[worker.id] = Seat(attached=True, granted=1 + worker.room, used=1)
        desk.lines.seat(worker)
    return desk
