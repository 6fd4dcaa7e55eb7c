"""What the shell of a simulated cell does for it: it searches the journal, and works out when schedules are due."""

from __future__ import annotations

from hashlib import sha256

from merit.core.apply import content_digest
from merit.core.codec import decode_event
from merit.core.recollect import Recollection
from merit.core.state import KeyEntry
from merit.kernel.waiting import Lookup
from merit.model.events import TaskSubmitted
from merit.model.frames import Settled, settled
from merit.model.limits import MILLISECOND_NS
from merit.model.schedules import Missed, Schedule
from merit.storage.memory_journal import MemoryJournal

AHEAD = 3
"""Times to come that are worked out at once."""
MADE_UP_MAX = 5
"""Missed times of a schedule that are made up for: few, since these clocks jump often."""


def search(journal: MemoryJournal, lookup: Lookup) -> tuple[list[Settled], dict[tuple[str, str], KeyEntry]]:
    """What the shell finds in the journal."""
    recollection = Recollection()
    names, wanted = set(lookup.tasks), set(lookup.keys)
    keys: dict[tuple[str, str], KeyEntry] = {}
    for record in journal.read():
        payloads = {sha256(payload).digest(): payload for payload in record.payloads}
        for event in map(decode_event, record.events):
            if getattr(event, "task", "") in names:
                recollection.take(event, payloads, record.time_ns)
            if isinstance(event, TaskSubmitted) and event.terms is not None:
                at = (event.tenant, event.terms.idempotency_key)
                if at in wanted:
                    content = content_digest(event.capability, event.parameters, event.parameters_blob, event.after)
                    keys[at] = KeyEntry(event.task, content, 0)
    # Who only asks after tasks hears of those of its own tenant.
    found = [task for task in recollection.tasks() if lookup.again or task.tenant == lookup.end.tenant]
    return [settled(task) for task in found if task.state.final], keys


def times_of(schedule: Schedule, after_ns: int, now_ns: int) -> tuple[int, ...]:
    """As ``merit.runtime.cron_planner.plan`` has it: those of the missed ones that count, then a few to come."""
    every_ns = int(schedule.cron) * MILLISECOND_NS
    passed = range((after_ns // every_ns + 1) * every_ns, now_ns + 1, every_ns)
    count_max = MADE_UP_MAX if schedule.missed is Missed.ALL else 1
    first_ns = (max(after_ns, now_ns) // every_ns + 1) * every_ns
    return (*passed[-count_max:], *(first_ns + index * every_ns for index in range(AHEAD)))
