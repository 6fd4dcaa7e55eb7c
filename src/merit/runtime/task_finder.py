"""Finds tasks and idempotency keys that the cell has forgotten by reading the journal, in a thread beside the cell.

A task's id holds the time at which it was made, which says where in the journal it can begin; from there on, records
are searched for the id's bytes before any event is decoded.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from merit.core.apply import content_digest
from merit.core.codec import decode_event
from merit.core.recollect import Recollection
from merit.core.state import KeyEntry
from merit.model.events import TaskSubmitted
from merit.model.frames import Settled, settled
from merit.model.ids import id_time_ns
from merit.model.limits import SECOND_NS
from merit.model.tasks import Task
from merit.ports.journal import JournalReader

_ID: Final = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_SUBMITTED: Final = TaskSubmitted.__name__.encode()
_NO_TERMS: Final = b"\x00\xc0"
"""How a submit without terms ends, as MessagePack has it: with no queue time-out, and nothing. Terms themselves may end with
nothing, but never after a zero."""
_SKEW_NS: Final = 3600 * SECOND_NS
"""How far a client's clock may be ahead of the control plane's for its tasks to be found."""


class TaskFinder:
    """Looks tasks up; one search at a time, each for as many tasks as were asked for meanwhile.

    Args:
        open_reader: opens a reader of the journal; called in the thread that reads.
    """

    def __init__(self, open_reader: Callable[[], JournalReader]) -> None:
        self._open_reader = open_reader
        self._one_at_a_time = asyncio.Lock()

    async def tasks(self, ids: Sequence[str]) -> list[Task]:
        """Those of the tasks that are in the journal, as they are there."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._search, ids)

    async def outcomes(self, ids: list[str], tenant: str) -> list[Settled]:
        """The outcomes of those that are final and the tenant's own."""
        return [settled(task) for task in await self.tasks(ids) if task.state.final and task.tenant == tenant]

    async def keys(self, wanted: list[tuple[str, str]]) -> dict[tuple[str, str], KeyEntry]:
        """What idempotency keys stand for, by tenant and key: the task that had it last. Reads the whole journal."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._search_keys, wanted) if wanted else {}

    def _search_keys(self, wanted: list[tuple[str, str]]) -> dict[tuple[str, str], KeyEntry]:
        asked = set(wanted)
        found: dict[tuple[str, str], KeyEntry] = {}
        with contextlib.closing(self._open_reader()) as reader:
            for record in reader.read():
                for data in record.events:
                    # Looked at before it is decoded: only a submit that has terms, its last field, can have a key.
                    if _SUBMITTED not in data[: len(_SUBMITTED) + 4] or data.endswith(_NO_TERMS):
                        continue
                    event = decode_event(data)
                    if isinstance(event, TaskSubmitted) and event.terms is not None:
                        at = (event.tenant, event.terms.idempotency_key)
                        if at in asked:
                            content = content_digest(
                                event.capability, event.parameters, event.parameters_blob, event.after
                            )
                            found[at] = KeyEntry(event.task, content, 0)
        return found

    def _search(self, ids: Sequence[str]) -> list[Task]:
        names = set(ids)
        wanted = {name.encode() for name in names}
        since_ns = min(id_time_ns(task_id) for task_id in ids) - _SKEW_NS
        recollection = Recollection()
        reader = self._open_reader()
        try:
            for record in reader.read(first_since(reader, since_ns)):
                payloads: dict[bytes, bytes] | None = None
                for data in record.events:
                    # One pass over the event, however many are wanted: a client that comes back asks for thousands.
                    if wanted.isdisjoint(_ID.findall(data)):
                        continue
                    if payloads is None:
                        payloads = {sha256(payload).digest(): payload for payload in record.payloads}
                    event = decode_event(data)
                    if getattr(event, "task", None) in names:
                        recollection.take(event, payloads, record.time_ns)
        finally:
            reader.close()
        return list(recollection.tasks())


def first_since(reader: JournalReader, since_ns: int) -> int:
    """Sequence from which the records are not older than ``since_ns``, by bisection over the records' times."""
    low, high = 1, reader.tail().next
    while low < high:
        middle = (low + high) // 2
        record = next(iter(reader.read(middle, middle)), None)
        if record is None or record.time_ns >= since_ns:
            high = middle
        else:
            low = record.last + 1
    return low
