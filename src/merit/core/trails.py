"""Checks the trail of a task with nothing but the trail itself, and the key if it is known: pure functions.

What a trail proves: each of its events stands in the journal of the control plane that has the key, at the place and time
named; together they are the life of the task from its submission on, as far as the trail goes: of attempts that are followed
by others, by completion or by a last failure, none is missing, nor how it ended. What it cannot prove: that nothing has come
after; that what is not always there was not left out: when an attempt was seen to begin (``AttemptStarted``), when a task that
needs others was released; and that a task which was canceled or ran into its deadline had no further attempts before that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from hashlib import sha256
from typing import Any, Final

import msgspec

from merit.core.codec import UnreadableEvent, decode_event
from merit.core.lifecycles import IllegalTransition
from merit.core.recollect import Recollection
from merit.core.retrying import DEADLINE, DEPENDENCY, QUEUE_TIMEOUT
from merit.core.story import story_of_task
from merit.model.events import (
    AttemptAssigned,
    Event,
    ScheduleFired,
    TaskDelayed,
    TaskDied,
    TaskReleased,
    TaskSubmitted,
    WorkerReserved,
)
from merit.model.record import HASH_BYTES, JournalForeign, Record, decode_record, header_hash, verify_proof
from merit.model.tasks import AttemptState, Task, TaskState
from merit.model.trail import Anchor, Trail, TrailRecord, decode_anchor, decode_trail, is_signed

_NOTHING: Final = msgspec.msgpack.encode(())
_IMPOSSIBLE: Final = (
    IllegalTransition,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
)
"""What folding events that no control plane would write may raise."""

_ABOUT_OTHERS: Final = (ScheduleFired, WorkerReserved)
"""They name the task, and are about a schedule or a worker."""


_GOES_ON: Final = (AttemptAssigned, TaskDelayed, TaskDied)
"""They come when no attempt lives."""
_UNTRIED: Final = (TaskState.WAITING, TaskState.PENDING)
_UNTRIED_DIES_OF: Final = (DEADLINE, QUEUE_TIMEOUT, DEPENDENCY)


class TrailInvalid(Exception):
    """The trail does not prove what it says; the message is the first reason."""


class CheckedTrail(msgspec.Struct, frozen=True):
    """What a trail proves: who has the ``keys`` (32 bytes each) says that this is what became of the task."""

    cell: str
    task: Task
    """As it is after the events; without contents that are no longer in the trail."""
    keys: tuple[bytes, ...]
    first_ns: int
    last_ns: int
    """When the first and the last of the events happened, Unix time."""
    events: tuple[tuple[int, int, Event], ...]
    """Sequence in the journal, time in Unix nanoseconds, event."""

    @property
    def story(self) -> list[str]:
        """Lines for people."""
        return story_of_task(self.task, ((time_ns, event) for _, time_ns, event in self.events))


def check_trail(document: bytes, keys: Collection[bytes] = ()) -> CheckedTrail:
    """Verifies a trail: every hash, every path, every signature, and that the events are a legal life.

    Args:
        document: the file.
        keys: Ed25519 public keys, 32 bytes each, one of which each signature has to be of. Without any, compare
            `CheckedTrail.keys` with what the control plane's operator says: anybody can sign with a key of his own.

    Raises:
        TrailInvalid: it does not prove what it says.
    """
    try:
        trail = decode_trail(document)
    except ValueError as error:
        raise TrailInvalid(str(error)) from error
    anchors = _anchors(trail, keys)
    events: list[tuple[int, int, Event]] = []
    times: list[int] = []
    for kept, record in _records(trail, anchors):
        events += _events(trail.task, kept, record)
        times.append(record.time_ns)
    _check_payloads(trail, events)
    task = _life(trail, events)
    signed_with = tuple(sorted({anchor.key for anchor in trail.anchors}))
    return CheckedTrail(trail.cell, task, signed_with, min(times), max(times), tuple(events))


def _anchors(trail: Trail, keys: Collection[bytes]) -> list[Anchor]:
    anchors = []
    for number, signed in enumerate(trail.anchors):
        try:
            anchor = decode_anchor(signed.data)
        except ValueError as error:
            raise TrailInvalid(f"anchor {number}: {error}") from error
        if not is_signed(signed):
            raise TrailInvalid(f"anchor {number}: the signature is not that of its key over it")
        if keys and signed.key not in keys:
            raise TrailInvalid(f"anchor {number}: it is signed with another key, {signed.key.hex()}")
        if anchor.cell != trail.cell:
            raise TrailInvalid(f"anchor {number}: it is of cell {anchor.cell!r}, not of {trail.cell!r}")
        anchors.append(anchor)
    return anchors


def _records(trail: Trail, anchors: list[Anchor]) -> Iterator[tuple[TrailRecord, Record]]:
    """The records, as their headers have them, once they are proven; in the order of the journal."""
    last = 0
    used: set[int] = set()
    for number, kept in enumerate(trail.records):
        try:
            record = decode_record(kept.header, _NOTHING, _NOTHING)
        except (ValueError, JournalForeign) as error:
            raise TrailInvalid(f"record {number}: {error}") from error
        if not 0 <= kept.anchor < len(anchors):
            raise TrailInvalid(f"record {number}: there is no anchor {kept.anchor}")
        anchor = anchors[kept.anchor]
        used.add(kept.anchor)
        if record.cell != trail.cell:
            raise TrailInvalid(f"record {number}: it is of cell {record.cell!r}, not of {trail.cell!r}")
        if not (anchor.first <= record.first and record.last <= anchor.last):
            raise TrailInvalid(f"record {number}: it is not one of those that its anchor covers")
        if not verify_proof(header_hash(kept.header), kept.index, anchor.count, kept.path, anchor.root):
            raise TrailInvalid(f"record {number}: its hash does not lead to what was signed: it was altered")
        if record.first <= last:
            raise TrailInvalid(f"record {number}: it does not come after the one before")
        last = record.last
        yield kept, record
    if len(used) != len(anchors) or not used:
        raise TrailInvalid("an anchor covers none of the records" if anchors else "it is empty")


def _events(task: str, kept: TrailRecord, record: Record) -> Iterator[tuple[int, int, Event]]:
    place = -1
    if not kept.events:
        raise TrailInvalid(f"the record of sequence {record.first} is there, but none of its events")
    for one in kept.events:
        sequence = record.first + one.index
        if one.index <= place:
            raise TrailInvalid(f"event {sequence}: it does not come after the one before")
        place = one.index
        if not verify_proof(one.data, one.index, record.count, one.path, record.root):
            raise TrailInvalid(f"event {sequence}: it does not lead to the root in its record's header: it was altered")
        try:
            event = decode_event(one.data)
        except UnreadableEvent as error:
            raise TrailInvalid(f"event {sequence}: {error}") from error
        if getattr(event, "task", None) != task:
            raise TrailInvalid(f"event {sequence}: it is not about task {task}")
        yield sequence, record.time_ns, event


def _check_payloads(trail: Trail, events: list[tuple[int, int, Event]]) -> None:
    named = {digest.hex() for _, _, event in events for digest in digests_in(event)}
    for digest, content in trail.payloads.items():
        if sha256(content).hexdigest() != digest:
            raise TrailInvalid(f"the content with the digest {digest[:64]!r} was altered: it has another one")
        if digest not in named:
            raise TrailInvalid(f"no event names the content with the digest {digest}")


def digests_in(event: Event) -> list[bytes]:
    """The digests of payloads that an event names: parameters, a result, a log."""
    return [value for value in msgspec.structs.astuple(event) if isinstance(value, bytes) and len(value) == HASH_BYTES]


def _life(trail: Trail, events: list[tuple[int, int, Event]]) -> Task:
    """The task after its events, which have to be a legal life from the submission on."""
    payloads = {bytes.fromhex(digest): content for digest, content in trail.payloads.items()}
    own = [one for one in events if not isinstance(one[2], _ABOUT_OTHERS)]
    if not own or not isinstance(own[0][2], TaskSubmitted):
        raise TrailInvalid("it does not begin with the submission of the task")
    recollection = Recollection()
    for number, (sequence, time_ns, event) in enumerate(own):
        try:
            if number and isinstance(event, TaskSubmitted):
                raise TrailInvalid(f"event {sequence}: the task was submitted before")
            for task in recollection.tasks():
                _check_goes_on(event, task)
            recollection.take(event, payloads, time_ns)
        except _IMPOSSIBLE as error:
            raise TrailInvalid(
                f"event {sequence}: it cannot have happened after those before it: {_one_line(error)}"
            ) from error
    (task,) = recollection.tasks()
    return task


def _check_goes_on(event: Event, task: Task) -> None:
    """The fold takes it from the machine that an attempt has ended before the task goes on; here it has to be shown.

    Raises `ValueError`: it is not, so that events were left out.
    """
    if isinstance(event, _GOES_ON) and any(attempt.state <= AttemptState.RUNNING for attempt in task.attempts):
        raise ValueError("an attempt has no end, so that events were left out")
    if isinstance(event, TaskReleased) and task.state is not TaskState.WAITING and (task.attempts or not task.after):
        raise ValueError("the task did not wait, so that events were left out")
    if isinstance(event, TaskDied) and task.state in _UNTRIED and event.failure.kind not in _UNTRIED_DIES_OF:
        raise ValueError("no attempt failed before, so that events were left out")


def _one_line(error: Exception) -> str:
    text: Any = str(error) or type(error).__name__
    return str(text).partition("\n")[0]
