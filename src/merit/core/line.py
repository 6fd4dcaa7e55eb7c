"""One line: tasks that ask the same of a worker, and those who may do them (see ``core.lines``)."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from merit.allocation.feasibility import NOTHING, SLOTS, needs_of, reasons_against
from merit.allocation.strategy import CRITICAL, PLAIN, Candidate, Strategy, Wish
from merit.core.state import State
from merit.model.supervision import FACTOR_ONE
from merit.model.tasks import Demand, Priority, Task
from merit.model.tenancy import PROBE_TENANT
from merit.model.workers import Amount, Offer, Profile, Worker

_CRITICAL_PRIORITY = Priority.CRITICAL
_ATTEMPTS_BITS = 8
"""Attempts of a task that are told apart where its order stands for chance."""

LineKey = tuple[str, Demand, str, bool, bool]
"""Capability, demand, tenant, whether it is guided, and whether its tasks look at results of others."""


class Fit(Struct):
    """A worker that may do the tasks of a line."""

    candidate: Candidate
    offer: Offer
    needs: tuple[Amount, ...]
    counted: bool
    """Whether more than its room has to be looked at."""

    def learn(self, worker: Worker, profile: Profile | None) -> None:
        """Its record, or what was decided about it, has changed."""
        if profile is None:
            return
        candidate, conduct = self.candidate, profile.conduct
        candidate.concurrency = max(1, worker.concurrency * conduct.factor // FACTOR_ONE)
        candidate.score = conduct.score
        record = profile.records.get(self.offer.name)
        if record is not None:
            candidate.took_ns = record.took_ns
            candidate.reputation = record.rating.low


class Line:
    """A line. ``demand`` is what all its tasks ask, ``tenant`` whose they are where that matters; ``guided``: some
    of it they ask by what was set or by where their keys are, so that they may have to go elsewhere. Those that ask the
    same themselves, and stay, stand apart from them."""

    __slots__ = (
        "capability",
        "demand",
        "guided",
        "lent",
        "name",
        "reviews",
        "roster",
        "staffed",
        "strategy",
        "strategy_name",
        "tenant",
    )

    def __init__(self, name: str, capability: str, demand: Demand, tenant: str, *, guided: bool, reviews: bool) -> None:
        self.name = name
        self.capability = capability
        self.demand = demand
        self.tenant = tenant
        self.guided = guided
        self.reviews = reviews
        """Whether its tasks look at results: then not everybody may do each of them."""
        self.roster: dict[str, Fit] = {}
        """Workers that are attached and may do its tasks."""
        self.staffed: bool | None = None
        """Whether anybody who is here, attached or not, may do them; None: nobody has looked since that may have changed."""
        self.lent: Demand | None = None
        """What some of its tasks would ask if there were anybody who has it."""
        self.strategy: Strategy
        self.strategy_name = ""

    @property
    def plain(self) -> bool:
        """Whether its tasks ask nothing but their capability."""
        return self.name == self.capability

    @property
    def key(self) -> LineKey:
        """What tells it from all others."""
        return self.capability, self.demand, self.tenant, self.guided, self.reviews

    @property
    def broad(self) -> bool:
        """Whether many workers may stand in it, each of which has to be told of each change."""
        return not self.plain and not self.demand.worker

    def fit(self, worker: Worker) -> Fit | None:
        """What a worker would be in this line, or None if it may not do its tasks."""
        offer = worker.offer(self.capability)
        if offer is None or not self.admits(worker, self.demand):
            return None
        candidate = Candidate(
            worker.id,
            worker.concurrency,
            preference_permille=offer.preference_permille,
            cost_micros=offer.cost_micros,
            tags=frozenset((*worker.tags, *offer.tags, *worker.privileges)),
        )
        needs = needs_of(offer, self.demand)
        return Fit(candidate, offer, needs, bool(needs or offer.concurrency_max))

    def admits(self, worker: Worker, demand: Demand) -> bool:
        """Whether the worker may do such tasks as stand here, if they ask this."""
        probing = self.tenant == PROBE_TENANT
        return not any(reasons_against(worker, self.capability, demand, self.tenant, probing=probing))


def in_use_by(state: State, worker: Worker) -> Counter[str]:
    """What the live attempts of a worker take of each resource, in thousandths; and how many there are at each
    capability, under ``SLOTS`` and its name."""
    in_use: Counter[str] = Counter()
    for task_id in worker.attempts:
        task = state.tasks[task_id]
        offer = worker.offer(task.capability)
        if offer is not None:
            count_in(in_use, offer, task)
    return in_use


def count_in(in_use: Counter[str], offer: Offer, task: Task) -> None:
    """One more attempt, at this task."""
    in_use[SLOTS + offer.name] += 1
    demand = task.terms.demand if task.terms is not None else None
    for need in needs_of(offer, demand or NOTHING):
        in_use[need.name] += need.thousandths


def wish_of(strategy: Strategy, task: Task, now_ns: int) -> Wish:
    """What the strategy may know of the task."""
    critical = task.priority is _CRITICAL_PRIORITY
    if not strategy.reads_wish:
        return CRITICAL if critical else PLAIN
    terms = task.terms
    demand = terms.demand if terms is not None else None
    return Wish(
        (task.order << _ATTEMPTS_BITS) + len(task.attempts),
        task.deadline_ns - now_ns if task.deadline_ns else -1,
        terms.estimate_ns if terms is not None else 0,
        demand.prefers if demand is not None else (),
        critical,
    )
