"""Makes the trail of one task, beside the control plane or without it: what proves, offline, what became of the task."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import chain
from typing import Final

import msgspec

from merit.core.codec import decode_event
from merit.core.recollect import Recollection
from merit.core.story import story_of_task
from merit.core.trails import digests_in
from merit.model.events import Event, TaskCanceled, TaskCompleted, TaskSubmitted
from merit.model.ids import id_time_ns
from merit.model.limits import SECOND_NS
from merit.model.record import JournalCorrupt, Record, encode_record, merkle_proof, merkle_root, record_hash
from merit.model.search import TaskRow
from merit.model.trail import TRAIL_FORMAT, SignedAnchor, Trail, TrailEvent, TrailRecord, decode_anchor
from merit.ports.archive import ArchiveReader
from merit.ports.journal import JournalReader
from merit.ports.read_model import Reached, ReadModelReader
from merit.ports.signer import Signer
from merit.runtime.anchoring import Anchoring
from merit.runtime.task_finder import first_since
from merit.storage.history import History

_SKEW_NS: Final = 3600 * SECOND_NS
"""How far a client's clock may be ahead of the control plane's, or that have been set back, for a task to be found."""


class TrailMissing(LookupError):
    """There is no trail of this task; the message says why."""


class _Found(msgspec.Struct):
    """A record with events of the task, and those of its payloads that they name."""

    record: Record
    digest: bytes
    events: tuple[TrailEvent, ...]
    payloads: dict[str, bytes]


def export_trail(
    task: str, journal: JournalReader, archive: ArchiveReader, signer: Signer, read_model: ReadModelReader | None
) -> Trail:
    """The trail of a task as it is now.

    Args:
        task: its id.
        journal, archive: where its events are.
        signer: signs what is not anchored yet; not asked otherwise.
        read_model: says when it was submitted and when it ended, if it knows; None: its id has to do.

    Raises:
        TrailMissing: nothing is known of it, or no longer.
        JournalError, ArchiveUnavailable, ReadModelUnavailable: something cannot be read.
        SignerUnavailable: the key is needed, and not there.
    """
    history = History(journal, archive)
    found, events = _search(task, history, read_model)
    anchors = _Anchors(history, archive, signer, found)
    records = tuple(anchors.proven(one) for one in found)
    payloads = {digest: content for one in found for digest, content in one.payloads.items()}
    story = _story(events, payloads)
    return Trail(TRAIL_FORMAT, history.cell, task, story, tuple(anchors.signed), records, payloads)


def _search(
    task: str, history: History, read_model: ReadModelReader | None
) -> tuple[list[_Found], list[tuple[int, Event]]]:
    """The records with its events, and the events, each with its time."""
    reached = Reached() if read_model is None else read_model.reached()  # first: the row is not older than that
    rows: list[TaskRow] = [] if read_model is None else read_model.tasks([task])
    known = [rows[0].submitted_ns] if rows else []
    found: list[_Found] = []
    for since_ns in (*known, id_time_ns(task), id_time_ns(task) - _SKEW_NS):
        begin = first_since(history, since_ns)
        # Of a task that has ended all is known up to where the read model is; what comes after that is still looked at.
        parts = [(begin, rows[0].sequence), (reached.sequence + 1, None)] if rows else [(begin, None)]
        found = []
        events: list[tuple[int, Event]] = []
        for record in chain.from_iterable(history.read(first, last) for first, last in parts):
            if found and record.first <= found[-1].record.first:
                continue
            if (one := _of_task(task, record, events)) is not None:
                found.append(one)
                if isinstance(events[-1][1], TaskCompleted | TaskCanceled):
                    break
        # Otherwise its id was made by a clock that was ahead.
        if any(isinstance(event, TaskSubmitted) for _, event in events):
            return found, events
    if found:
        raise TrailMissing(f"there is no trail of task {task}: its submission is older than what is kept")
    begins = history.base().next
    raise TrailMissing(
        f"there is no trail of task {task}: journal and archive, which begin with event {begins:,}, do not have its submission"
    )


def _of_task(task: str, record: Record, events: list[tuple[int, Event]]) -> _Found | None:
    """What a record says of the task; its events are added to `events`."""
    name = task.encode()
    kept: list[TrailEvent] = []
    named: set[bytes] = set()
    for index, data in enumerate(record.events):
        # Looked at before it is decoded: nearly all are about others.
        if name in data and getattr(event := decode_event(data), "task", None) == task:
            kept.append(TrailEvent(index, data, merkle_proof(record.events, index)))
            events.append((record.time_ns, event))
            named.update(digests_in(event))
    if not kept:
        return None
    contents = {sha256(content).digest(): content for content in record.payloads} if named else {}
    payloads = {digest.hex(): contents[digest] for digest in named if digest in contents}
    return _Found(record, record_hash(record), tuple(kept), payloads)


def _story(events: list[tuple[int, Event]], payloads: dict[str, bytes]) -> tuple[str, ...]:
    recollection = Recollection()
    contents = {bytes.fromhex(digest): content for digest, content in payloads.items()}
    for time_ns, event in events:
        recollection.take(event, contents, time_ns)
    return tuple(line for task in recollection.tasks() for line in story_of_task(task, events))


class _Anchors:
    """Leads records to anchors: to those that are stored, and to others made for this trail where there are none yet."""

    def __init__(self, history: History, archive: ArchiveReader, signer: Signer, found: list[_Found]) -> None:
        self._history = history
        self._archive = archive
        self._signer = signer
        self._last_needed = found[-1].record.last
        self._own: list[SignedAnchor] = []
        self.signed: list[SignedAnchor] = []
        """Those of the trail."""
        self._hashes: list[bytes] = []
        """Of the records under the last of them."""

    def proven(self, found: _Found) -> TrailRecord:
        """A record that comes after those before, with its path."""
        record = found.record
        if not self.signed or decode_anchor(self.signed[-1].data).last < record.first:
            self._begin(self._covering(record))
        index = self._hashes.index(found.digest) if found.digest in self._hashes else -1
        if index < 0:
            raise JournalCorrupt(record.cell, record.first, "it is not what was anchored: the journal was altered")
        path = merkle_proof(self._hashes, index)
        return TrailRecord(encode_record(record)[0], len(self.signed) - 1, index, path, found.events)

    def _covering(self, record: Record) -> SignedAnchor:
        for signed in (*self._archive.anchors(record.first, record.first), *self._own):
            if decode_anchor(signed.data).last >= record.first:
                return signed
        self._own = list(self._made(record))
        return self._covering(record)

    def _made(self, record: Record) -> Iterator[SignedAnchor]:
        """Anchors over what comes after the last one that is stored, for this trail alone."""
        last = self._archive.last_anchor()
        if last is not None and decode_anchor(last.data).first > record.first:
            last = None  # it is older than the first anchor
        anchoring = Anchoring(last, self._signer)
        for one in self._history.read(anchoring.anchored + 1 if last is not None else record.first, self._last_needed):
            if (signed := anchoring.take(one)) is not None:
                yield signed
        if (signed := anchoring.flush()) is not None:
            yield signed

    def _begin(self, signed: SignedAnchor) -> None:
        anchor = decode_anchor(signed.data)
        self._hashes = []
        for record in self._history.scan(max(anchor.first, self._history.base().next), anchor.last):
            if isinstance(record, JournalCorrupt):
                raise record
            self._hashes.append(record_hash(record))
        if len(self._hashes) < anchor.count and anchor.first < self._history.base().next:
            raise TrailMissing(
                f"the trail cannot be proven any more: of the records from {anchor.first:,} on, which were anchored together, "
                f"those before {self._history.base().next:,} are no longer kept"
            )
        if merkle_root(self._hashes) != anchor.root:
            reason = (
                "the records are not those that were anchored: the journal was altered; merit journal verify says more"
            )
            raise JournalCorrupt(anchor.cell, anchor.first, reason)
        self.signed.append(signed)
