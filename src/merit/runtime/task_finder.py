"""Finds tasks and idempotency keys that the cell has forgotten, in a thread beside the cell.

The read model says what became of a task and at which times; its contents (parameters, result, trails) are in the journal's
records of those times. What the read model does not know yet, or all if there is none, is looked for in the journal: a task's
id holds the time at which it was made, which says where in the journal it can begin; from there on, records are searched for
the id's bytes before any event is decoded.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from typing import Final, TypeVar

from msgspec.structs import replace

from merit.core.apply import content_digest
from merit.core.codec import decode_event
from merit.core.recollect import Recollection, contents_at, give_back
from merit.core.state import KeyEntry, State
from merit.model.events import Event, TaskSubmitted
from merit.model.frames import Settled, settled
from merit.model.ids import id_time_ns
from merit.model.limits import SECOND_NS
from merit.model.record import Record
from merit.model.tasks import CONTENTS_GONE, Failure, Task, TaskState
from merit.ports.journal import JournalCompacted, JournalReader
from merit.ports.read_model import ReadModelReader, ReadModelUnavailable

log = logging.getLogger("merit")

_ID: Final = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_SUBMITTED: Final = TaskSubmitted.__name__.encode()
_NO_TERMS: Final = b"\x00\xc0"
"""How a submit without terms ends, as MessagePack has it: with no queue time-out, and nothing. Terms themselves may end with
nothing, but never after a zero."""
_SKEW_NS: Final = 3600 * SECOND_NS
"""How far a client's clock may be ahead of the control plane's for its tasks to be found."""
_READ_ON_MAX: Final = 64
"""Records between two wanted times that are read through, rather than looked for where the second one is."""

Answer = TypeVar("Answer")
Keys = dict[tuple[str, str], KeyEntry]
_Found = tuple[Record, str, Event, dict[bytes, bytes]]


class TaskFinder:
    """Looks tasks up; one search at a time, each for as many tasks as were asked for meanwhile.

    Args:
        open_reader: opens a reader of the journal; called in the thread that reads.
        open_read_model: opens one of the read model, likewise; None: there is none.
        state: of the cell, whose older live tasks may have keys that it has forgotten; None: not looked at.
    """

    def __init__(
        self,
        open_reader: Callable[[], JournalReader],
        open_read_model: Callable[[], ReadModelReader] | None = None,
        state: State | None = None,
    ) -> None:
        self._open_reader = open_reader
        self._open_read_model = open_read_model
        self._state = state
        self._one_at_a_time = asyncio.Lock()
        self._said = False
        """That there is no read model to be had."""

    async def tasks(self, ids: Sequence[str]) -> list[Task]:
        """Those of the tasks that are remembered, as they were at last; of a very old one, ``contents_gone`` may hold."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._search, ids) if ids else []

    async def outcomes(self, ids: list[str], tenant: str) -> list[Settled]:
        """The outcomes of those that are final and the tenant's own."""
        found = await self.tasks(ids)
        return [_outcome(task) for task in found if task.state.final and task.tenant == tenant]

    async def keys(self, wanted: list[tuple[str, str]]) -> Keys:
        """What idempotency keys stand for, by tenant and key: the task that had it last."""
        async with self._one_at_a_time:
            if not wanted:
                return {}
            live = self._live_keys(set(wanted))
            return await asyncio.to_thread(self._search_keys, wanted) | live

    def _live_keys(self, asked: set[tuple[str, str]]) -> Keys:
        """Of tasks that are not final. The cell forgets the oldest keys first: of tasks that came after the oldest key which
        it has, it has forgotten none."""
        state, found = self._state, Keys()
        if state is None:
            return found
        oldest = next(iter(state.keys.values()), None)
        since_ns = 2**63 if oldest is None else oldest.until_ns - state.keys_ns
        for task in state.tasks.values():
            if task.submitted_ns > since_ns:
                break
            terms = task.terms
            if terms is not None and (at := (task.tenant, terms.idempotency_key)) in asked and not task.state.final:
                parameters = b"" if task.parameters_blob else sha256(task.parameters).digest()
                content = content_digest(task.capability, parameters, task.parameters_blob, task.after)
                found[at] = KeyEntry(task.id, content, 0)
        return found

    def _search_keys(self, wanted: Sequence[tuple[str, str]]) -> Keys:
        known: tuple[int, Keys] | None = self._remembered(lambda model: (model.reached().sequence, model.keys(wanted)))
        reached, found = known or (0, Keys())
        with closing(self._open_reader()) as reader:
            found.update(_keys_in(_after(reader, reached), set(wanted)))
        return found

    def _search(self, ids: Sequence[str]) -> list[Task]:
        known: tuple[int, list[Task]] | None = self._remembered(
            lambda model: (model.reached().sequence, [row.task for row in model.tasks(ids)])
        )
        with closing(self._open_reader()) as reader:
            if known is None:
                return _from_journal(reader, set(ids))
            reached, tasks = known
            # What has happened to a task since then may be all of it, its end, or, if its id came again, that of another one.
            names = {name for _, name, _, _ in _events(_after(reader, reached), set(ids))}
            found = [task for task in tasks if task.id not in names]
            _give_back_contents(reader, found)
            return found + (_from_journal(reader, names) if names else [])

    def _remembered(self, question: Callable[[ReadModelReader], tuple[int, Answer]]) -> tuple[int, Answer] | None:
        """The read model's answer; None: there is none to be had, and the journal has to do."""
        if self._open_read_model is None:
            return None
        try:
            with closing(self._open_read_model()) as model:
                answer = question(model)
        except ReadModelUnavailable as error:
            if not self._said:
                log.warning("old tasks and keys are looked for in the whole journal, which takes long: %s", error)
            self._said = True
            return None
        self._said = False
        return answer


def _outcome(task: Task) -> Settled:
    outcome = settled(task)
    if task.state is TaskState.COMPLETED and task.contents_gone and not (task.result or task.result_blob):
        # It must not look as if the result were empty.
        return replace(
            outcome, failure=Failure("expired", f"the task is COMPLETED, but {CONTENTS_GONE}", permanent=True)
        )
    return outcome


def _after(reader: JournalReader, reached: int) -> Iterator[Record]:
    """The records with what happened after this event."""
    return reader.read(max(reached + 1, reader.base().next))


def _events(records: Iterator[Record], names: Collection[str]) -> Iterator[_Found]:
    """The events of these tasks, each with its record, the task's name, and the payloads of the record."""
    wanted = {name.encode() for name in names}
    for record in records:
        payloads: dict[bytes, bytes] | None = None
        for data in record.events:
            # One pass over the event, however many are wanted: a client that comes back asks for thousands.
            if wanted.isdisjoint(_ID.findall(data)):
                continue
            if payloads is None:
                payloads = {sha256(payload).digest(): payload for payload in record.payloads}
            event = decode_event(data)
            name: str = getattr(event, "task", "")
            if name in names:
                yield record, name, event, payloads


def _from_journal(reader: JournalReader, names: set[str]) -> list[Task]:
    since_ns = min(id_time_ns(task_id) for task_id in names) - _SKEW_NS
    recollection = Recollection()
    for record, _, event, payloads in _events(reader.read(first_since(reader, since_ns)), names):
        recollection.take(event, payloads, record.time_ns)
    return list(recollection.tasks())


def _give_back_contents(reader: JournalReader, tasks: list[Task]) -> None:
    """Give tasks what the journal still has of their contents."""
    wanted: dict[int, dict[str, Task]] = {}
    for task in tasks:
        for time_ns in contents_at(task):
            wanted.setdefault(time_ns, {})[task.id] = task
    for record in _records_at(reader, sorted(wanted)):
        here = wanted[record.time_ns]
        for _, name, event, payloads in _events(iter((record,)), here):
            give_back(here[name], event, payloads)


def _records_at(reader: JournalReader, times_ns: list[int]) -> Iterator[Record]:
    """The records of exactly these times, which are in order, as far as the journal has them."""
    place = 0
    while place < len(times_ns):
        passed_over = 0
        for record in reader.read(first_since(reader, times_ns[place])):
            while place < len(times_ns) and times_ns[place] < record.time_ns:
                place += 1
            if place == len(times_ns):
                return
            if record.time_ns == times_ns[place]:
                passed_over = 0
                yield record
            else:
                passed_over += 1
                if passed_over == _READ_ON_MAX:
                    break
        else:
            return


def _keys_in(records: Iterator[Record], asked: set[tuple[str, str]]) -> Keys:
    found: Keys = {}
    for record in records:
        for data in record.events:
            # Looked at before it is decoded: only a submit that has terms, its last field, can have a key.
            if _SUBMITTED not in data[: len(_SUBMITTED) + 4] or data.endswith(_NO_TERMS):
                continue
            event = decode_event(data)
            if isinstance(event, TaskSubmitted) and event.terms is not None:
                at = (event.tenant, event.terms.idempotency_key)
                if at in asked:
                    content = content_digest(event.capability, event.parameters, event.parameters_blob, event.after)
                    found[at] = KeyEntry(event.task, content, 0)
    return found


def first_since(reader: JournalReader, since_ns: int) -> int:
    """Sequence from which the records that are there are not older than ``since_ns``, by bisection over their times."""
    low, high = 1, reader.tail().next
    while low < high:
        middle = (low + high) // 2
        try:
            record = next(iter(reader.read(middle, middle)), None)
        except JournalCompacted as gone:
            low = gone.first
            continue
        if record is None or record.time_ns >= since_ns:
            high = middle
        else:
            low = record.last + 1
    return low
