"""Judges what is kept beside the journal: against all records that there ever were, folded once more from the first on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from merit.core.codec import encode_state, fold
from merit.core.projecting import Projection
from merit.core.state import State
from merit.lab.disk import SimulatedDisk
from merit.lab.kept import Kept
from merit.lab.violation import Violation
from merit.model.limits import SECOND_NS
from merit.model.record import Record, merkle_root, record_hash
from merit.model.retention import SNAPSHOTS_KEPT
from merit.model.search import TaskQuery, TaskRow, WorkerQuery, WorkerRow
from merit.model.trail import SignedAnchor, decode_anchor
from merit.ports.read_model import PAGE_MAX, Portion

ALL = 2**62
"""Above every order."""


class MemoryJudge:
    """See the module.

    Args:
        disk: has the journal.
        kept: what is judged.
        clock: of the machine on which all of it happens.
    """

    def __init__(self, disk: SimulatedDisk, kept: Kept, clock: Callable[[], int]) -> None:
        self._disk = disk
        self._kept = kept
        self._clock = clock
        self._projection = Projection(State())
        self._projected = 0
        self._tasks: list[TaskRow] = []
        self._workers: list[WorkerRow] = []
        self._state = State()
        self._reached = 0
        self._begins_with = 0
        """The snapshot up to which the journal was compacted last; 0: none, or it is being compacted further."""
        disk.removing = self._removing

    # What the follower writes

    def written(self, portion: Portion) -> None:
        """A portion has come into the read model."""
        if portion.until.sequence < self._reached:
            message = f"went back from {self._reached} to {portion.until.sequence}"
            raise Violation("read model", "", message)
        self._reached = portion.until.sequence
        self._kept.written(portion)

    def power_cut(self) -> None:
        """The read model may have gone back, as far as to what has left the journal."""
        self._reached = self._kept.read_model.reached().sequence

    def snapshot_saved(self, sequence: int, _version: int, record_hash_: bytes, data: bytes) -> None:
        """A snapshot was taken."""
        if sequence >= self._disk.tail.next:
            raise Violation("snapshots", "", f"one was taken at {sequence}, which is not durable")
        if data != self.state_at(sequence):
            raise Violation("snapshots", "", f"that of {sequence} is not the fold of the journal")
        if record_hash_ != record_hash(self._disk.between(1, sequence)[-1]):
            raise Violation("snapshots", "", f"that of {sequence} names another record")

    def anchored(self, signed: SignedAnchor) -> None:
        """An anchor was stored."""
        anchor = decode_anchor(signed.data)
        hashes = [record_hash(record) for record in self._disk.between(anchor.first, anchor.last)]
        if (len(hashes), merkle_root(hashes), hashes[-1]) != (anchor.count, anchor.root, anchor.last_hash):
            raise Violation(
                "anchors", "", f"that over {anchor.first} to {anchor.last} is not over the records there were"
            )

    def compacted(self) -> None:
        """All that a follower has said that may go has left the journal."""
        self._begins_with = self._disk.base.next - 1
        self.snapshots_dropped()

    def snapshots_dropped(self, *_: Iterable[int]) -> None:
        """Some may have gone; the one with which the journal begins must not."""
        if self._begins_with and self._begins_with not in self._kept.snapshots.sequences():
            raise Violation(
                "compaction", "", f"there is no snapshot of {self._begins_with}, behind which the journal begins"
            )

    def _removing(self, records: Sequence[Record]) -> None:
        """Records are about to leave the journal."""
        last, kept = records[-1].last, self._kept
        self._begins_with = 0
        horizon_ns = self._clock() - round(kept.retention.audit_horizon_s * SECOND_NS)
        held = kept.archive.held()
        snapshots = [kept.snapshots.latest(one) for one in kept.snapshots.sequences() if one >= last]
        good = {snapshot.sequence for snapshot in snapshots if snapshot is not None and snapshot.sequence >= last}
        copies = {record.first: record for record in kept.archive.records(records[0].first, last)}
        for record in records:
            dropped = record.last < held.first
            if not dropped and copies.get(record.first) != replace(record, payloads=()):
                raise Violation("compaction", "", f"record {record.first} was removed and is not archived")
        for wrong, what in (
            (any(record.time_ns >= horizon_ns for record in records), "and is within the audit horizon"),
            (held.last < last, "and is not archived"),
            (held.anchored < last, f"and is anchored up to {held.anchored} only"),
            (kept.read_model.reached().sequence < last, "and is not known to the read model"),
            (len(good) < SNAPSHOTS_KEPT, f"and there are {len(good)} good snapshots behind it"),
        ):
            if wrong:
                raise Violation("compaction", "", f"the record up to {last} was removed {what}")

    # What there should be

    def state_at(self, sequence: int) -> bytes:
        """The fold of the journal up to an event, encoded."""
        if self._state.sequence > sequence:
            self._state = State()
        state = self._state
        for record in self._disk.between(state.sequence + 1, sequence):
            if record.last > sequence:
                # It is looked at in the middle of a record; nothing can follow on that.
                count = sequence - record.first + 1
                fold(state, replace(record, events=record.events[:count], count=count))
                self._state = State()
                break
            fold(state, record)
        return encode_state(state)

    def rows(self, until: int) -> tuple[dict[int, TaskRow], dict[str, WorkerRow]]:
        """What the read model has to know once it has reached an event: tasks by order, workers by name."""
        self._project()
        tasks = {row.order: row for row in self._tasks if row.sequence <= until}
        workers: dict[str, WorkerRow] = {}
        for row in self._workers:
            if row.sequence <= until:
                first_ns = min(row.first_ns, workers[row.worker].first_ns) if row.worker in workers else row.first_ns
                workers[row.worker] = replace(row, first_ns=first_ns)
        return tasks, workers

    def _project(self) -> None:
        for record in self._disk.ever[self._projected :]:
            self._projection.fold(record)
            tasks, workers = self._projection.take()
            self._tasks += tasks
            self._workers += workers
        self._projected = len(self._disk.ever)

    def check_read_model(self) -> None:
        """Compare all that it has with what it should have.

        Raises:
            Violation: it is not that.
        """
        model = self._kept.reader()
        reached = model.reached().sequence
        tasks: dict[int, TaskRow] = {}
        before, more = ALL, True
        while more:
            page = model.find(TaskQuery(), before, PAGE_MAX)
            tasks.update((row.order, row) for row in page.rows)
            before, more = page.before, page.more
        workers = {row.worker: row for row in model.workers(WorkerQuery(), "", PAGE_MAX)}
        wanted_tasks, wanted_workers = self.rows(reached)
        for order in tasks.keys() | wanted_tasks.keys():
            if tasks.get(order) != (wanted := wanted_tasks.get(order)):
                about = wanted.id if wanted is not None else tasks[order].id
                raise Violation("read model", about, f"up to {reached} it has {tasks.get(order)} for {wanted}")
        if workers != wanted_workers:
            raise Violation("read model", "", f"up to {reached} it has {workers} for {wanted_workers}")
