"""The real machine in virtual time, with workers that are nothing but a speed: how long tasks take by its decisions.

What is left out is the way: a word of the control plane is with the worker in no time. A worker here takes one task at a
time and nothing in advance, as a real one does when tasks take longer than a tenth of a second
(``merit.session.worker_end``).
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Final

from merit.allocation.catalogue import BUILT_IN
from merit.core.machine import Machine
from merit.core.state import State
from merit.model.commands import (
    Allocate,
    AttachWorker,
    Command,
    FollowUp,
    SetAllocation,
    StartLeadership,
    SubmitTasks,
    TakeFrame,
)
from merit.model.effects import SendAssignment
from merit.model.fleet import Allocation
from merit.model.frames import Assignment, Hello, Report, ReportStatus
from merit.model.ids import make_id
from merit.model.limits import RUN_TIMEOUT_NS_MAX, SECOND_NS, TIMEOUT_NS_MAX, Limits
from merit.model.tasks import TaskSpec
from merit.model.tenancy import DEFAULT_TENANT
from merit.model.workers import Offer

_CAPABILITY: Final = "bench.work"
_BOOT: Final = "boot"
_BEGIN_NS: Final = 1_700_000_000 * SECOND_NS
_PORTION: Final = 8_192
"""What one command settles at most, as in the kernel."""
_FINALS: Final = 1_000


class VirtualFleet:
    """One run. Time-outs are out of reach, and no clock ticks.

    Args:
        speeds: of the workers.
        strategy: by which the machine chooses among them.
    """

    def __init__(self, speeds: Sequence[float], strategy: str) -> None:
        self._speeds = speeds
        self._machine = Machine(State(), BUILT_IN, Limits(finals_max=_FINALS))
        self._now_ns = _BEGIN_NS
        self._busy: list[tuple[int, int, str, int, int]] = []
        """A heap: when it ends, worker, task, number of the attempt, what it took."""
        self._done = [0] * len(speeds)
        self._work_ns: dict[str, int] = {}
        self._arrived_ns: dict[str, int] = {}
        self._total_ns = 0
        self._handle(StartLeadership(DEFAULT_TENANT, "bench", 1, "bench"))
        self._handle(SetAllocation(DEFAULT_TENANT, "bench", Allocation("", strategy)))
        for number in range(len(speeds)):
            hello = Hello(_name(number), _BOOT, 1, (Offer(_CAPABILITY),), 1)
            self._handle(AttachWorker(DEFAULT_TENANT, hello.worker, hello, 1))
        self._settle()

    def mean_ns(self, arrivals_ns: Sequence[int], work_ns: Sequence[int]) -> float:
        """The mean time from when a task comes until it is done; to be asked once.

        Args:
            arrivals_ns: in order.
            work_ns: of each task, for a worker of speed 1.
        """
        for number, (arrival_ns, work) in enumerate(zip(arrivals_ns, work_ns, strict=True)):
            at_ns = _BEGIN_NS + arrival_ns
            self._finish(at_ns)
            self._now_ns = at_ns
            task = make_id(at_ns, number.to_bytes(10, "big"))
            self._work_ns[task], self._arrived_ns[task] = work, at_ns
            spec = TaskSpec(task, _CAPABILITY, run_timeout_ns=RUN_TIMEOUT_NS_MAX, timeout_ns=TIMEOUT_NS_MAX)
            self._handle(SubmitTasks(DEFAULT_TENANT, "bench", [spec], False))
            self._settle()
        self._finish(None)
        assert not self._work_ns, "every task is given to somebody"
        return self._total_ns / len(work_ns)

    def _finish(self, until_ns: int | None) -> None:
        """Let end what ends by then; None: all."""
        busy = self._busy
        while busy and (until_ns is None or busy[0][0] <= until_ns):
            self._now_ns, number, task, attempt, took_ns = heappop(busy)
            self._total_ns += self._now_ns - self._arrived_ns.pop(task)
            self._done[number] += 1
            worker = _name(number)
            report = Report(task, attempt, ReportStatus.COMPLETED, wall_ns=took_ns)
            granted = self._done[number] + 1
            self._handle(TakeFrame(DEFAULT_TENANT, worker, worker, _BOOT, 1, [report], [], [], [], granted, False))
            self._settle()

    def _settle(self) -> None:
        """End a batch as the kernel does, and begin what was given out."""
        if self._machine.affected:
            self._handle(FollowUp(DEFAULT_TENANT, "bench", _PORTION))
        while self._machine.ready:
            self._handle(Allocate(DEFAULT_TENANT, "bench", _PORTION))
        self._machine.take_payloads()

    def _handle(self, command: Command) -> None:
        for effect in self._machine.handle(command, self._now_ns).effects:
            if type(effect) is SendAssignment:
                self._begin(int(effect.worker), effect.assignment)

    def _begin(self, number: int, item: Assignment) -> None:
        took_ns = round(self._work_ns.pop(item.task) / self._speeds[number])
        heappush(self._busy, (self._now_ns + took_ns, number, item.task, item.number, took_ns))


def _name(number: int) -> str:
    # The order of the names is that of the numbers: so those are told apart who have not been given anything yet.
    return f"{number:06}"
