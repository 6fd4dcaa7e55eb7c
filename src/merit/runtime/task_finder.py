"""Finds tasks and idempotency keys that the cell has forgotten, in a thread beside the cell.

The read model says what became of a task and at which times; its contents (parameters, result, trails) are in the journal's
records of those times. What the read model does not know yet, or all if there is none, is looked for in the journal: a task's
id holds the time at which it was made, which says where in the journal it can begin; from there on, records are searched for
the id's bytes before any event is decoded.

What is not found counts as new, and is done. So "there is none" is only said when one of the two knows: where the journal no
longer reaches back far enough, and the read model cannot be asked or is behind, there is no answer (`CannotTell`).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, suppress
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
from merit.model.record import JournalError, Record
from merit.model.tasks import CONTENTS_GONE, Failure, Task, TaskState
from merit.ports.blobs import BlobError
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


class CannotTell(JournalError):
    """What was asked for may have been there: the journal does not reach back so far any more, and the read model, which
    would know, cannot be asked or is not there yet. To be asked again."""


class TaskFinder:
    """Looks tasks up, one search at a time.

    All methods raise `JournalError`, and `CannotTell` for what would have to be taken for new without being so.

    Args:
        open_reader: opens a reader of the journal; called in the thread that reads.
        open_read_model: opens one of the read model, likewise; None: there is none.
        state: of the cell, whose older live tasks may have keys that it has forgotten; None: not looked at.
        has_blob: whether a large content is still there, by digest; called in the thread; None: they all are. Raises
            ``BlobError``.
    """

    def __init__(
        self,
        open_reader: Callable[[], JournalReader],
        open_read_model: Callable[[], ReadModelReader] | None = None,
        state: State | None = None,
        has_blob: Callable[[str], bool] | None = None,
    ) -> None:
        self._open_reader = open_reader
        self._has_blob = has_blob
        self._open_read_model = open_read_model
        self._state = state
        self._one_at_a_time = asyncio.Lock()
        self._unavailable = ""
        """Why there is no read model to be had."""

    async def tasks(self, ids: Sequence[str]) -> list[Task]:
        """Those of the tasks that are remembered, as they were at last; of a very old one, ``contents_gone`` may hold."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._remember, ids) if ids else []

    async def outcomes(self, ids: list[str], tenant: str) -> list[Settled]:
        """The outcomes of those that are final and the tenant's own."""
        found = await self.tasks(ids)
        return [_outcome(task) for task in found if task.state.final and task.tenant == tenant]

    async def keys(self, wanted: list[tuple[str, str]]) -> Keys:
        """What idempotency keys stand for, by tenant and key: the task that had it last."""
        async with self._one_at_a_time:
            if not wanted:
                return {}
            found = self._live_keys(set(wanted))
            if others := [at for at in wanted if at not in found]:
                found |= await asyncio.to_thread(self._search_keys, others)
            return found

    def _live_keys(self, asked: set[tuple[str, str]]) -> Keys:
        """Of the tasks that the cell has: also of a final one, whose end the read model may not know yet. The cell forgets the
        oldest keys first: of tasks that came after the oldest key which it has, it has forgotten none."""
        state, found = self._state, Keys()
        if state is None:
            return found
        oldest = next(iter(state.keys.values()), None)
        since_ns = 2**63 if oldest is None else oldest.until_ns - state.keys_ns
        for task in state.tasks.values():
            if task.submitted_ns > since_ns:
                break
            terms = task.terms
            if terms is not None and (at := (task.tenant, terms.idempotency_key)) in asked:
                parameters = b"" if task.parameters_blob else sha256(task.parameters).digest()
                content = content_digest(task.capability, parameters, task.parameters_blob, task.after)
                found[at] = KeyEntry(task.id, content, 0)
        return found

    def _remember(self, ids: Sequence[str]) -> list[Task]:
        tasks = self._search(ids)
        if self._has_blob is not None:
            with suppress(BlobError):  # then whoever gets them is told
                for task in tasks:
                    # What was too old and is gone is gone like what the journal has no more.
                    if task.parameters_blob and not self._has_blob(task.parameters_blob):
                        task.parameters_blob = ""
                    if task.result_blob and not self._has_blob(task.result_blob):
                        task.result_blob = ""
        return tasks

    def _search_keys(self, wanted: Sequence[tuple[str, str]]) -> Keys:
        known: tuple[int, Keys] | None = self._remembered(lambda model: (model.reached().sequence, model.keys(wanted)))
        reached, found = known or (0, Keys())
        with closing(self._open_reader()) as reader:
            found.update(_keys_in(_after(reader, reached), set(wanted)))
            # Where the journal begins is asked for after it was read: it may have been compacted meanwhile.
            if any(at not in found for at in wanted) and reached + 1 < (first := reader.base().next):
                raise self._cannot_tell(reached, first)
        return found

    def _search(self, ids: Sequence[str]) -> list[Task]:
        known: tuple[int, list[Task]] | None = self._remembered(
            lambda model: (model.reached().sequence, [row.task for row in model.tasks(ids)])
        )
        with closing(self._open_reader()) as reader:
            reached, tasks = known or (0, [])
            # What has happened to a task since then may be all of it, its end, or, if its id came again, that of another one.
            names = {name for _, name, _, _ in _events(_after(reader, reached), set(ids))} if known else set(ids)
            found = [task for task in tasks if task.id not in names]
            _give_back_contents(reader, found)
            found += _from_journal(reader, names) if names else []
            if lacking := set(ids) - {task.id for task in found}:
                self._check_new(reader, reached, lacking, names)
            return found

    def _check_new(self, reader: JournalReader, reached: int, lacking: set[str], names: set[str]) -> None:
        """Raises `CannotTell` if one of the tasks, which are neither in the journal nor in the read model, may have been in
        what has left the journal: between what the read model has reached and the journal's beginning, or, if the journal has
        something of the task (``names``), all of it but the end, which the read model does not know yet."""
        first = reader.base().next
        doubtful = lacking if reached + 1 < first else lacking & names
        if first == 1 or not doubtful:
            return
        begins_ns = next((record.time_ns for record in reader.read(first, first)), 2**63)
        if min(id_time_ns(task_id) for task_id in doubtful) - _SKEW_NS <= begins_ns:
            raise self._cannot_tell(reached, first)

    def _cannot_tell(self, reached: int, first: int) -> CannotTell:
        known = f"cannot be asked ({self._unavailable})" if self._unavailable else f"has only come to {reached:,}"
        if self._open_read_model is None:
            known = "is missing here"
        return CannotTell(
            f"it may have been in what has left the journal, which begins with event {first:,}, and the read model, which "
            f"would know, {known}: try again; if that goes on, look at the alarms of the follower (merit status)"
        )

    def _remembered(self, question: Callable[[ReadModelReader], tuple[int, Answer]]) -> tuple[int, Answer] | None:
        """The read model's answer; None: there is none to be had, and the journal has to do."""
        if self._open_read_model is None:
            return None
        try:
            with closing(self._open_read_model()) as model:
                answer = question(model)
        except ReadModelUnavailable as error:
            if not self._unavailable:
                log.warning("old tasks and keys are looked for in the whole journal, which takes long: %s", error)
            self._unavailable = str(error)
            return None
        self._unavailable = ""
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
