"""What the shell of a simulated cell does for it: it has things looked up, and works out when schedules are due."""

from __future__ import annotations

from merit.core.state import KeyEntry
from merit.kernel.kernel import Kernel
from merit.kernel.waiting import Lookup
from merit.lab.memory import SimulatedMemory
from merit.model.frames import Settled
from merit.model.limits import MILLISECOND_NS
from merit.model.schedules import Missed, Schedule
from merit.runtime.task_finder import CannotTell, TaskFinder
from merit.storage.memory_journal import MemoryDisk, MemoryJournal

Found = tuple[list[Settled], dict[tuple[str, str], KeyEntry]]
"""Outcomes of tasks, and what idempotency keys stand for."""
AHEAD = 3
"""Times to come that are worked out at once."""
MADE_UP_MAX = 5
"""Missed times of a schedule that are made up for: few, since these clocks jump often."""


async def look_up(lookup: Lookup, kernel: Kernel, disk: MemoryDisk, memory: SimulatedMemory | None) -> Found | str:
    """What is found, as ``merit.runtime.cell`` has it looked for: in the journal, and in the read model if there is one; or why
    that cannot be told just now."""
    if memory is not None:
        finder = memory.finder(kernel)
    else:
        finder = TaskFinder(lambda: MemoryJournal(disk), state=kernel.machine.state)
    try:
        outcomes = await finder.outcomes(lookup.tasks, lookup.end.tenant) if lookup.tasks else []
        return outcomes, await finder.keys(lookup.keys)
    except CannotTell as error:
        return str(error)


def times_of(schedule: Schedule, after_ns: int, now_ns: int) -> tuple[int, ...]:
    """As ``merit.runtime.cron_planner.plan`` has it: those of the missed ones that count, then a few to come."""
    every_ns = int(schedule.cron) * MILLISECOND_NS
    passed = range((after_ns // every_ns + 1) * every_ns, now_ns + 1, every_ns)
    count_max = MADE_UP_MAX if schedule.missed is Missed.ALL else 1
    first_ns = (max(after_ns, now_ns) // every_ns + 1) * every_ns
    return (*passed[-count_max:], *(first_ns + index * every_ns for index in range(AHEAD)))
