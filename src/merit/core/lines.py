"""Lines: where tasks wait that ask the same of a worker.

A plain task waits in the line of its capability. One with a demand of its own (``Demand``), one that a rollout deals to
a version, one whose tenant has workers to itself and one whose key has a home wait in lines of their own. Each line has
a queue (``core.backlog``), a roster of the workers that may do its tasks, and a strategy that picks one of those with
room. So no decision looks at a worker that could not do the task, and a task that nobody can do holds up nobody else.

Lines follow from the state, and are made when they are needed. When what they follow from changes, tasks are moved as
they come to the head of the line in which they were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import TypeVar
from zlib import crc32

from msgspec import Struct, field
from msgspec.structs import replace

from merit.allocation.catalogue import DEFAULT
from merit.allocation.feasibility import (
    NOTHING,
    capacity_of,
    lacking,
    misfit_permille,
    shortcomings,
)
from merit.allocation.strategy import MakeStrategy
from merit.allocation.versions import BARS
from merit.core.backlog import Backlog, LineQueue, Pick
from merit.core.line import Fit, Line, LineKey, count_in, in_use_by
from merit.core.state import State
from merit.model.fleet import RolloutState
from merit.model.tasks import Demand, Task
from merit.model.tenancy import GOLD_TENANT, PROBE_TENANT
from merit.model.workers import PERMILLE, Worker, WorkerState

_SWEEP_AT_LEAST = 256
_At = TypeVar("_At")


class Bespoken(Struct):
    """Lines that the tasks of one submit need and that are not there yet."""

    keys: set[LineKey] = field(default_factory=set)
    broad: dict[str, int] = field(default_factory=dict)
    """By capability."""


class Lines:
    """All lines of a cell.

    Args:
        state: to be read only.
        backlog: where the tasks of the lines are.
        ready: names of lines that are to be looked at when it is decided next.
        catalogue: the strategies that there are.
    """

    def __init__(
        self, state: State, backlog: Backlog, ready: dict[str, None], catalogue: Mapping[str, MakeStrategy]
    ) -> None:
        self._state = state
        self._backlog = backlog
        self._ready = ready
        self.catalogue = catalogue
        self.by_name: dict[str, Line] = {}
        self._by_key: dict[LineKey, Line] = {}
        self._of_capability: dict[str, dict[str, Line]] = {}
        self._open: dict[str, dict[str, Line]] = {}
        """By capability: those that name no worker …"""
        self._named: dict[tuple[str, str], dict[str, Line]] = {}
        """… and by capability and worker those that do: a worker that comes need not be held against all of them."""
        self._broad: Counter[str] = Counter()
        """By capability: lines in which many workers may stand."""
        self._serial = 0
        self._sweep_at = _SWEEP_AT_LEAST
        self._swept_at = -1
        """Sequence of the state when it was last swept for want of room."""
        self._seated: dict[str, dict[str, None]] = {}
        """By capability: the workers that offer it, are attached and not about to leave."""
        self._places: dict[str, list[tuple[Line, Fit]]] = {}
        """By worker that is attached: the lines in which it stands."""
        self._in_use: dict[str, Counter[str]] = {}
        """By worker: what its live attempts take, as far as it has been counted since they changed."""
        self.uniform_names: set[str] = set()
        """Plain lines of capabilities of which all tasks without terms of their own belong there."""
        self._special: set[str] = set()
        """Capabilities of which not all tasks without a demand belong in the plain line."""
        self._stateful: Counter[str] = Counter()
        """By capability: workers here that offer it as stateful."""
        self._walls: dict[str, Counter[str]] = {}
        """By capability and tenant: how many workers here take tasks of named tenants only, this among them."""

    # Which line

    def route(self, task: Task) -> Line:
        """The line in which the task has to wait now; it is made if there is none like it."""
        capability, terms = task.capability, task.terms
        demand = terms.demand if terms is not None else None
        reviews = terms is not None and terms.review is not None
        if demand is None and capability not in self._special and task.tenant != PROBE_TENANT and not reviews:
            return self.by_name.get(capability) or self._get(capability, NOTHING, "")
        return self._get(capability, *self._asked(task, demand or NOTHING), reviews=reviews)

    def belongs(self, task: Task, line: Line) -> bool:
        """Whether a task that stands in this line still has to."""
        return self.uniform(line) or self.route(task) is line

    def uniform(self, line: Line) -> bool:
        """Whether all that stands in it is known to belong there."""
        return line.plain and line.capability not in self._special

    def takes(self, capability: str, demand: Demand, bespoken: Bespoken, lines_max: int, broad_max: int) -> bool:
        """Whether there is a line for tasks that ask this, or room for one more beside those bespoken, among which it is
        then: ``lines_max`` in all, ``broad_max`` of one capability in which many workers may stand."""
        if demand.prefers:
            demand = replace(demand, prefers=())
        key = (capability, demand, "", False, False)
        if demand == NOTHING or key in self._by_key or key in bespoken.keys:
            return True

        def has_room() -> bool:
            few = bool(demand.worker) or self._broad[capability] + bespoken.broad.get(capability, 0) < broad_max
            return few and len(self._by_key) + len(bespoken.keys) < lines_max

        if not has_room() and self._swept_at != self._state.sequence:
            # Once is enough while nothing happens: a submit of many tasks that are all refused must not cost much.
            self._swept_at = self._state.sequence
            self._sweep()
        if not has_room():
            return False
        bespoken.keys.add(key)
        bespoken.broad[capability] = bespoken.broad.get(capability, 0) + (not demand.worker)
        return True

    def _asked(self, task: Task, demand: Demand) -> tuple[Demand, str, bool]:
        """What the task asks, with all that settings and the fleet add to it; whether they do."""
        capability = task.capability
        if demand.prefers:
            demand = replace(demand, prefers=())
        if task.tenant in (PROBE_TENANT, GOLD_TENANT):
            return demand, task.tenant, False
        walls = self._walls.get(capability)
        tenant = task.tenant if walls is not None and task.tenant in walls else ""
        guided = False
        if not demand.worker and capability in self._stateful and (home := self._home(task, demand)):
            demand, guided = replace(demand, worker=home), True
        if not demand.worker and not demand.versions and capability in self._state.rollouts:
            return self._dealt(task, demand, tenant), tenant, True
        return demand, tenant, guided

    def _home(self, task: Task, demand: Demand) -> str:
        """The worker that has the key of the task, while it is here and may come to take something again."""
        key = task.terms.key if task.terms is not None else ""
        at = (task.tenant, task.capability, key)
        worker = self._state.workers.get(self._state.homes.get(at, "")) if key else None
        offer = worker.offer(task.capability) if worker is not None else None
        if worker is None or offer is None or worker.state is WorkerState.DRAINING:
            return ""
        # One that could never do it is no home for it: it would wait for ever.
        return "" if any(shortcomings(worker, offer, demand, task.tenant, probing=False)) else worker.id

    def _dealt(self, task: Task, demand: Demand, tenant: str) -> Demand:
        """Which version a task gets that does not care, once one was introduced. While that goes on: not one that nobody
        here has, if somebody has another."""
        rollout = self._state.rollouts[task.capability]
        barred = [BARS + version for version in rollout.barred]
        if rollout.state is RolloutState.PROMOTED:
            return replace(demand, versions=",".join([_from_on(rollout.version), *barred]))
        floor = [_from_on(version) for version in rollout.floors[-1:]]
        stable = replace(demand, versions=",".join([*floor, *barred, BARS + rollout.version]))
        if rollout.state is RolloutState.ABORTED:
            return stable
        canary = replace(demand, versions=f"=={rollout.version}")
        first = crc32(task.id.encode()) % PERMILLE < rollout.share_permille
        one, other = (canary, stable) if first else (stable, canary)
        if self._is_staffed(self._get(task.capability, one, tenant, guided=True)):
            return one
        line = self._get(task.capability, other, tenant, guided=True)
        if not self._is_staffed(line):
            return one
        line.lent = one
        return other

    def _is_staffed(self, line: Line) -> bool:
        """Whether anybody who is here may do its tasks. Who is disconnected counts until he is given up: what is dealt
        must not depend on who comes back first after a restart."""
        if line.staffed is None:
            workers = self._state.workers.values()
            line.staffed = any(line.admits(worker, line.demand) for worker in workers)
        return line.staffed

    def astray(self, queue: LineQueue, line: Line, now_ns: int) -> Pick | None:
        """A task in the queue of this line, not the first, that belongs elsewhere by now: of a tenant that has got workers
        to itself since."""
        walls = self._walls.get(line.capability)
        if walls is None or line.tenant:
            return None
        few, many = (walls, queue.flows) if len(walls) < len(queue.flows) else (queue.flows, walls)
        for tenant in few:
            flow = queue.flows[tenant] if tenant in many else None
            task = flow.head(now_ns) if flow is not None else None
            if flow is not None and task is not None and not self.belongs(task, line):
                return Pick(flow, task)
        return None

    def deal_anew(self, capability: str) -> None:
        """A version gets another share: what was dealt before goes to lines of its own, so that nothing stands behind what
        is dealt otherwise now."""
        for line in self.of_capability(capability):
            if line.guided and self._by_key.get(line.key) is line:
                del self._by_key[line.key]
        self._unsettle(capability)

    def _get(
        self, capability: str, demand: Demand, tenant: str, guided: bool = False, *, reviews: bool = False
    ) -> Line:
        plain = demand == NOTHING and not tenant and not reviews
        line = (
            self.by_name.get(capability) if plain else self._by_key.get((capability, demand, tenant, guided, reviews))
        )
        if line is not None:
            return line
        if plain:
            line = Line(capability, capability, demand, tenant, guided=guided, reviews=reviews)
            if capability not in self._special:
                self.uniform_names.add(capability)
        else:
            self._serial += 1
            line = Line(f"{capability}\0{self._serial}", capability, demand, tenant, guided=guided, reviews=reviews)
            self._by_key[line.key] = line
            self._broad[capability] += line.broad
        self.by_name[line.name] = line
        self._of_capability.setdefault(capability, {})[line.name] = line
        if demand.worker:
            self._named.setdefault((capability, demand.worker), {})[line.name] = line
        else:
            self._open.setdefault(capability, {})[line.name] = line
        self._equip(line)
        seated = self._seated.get(capability, {})
        for name in [demand.worker] if demand.worker else sorted(seated):
            if name in seated:
                self._take_place(line, self._state.workers[name])
        return line

    def tidy(self) -> None:
        """Forget lines in which nothing waits, now and then. Not to be called between finding a task's line and putting
        the task there."""
        if len(self.by_name) >= self._sweep_at:
            self._sweep()

    def _sweep(self) -> None:
        left: dict[str, None] = {}
        for line in list(self.by_name.values()):
            if line.name in self._backlog.queues or (line.plain and line.roster):
                continue
            del self.by_name[line.name]
            self.uniform_names.discard(line.name)
            left.update(dict.fromkeys(line.roster))
            _forget(self._of_capability, line.capability, line.name)
            if line.demand.worker:
                _forget(self._named, (line.capability, line.demand.worker), line.name)
            else:
                _forget(self._open, line.capability, line.name)
            if self._by_key.get(line.key) is line:
                del self._by_key[line.key]
            self._broad[line.capability] -= line.broad
        for name in left:
            self._places[name] = [place for place in self._places[name] if place[0].name in self.by_name]
        self._broad = +self._broad
        self._sweep_at = max(_SWEEP_AT_LEAST, 2 * len(self.by_name))

    # Who chooses

    def _equip(self, line: Line) -> None:
        """Give it the strategy that its tasks ask for, or that is set."""
        allocations = self._state.allocations
        own = line.demand.strategy
        allocation = allocations.get(line.capability) or allocations.get("")
        name = own or (allocation.strategy if allocation is not None else DEFAULT)
        if name not in self.catalogue:
            # Of a plug-in that this process does not have: better another choice than none.
            name = DEFAULT
        weights = allocation.weights if allocation is not None and allocation.strategy == name else ()
        try:
            line.strategy = self.catalogue[name]({weight.name: weight.permille for weight in weights})
        except Exception:  # noqa: BLE001 - code of others, perhaps of another version than when this was set
            name = DEFAULT
            line.strategy = self.catalogue[name]({})
        line.strategy_name = name

    def equip(self, capability: str) -> None:
        """Another strategy was set for a capability, or, under the empty name, for all that have none of their own."""
        names = [capability] if capability else list(self._of_capability)
        for name in names:
            for line in self.of_capability(name):
                self._equip(line)
                for worker in line.roster:
                    self._offer(line, line.roster[worker], self._state.workers[worker])

    def offering(self, capability: str) -> Collection[str]:
        """The workers that are attached, and not about to leave, and offer it."""
        return self._seated.get(capability, ())

    def of_capability(self, capability: str) -> list[Line]:
        """All its lines."""
        return list(self._of_capability.get(capability, {}).values())

    def mark(self, capability: str) -> None:
        """All its lines are to be looked at."""
        self._ready.update(dict.fromkeys(self._of_capability.get(capability, ())))

    def _unsettle(self, capability: str) -> None:
        """Workers that are here, or settings, have changed: all its lines are to be looked at, and who may do what."""
        for line in self._open.get(capability, {}).values():
            line.staffed = None
        self.mark(capability)

    # Who stands where

    def join(self, worker: Worker) -> None:
        """A worker is here."""
        self._change(worker, 1)
        self._staff(worker)
        self.mark_of(worker)

    def part(self, worker: Worker) -> None:
        """A worker is here no more, or comes with other offers."""
        self._change(worker, -1)
        self.mark_of(worker)

    def mark_of(self, worker: Worker) -> None:
        """All lines of what the worker offers are to be looked at."""
        for offer in worker.offers:
            self._unsettle(offer.name)

    def _staff(self, worker: Worker) -> None:
        """The worker may do tasks of a version that nobody had: those that were dealt otherwise for want of one are dealt
        anew."""
        for offer in worker.offers:
            lines = self._open.get(offer.name, {}).values() if offer.name in self._state.rollouts else ()
            lent = ((line, line.lent) for line in lines if line.lent is not None)
            if any(self._by_key.get(line.key) is line and line.admits(worker, asked) for line, asked in lent):
                self.deal_anew(offer.name)

    def _change(self, worker: Worker, by: int) -> None:
        for offer in worker.offers:
            capability = offer.name
            if offer.stateful:
                self._stateful[capability] += by
                if not self._stateful[capability]:
                    del self._stateful[capability]
            if worker.tenants:
                walls = self._walls.setdefault(capability, Counter())
                for tenant in worker.tenants:
                    walls[tenant] += by
                self._walls[capability] = +walls
                if not self._walls[capability]:
                    del self._walls[capability]
            if offer.stateful or worker.tenants:
                self.consider(capability)

    def consider(self, capability: str) -> None:
        """What decides the line of tasks without a demand may have changed for a capability."""
        if capability in self._stateful or capability in self._walls or capability in self._state.rollouts:
            self._special.add(capability)
            self.uniform_names.discard(capability)
        else:
            self._special.discard(capability)
            if capability in self.by_name:
                self.uniform_names.add(capability)
        self._unsettle(capability)

    def seat(self, worker: Worker) -> None:
        """A worker is attached, or what it may do has changed: let it stand where it may."""
        self.unseat(worker.id)
        self._places[worker.id] = []
        for offer in worker.offers:
            if worker.state is not WorkerState.DRAINING:
                self._seated.setdefault(offer.name, {})[worker.id] = None
            named = self._named.get((offer.name, worker.id), {})
            for line in (*self._open.get(offer.name, {}).values(), *named.values()):
                self._take_place(line, worker)
            if offer.name in self._special:
                self.mark(offer.name)

    def seat_again(self, worker: Worker) -> None:
        """What a worker may do has changed, whether it is attached or not."""
        self._staff(worker)
        self.mark_of(worker)  # what waits for it may have to go elsewhere
        if worker.id in self._places:
            self.seat(worker)

    def _take_place(self, line: Line, worker: Worker) -> None:
        fit = line.fit(worker)
        if fit is None:
            return
        line.roster[worker.id] = fit
        self._places[worker.id].append((line, fit))
        fit.learn(worker, self._state.profiles.get(worker.id))
        self._offer(line, fit, worker)
        self._ready[line.name] = None

    def unseat(self, worker_id: str) -> None:
        """The worker takes nothing more, for now at least. A task that would rather have gone to it than to one that has
        failed the task need not wait for it."""
        stood = self._places.pop(worker_id, ())
        for line, _ in stood:
            del line.roster[worker_id]
            line.strategy.remove(worker_id)
            self._ready[line.name] = None
        for capability in sorted(self._special & {line.capability for line, _ in stood}):
            self.mark(capability)
        self._in_use.pop(worker_id, None)
        worker = self._state.workers.get(worker_id)
        for offer in worker.offers if worker is not None else ():
            seated = self._seated.get(offer.name)
            if seated is not None and seated.pop(worker_id, 0) is None and not seated:
                del self._seated[offer.name]

    def stands(self, worker_id: str) -> list[Line]:
        """The lines in which the worker stands."""
        return [line for line, _ in self._places.get(worker_id, ())]

    def mark_stands(self, worker_id: str) -> None:
        """The worker may have room: the lines in which it stands are to be looked at."""
        ready = self._ready
        for line, _ in self._places.get(worker_id, ()):
            ready[line.name] = None

    # What it is at

    def refresh(self, worker: Worker) -> None:
        """Attempts of the worker have ended, or its room has changed: tell the strategies."""
        self._in_use.pop(worker.id, None)
        for line, fit in self._places.get(worker.id, ()):
            fit.learn(worker, self._state.profiles.get(worker.id))
            self._offer(line, fit, worker)

    def assigned(self, worker: Worker, task: Task, line: Line) -> None:
        """The worker has just been given a task of this line."""
        in_use = self._in_use.get(worker.id)
        if in_use is not None:
            count_in(in_use, line.roster[worker.id].offer, task)
        room, reserved = worker.room, worker.reserved
        for other, fit in self._places[worker.id]:
            if not room or reserved or fit.counted:
                self._offer(other, fit, worker)
                continue
            # As `_offer` does it: this is once or more for each task.
            candidate = fit.candidate
            candidate.live, candidate.room = len(worker.attempts), room
            candidate.given, candidate.turn = worker.given, worker.turn
            other.strategy.place(candidate)

    def _offer(self, line: Line, fit: Fit, worker: Worker) -> None:
        """Let the line's strategy know how things stand with the worker."""
        room = worker.room
        if not room or (worker.reserved and not self._is_kept_for(worker, line)):
            line.strategy.remove(worker.id)
            return
        candidate = fit.candidate
        candidate.live = len(worker.attempts)
        candidate.room = room
        candidate.given = worker.given
        candidate.turn = worker.turn
        if fit.counted and not self._affords(fit, worker):
            line.strategy.remove(worker.id)
        else:
            line.strategy.place(candidate)

    def _is_kept_for(self, worker: Worker, line: Line) -> bool:
        """Whether the task for which the worker is kept free waits in this line."""
        queue = self._backlog.queue_of(self._state.tasks[worker.reserved])
        return queue is not None and queue.line == line.name

    def _affords(self, fit: Fit, worker: Worker) -> bool:
        """Whether it has all that one more attempt needs; notes how well it fits."""
        in_use = self._in_use.get(worker.id)
        if in_use is None:
            in_use = self._in_use[worker.id] = in_use_by(self._state, worker)
        capacity = capacity_of(worker)
        if any(lacking(fit.offer, fit.needs, capacity, in_use)):
            return False
        fit.candidate.misfit_permille = misfit_permille(fit.needs, capacity, in_use)
        return True


def _forget(index: dict[_At, dict[str, Line]], at: _At, name: str) -> None:
    del index[at][name]
    if not index[at]:
        del index[at]


def _from_on(version: str) -> str:
    """The range of a version and all later ones. What was built how has no place in an order."""
    return f">={version.partition('+')[0]}"
