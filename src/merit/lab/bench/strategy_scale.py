"""Whether a strategy costs the same however many workers there are: the machine's own work, without streams and disk.

**What was chosen, and why.** As many tasks are on their way at any time in the large fleet as in the small one; all other
workers of the large one are idle, have room, and stand in the strategy's index. A task is submitted, given out and
reported, which is all that the machine does for it, since it is the system whose cost must stay flat. There is something
to reckon with for each strategy: workers need and have resources, are told apart by zones that every second task prefers,
and differ in how long they take. Both fleets are measured in slices, in turns, by CPU time; what counts is the median of
the pairs' ratios. The garbage collector is kept out: what it would go through is all that this process holds, which a
control plane sets apart when it has started.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Final

from merit.allocation.catalogue import BUILT_IN
from merit.core.machine import Machine
from merit.core.state import State
from merit.lab.bench.figures import Figure
from merit.lab.bench.paired import cost_pct
from merit.lab.bench.plan import Plan
from merit.lab.bench.strategy_costs import as_name
from merit.model.commands import (
    Allocate,
    AttachWorker,
    Command,
    SetAllocation,
    StartLeadership,
    SubmitTasks,
    TakeFrame,
)
from merit.model.effects import Effect, SendAssignment
from merit.model.fleet import Allocation
from merit.model.frames import Hello, Report, ReportStatus
from merit.model.ids import make_id
from merit.model.limits import MILLISECOND_NS, SECOND_NS, Limits
from merit.model.tasks import Demand, TaskSpec, Terms
from merit.model.tenancy import DEFAULT_TENANT
from merit.model.workers import Amount, Offer

RATIO_MAX: Final = 1.3
_WARM_ROUNDS: Final = 50
_FINALS: Final = 1_000
"""Few, so that both fleets hold as many as they ever will from the start."""
_CONCURRENCY: Final = 4
_GRANTED: Final = 8
_BEGIN_NS: Final = 1_700_000_000 * SECOND_NS
_OFFER: Final = Offer("bench.placed", resources=(Amount("cpu", 1_000), Amount("memory", 2_000)))
_ZONES: Final = ("zone-a", "zone-b", "zone-c", "zone-d")
_NEAR: Final = tuple(Terms(demand=Demand(prefers=(zone,))) for zone in _ZONES)


async def run(plan: Plan) -> list[Figure]:
    """Each strategy; ``strategy_scale_ratio`` is the worst."""
    small, large = _Crew(plan.busy_workers), _Crew(plan.idle_workers)
    ratios = {}
    for strategy in BUILT_IN:
        small.choose_by(strategy)
        large.choose_by(strategy)
        rounds = max(1, plan.scale_pair_tasks // plan.busy_workers)
        pairs: list[tuple[float, float]] = []
        gc.collect()
        gc.disable()
        try:
            for turn in range(plan.scale_pairs):
                await asyncio.sleep(0)  # whoever wants to end this is heard
                first, second = (small, large) if turn % 2 else (large, small)
                took_ns = {crew: crew.work(rounds, plan.busy_workers) for crew in (first, second)}
                pairs.append((took_ns[large], took_ns[small]))
        finally:
            gc.enable()
        ratios[strategy] = 1 + cost_pct(pairs) / 100
    return [
        Figure("strategy_scale_ratio", max(ratios.values()), "×", ceiling=RATIO_MAX),
        *(Figure(f"strategy_scale_ratio_{as_name(strategy)}", ratio, "×") for strategy, ratio in ratios.items()),
    ]


class _Crew:
    """A machine with so many workers, all attached."""

    def __init__(self, workers: int) -> None:
        self._machine = Machine(State(), BUILT_IN, Limits(finals_max=_FINALS))
        self._now_ns = _BEGIN_NS
        self._number = 0
        self._granted = dict.fromkeys((f"w{number:05}" for number in range(workers)), _GRANTED)
        self._wall_ns = {name: (1 + number % 7) * MILLISECOND_NS for number, name in enumerate(self._granted)}
        self._handle(StartLeadership(DEFAULT_TENANT, "bench", 1, "bench"))
        for number, name in enumerate(self._granted):
            hello = Hello(
                name,
                "boot",
                1,
                (_OFFER,),
                _CONCURRENCY,
                tags=(_ZONES[number % len(_ZONES)],),
                capacity=(Amount("cpu", 16_000), Amount("memory", 64_000)),
            )
            self._handle(AttachWorker(DEFAULT_TENANT, name, hello, _GRANTED))
        self.work(1, workers)  # each has been given something, by the default

    def choose_by(self, strategy: str) -> None:
        """From now on; and everything is warm."""
        self._handle(SetAllocation(DEFAULT_TENANT, "bench", Allocation("", strategy)))
        self.work(_WARM_ROUNDS, len(_ZONES))

    def work(self, rounds: int, tasks: int) -> float:
        """So many times so many tasks at a time, from submit to result; CPU nanoseconds per task."""
        submits = [self._submit(tasks) for _ in range(rounds)]
        began_ns = time.thread_time_ns()
        for submit in submits:
            self._round(submit)
        return (time.thread_time_ns() - began_ns) / (rounds * tasks)

    def _submit(self, tasks: int) -> SubmitTasks:
        first, self._number = self._number, self._number + tasks
        specs = [
            TaskSpec(
                make_id(self._now_ns, number.to_bytes(10, "big")),
                _OFFER.name,
                terms=_NEAR[number // 2 % len(_NEAR)] if number % 2 else None,
            )
            for number in range(first, self._number)
        ]
        return SubmitTasks(DEFAULT_TENANT, "bench", specs, False)

    def _round(self, submit: SubmitTasks) -> None:
        self._now_ns += MILLISECOND_NS
        self._handle(submit)
        for effect in self._handle(Allocate(DEFAULT_TENANT, "bench", len(submit.tasks))):
            if type(effect) is SendAssignment:
                self._report(effect)
        self._machine.take_payloads()

    def _report(self, given: SendAssignment) -> None:
        worker, item = given.worker, given.assignment
        self._granted[worker] += 1
        report = Report(item.task, item.number, ReportStatus.COMPLETED, wall_ns=self._wall_ns[worker])
        granted = self._granted[worker]
        self._handle(TakeFrame(DEFAULT_TENANT, worker, worker, "boot", 1, [report], [], [], [], granted, False))

    def _handle(self, command: Command) -> list[Effect]:
        return self._machine.handle(command, self._now_ns).effects
