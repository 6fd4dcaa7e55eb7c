"""Finds tasks and idempotency keys that the cell has forgotten, in a thread beside the cell.

The read model says what became of a task and at which times; its contents (parameters, result, trails) are in the journal's
records of those times. What the read model does not know yet, or all if there is none, is looked for in the journal: a task's
id holds the time at which it was made, which says where in the journal it can begin; from there on, records are searched for
the id's bytes before any event is decoded. What the read model has forgotten ended before all that it has, and so it was
submitted before that, too: a task whose id is younger needs no search, and that is nearly every one that nobody has.

What is not found counts as new, and is done. So "there is none" is only said when one of the two knows: where the journal no
longer reaches back far enough, and the read model cannot be asked or is behind, there is no answer (`CannotTell`). What both
have let go nobody will ever know: that counts as new, too, but whoever asks for it is told so.
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
from merit.core.recollect import NotRemembered, Recollection, contents_at, give_back
from merit.core.state import KeyEntry, State
from merit.model.events import Event, TaskCanceled, TaskCompleted, TaskDied, TaskSubmitted
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
_ENDS: Final = b"|".join(kind.__name__.encode() for kind in (TaskCompleted, TaskDied, TaskCanceled))
_FATE: Final = re.compile(rb".{2,4}(%b|%b)..(%b)" % (_SUBMITTED, _ENDS, _ID.pattern), re.DOTALL)
"""How an event begins by which a task comes or ends, as MessagePack has it: its kind and the task's id."""
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
            return (await asyncio.to_thread(self._remember, ids))[0] if ids else []

    async def task(self, task_id: str) -> Task:
        """As ``tasks``, one of them. Raises ``NotRemembered`` if it is not."""
        async with self._one_at_a_time:
            tasks, gone = await asyncio.to_thread(self._remember, [task_id])
        if gone:
            reason = "it is so old that it is not remembered any more"
            raise NotRemembered(f"if task {task_id} was ever in this cell, {reason}")
        if not tasks:
            raise NotRemembered(f"there is no task {task_id} in this cell")
        return tasks[0]

    async def outcomes(self, ids: list[str], tenant: str) -> list[Settled]:
        """The outcomes of those that are final and the tenant's own."""
        found = await self.tasks(ids)
        return [_outcome(task) for task in found if task.state.final and task.tenant == tenant]

    async def keys(self, wanted: list[tuple[str, str]]) -> Keys:
        """What idempotency keys stand for, by tenant and key: the task that had it last."""
        async with self._one_at_a_time:
            if not wanted:
                return {}
            since_ns = self._keys_since_ns()
            found = self._live_keys(set(wanted), since_ns)
            if others := [at for at in wanted if at not in found]:
                found |= await asyncio.to_thread(self._search_keys, others, since_ns)
            return found

    def _keys_since_ns(self) -> int:
        """The cell has the keys of all tasks that came after this time, since it forgets the oldest keys first."""
        state = self._state
        oldest = next(iter(state.keys.values()), None) if state is not None else None
        return 2**63 if state is None or oldest is None else oldest.until_ns - state.keys_ns

    def _live_keys(self, asked: set[tuple[str, str]], since_ns: int) -> Keys:
        """Of the tasks that the cell has: also of a final one, whose end the read model may not know yet."""
        found = Keys()
        for task in self._state.tasks.values() if self._state is not None else ():
            if task.submitted_ns > since_ns:
                break
            terms = task.terms
            if terms is not None and (at := (task.tenant, terms.idempotency_key)) in asked:
                parameters = b"" if task.parameters_blob else sha256(task.parameters).digest()
                content = content_digest(task.capability, parameters, task.parameters_blob, task.after)
                found[at] = KeyEntry(task.id, content, 0)
        return found

    def _remember(self, ids: Sequence[str]) -> tuple[list[Task], set[str]]:
        """Those that are remembered, and the ids of those others that may have been there."""
        tasks, gone = self._search(ids)
        if self._has_blob is not None:
            with suppress(BlobError):  # then whoever gets them is told
                for task in tasks:
                    # What was too old and is gone is gone like what the journal has no more.
                    if task.parameters_blob and not self._has_blob(task.parameters_blob):
                        task.parameters_blob = ""
                    if task.result_blob and not self._has_blob(task.result_blob):
                        task.result_blob = ""
        return tasks, gone

    def _search_keys(self, wanted: Sequence[tuple[str, str]], since_ns: int) -> Keys:
        """Of tasks that the cell does not have, and that came by ``since_ns``."""
        known: tuple[int, Keys] | None = self._remembered(lambda model: (model.reached().sequence, model.keys(wanted)))
        reached, found = known or (0, Keys())
        with closing(self._open_reader()) as reader:
            late, ended = _keys_in(_after(reader, reached), set(wanted), since_ns)
            # The read model does not know those yet that came before and have ended since.
            lacking = {at for at in wanted if at not in late and at not in found}
            kept = self._state.tasks if self._state is not None else {}
            unknown = {name for name in ended if lacking and name not in kept}
            found |= _keys_of(reader, unknown, lacking, reached) | late
            # Where the journal begins is asked for after it was read: it may have been compacted meanwhile.
            first = reader.base().next
            if (unknown or reached + 1 < first) and not lacking <= found.keys():
                raise self._cannot_tell(reached, first)
        return found

    def _search(self, ids: Sequence[str]) -> tuple[list[Task], set[str]]:
        known = self._remembered(lambda model: (model.reached().sequence, _in_read_model(model, ids)))
        with closing(self._open_reader()) as reader:
            reached, (tasks, oldest_ns) = known or (0, ([], 0))
            # What has happened to a task since then may be all of it, its end, or, if its id came again, that of another one.
            names = set(ids)
            if known:
                names = {name for _, name, _, _ in _events(_after(reader, reached, _earliest_ns(ids)), names)}
            found = [task for task in tasks if task.id not in names]
            _give_back_contents(reader, found)
            found += _from_journal(reader, names)
            lacking = set(ids) - {task.id for task in found}
            # If the read model has nothing at all, it may have forgotten everything.
            forgotten = {task_id for task_id in lacking - names if not 0 < oldest_ns < _earliest_ns((task_id,))}
            found += _from_journal(reader, forgotten, reached, oldest_ns or 2**63)
            old = _before(reader, lacking - {task.id for task in found})
            self._check_new(reader, reached, old, names)
            return found, old & forgotten

    def _check_new(self, reader: JournalReader, reached: int, old: set[str], names: set[str]) -> None:
        """Raises `CannotTell` if the read model will yet know one of the tasks that may have been in what has left the
        journal: if it was between what the read model has reached and the journal's beginning, or, if the journal has
        something of the task (``names``), all of it but the end, which the read model does not know yet."""
        first = reader.base().next
        if old if reached + 1 < first else old & names:
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


def _in_read_model(model: ReadModelReader, ids: Sequence[str]) -> tuple[list[Task], int]:
    """Those of the tasks that it has; if not all, also when the first ended of all that it has."""
    tasks = [row.task for row in model.tasks(ids)]
    return tasks, model.oldest_ns() if len(tasks) < len(set(ids)) else 0


def _earliest_ns(ids: Collection[str]) -> int:
    """Before this time none of the tasks was submitted."""
    return min(id_time_ns(task_id) for task_id in ids) - _SKEW_NS


def _before(reader: JournalReader, lacking: set[str]) -> set[str]:
    """Those of the tasks that may have been in what has left the journal."""
    first = reader.base().next
    if first == 1 or not lacking:
        return set()
    begins_ns = next((record.time_ns for record in reader.read(first, first)), 2**63)
    return {task_id for task_id in lacking if _earliest_ns((task_id,)) <= begins_ns}


def _after(reader: JournalReader, reached: int, since_ns: int = 0) -> Iterator[Record]:
    """The records with what happened after this event, and not before this time."""
    begin = max(reached + 1, reader.base().next)
    return reader.read(first_since(reader, since_ns, begin) if since_ns else begin)


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


def _from_journal(
    reader: JournalReader, names: set[str], last: int | None = None, submitted_by_ns: int = 2**63
) -> list[Task]:
    """The tasks as far as the journal has them.

    Args:
        reader: of the journal.
        names: the tasks.
        last: nothing has happened to them after this event; None: all is looked at.
        submitted_by_ns: they came no later than this, so that from then on only the ends are wanted of those that did.
    """
    if not names:
        return []
    recollection = Recollection()

    def wanted() -> Iterator[Record]:
        for record in reader.read(first_since(reader, _earliest_ns(names)), last):
            if record.time_ns > submitted_by_ns and all(task.state.final for task in recollection.tasks()):
                return
            yield record

    for record, _, event, payloads in _events(wanted(), names):
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


def _keys_in(records: Iterator[Record], asked: set[tuple[str, str]], since_ns: int) -> tuple[Keys, set[str]]:
    """What the keys stand for by what was submitted in the records; and the tasks that ended there, were not submitted there,
    and may have been by ``since_ns``."""
    found: Keys = {}
    came: set[str] = set()
    ended: set[str] = set()
    for record in records:
        for data in record.events:
            fate = _FATE.match(data)
            if fate is None:
                continue
            name = fate[2].decode()
            if id_time_ns(name) - _SKEW_NS <= since_ns:
                (came if fate[1] == _SUBMITTED else ended).add(name)
            # Looked at before it is decoded: only a submit that has terms, its last field, can have a key.
            if fate[1] == _SUBMITTED and not data.endswith(_NO_TERMS):
                found |= _key_of(decode_event(data), asked)
    return found, ended - came


def _keys_of(reader: JournalReader, names: set[str], asked: set[tuple[str, str]], last: int) -> Keys:
    """What the keys stand for by how these tasks were submitted, none after the event ``last``; those that the journal has no
    more are left in ``names``."""
    found: Keys = {}
    if names:
        begin = first_since(reader, _earliest_ns(names))
        for _, name, event, _ in _events(reader.read(begin, last) if begin <= last else iter(()), names):
            if isinstance(event, TaskSubmitted):
                found |= _key_of(event, asked)
                names.discard(name)
                if not names:
                    break
    return found


def _key_of(event: Event, asked: set[tuple[str, str]]) -> Keys:
    """What a submit says that its key stands for, if that was asked for."""
    if not isinstance(event, TaskSubmitted) or event.terms is None:
        return {}
    at = (event.tenant, event.terms.idempotency_key)
    if at not in asked:
        return {}
    content = content_digest(event.capability, event.parameters, event.parameters_blob, event.after)
    return {at: KeyEntry(event.task, content, 0)}


def first_since(reader: JournalReader, since_ns: int, low: int = 1) -> int:
    """Sequence from which the records that are there are not older than ``since_ns``, by bisection over their times; not
    before the sequence ``low``."""
    high = reader.tail().next
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
