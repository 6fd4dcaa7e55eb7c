"""The follower: folds a cell's journal once more, beside the cell, and makes of it what the cell need not wait for.

These are the read model, in which final tasks are found; snapshots, from which a start goes on; anchors, which prove what
happened; and the archive, into which what is old goes. All of it can be lost or be behind without harm to the cell: it is made
from the journal, and everything that it has to know after a restart is read from what it has made.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Final

from msgspec import Struct

from merit.app.restore import NoBeginning, beginning, check_follows
from merit.app.retaining import Retaining, Within
from merit.app.snapshotting import Snapshotting
from merit.app.sweeping import Sweeping
from merit.core.codec import decode_state, encode_state, fold
from merit.core.projecting import Projection
from merit.core.state import State
from merit.model.limits import SECOND_NS
from merit.model.record import JournalCorrupt, Record, record_hash
from merit.model.retention import Retention
from merit.model.trail import SignedAnchor
from merit.ports.archive import Archive, ArchiveUnavailable
from merit.ports.blobs import Blobs
from merit.ports.journal import JournalCompacted, JournalReader
from merit.ports.read_model import Portion, Reached, ReadModel, Superseded
from merit.ports.signer import Signer, SignerUnavailable
from merit.ports.snapshots import SnapshotStore
from merit.runtime.anchoring import Anchoring

log = logging.getLogger("merit")

SNAPSHOT_EVENTS: Final = 250_000
"""A snapshot is taken when this many events have come since the last one; a look at the past folds no more than these."""
PORTION_EVENTS: Final = 20_000
"""About so many events go into the read model at once, if there are so many."""
SNAPSHOT_EVENTS_AT_END: Final = 10_000
"""With so many an orderly end is worth a snapshot."""
_SNAPSHOTS_PER_KEEP: Final = 8
"""A snapshot is also taken when the last one is older than this part of the time for which the journal is kept: it is only
ever compacted up to one."""
_JOBS_MAX: Final = 2
"""Portions and snapshots that wait for the disk while the next one is made."""
_LOOK_S: Final = 60.0
_LOOKS_PER_HORIZON: Final = 10
_ANCHOR_NS: Final = 600 * SECOND_NS
"""What has happened is anchored within this time, however little it is; not more often, since anchors stay for ever."""
_FORGET_MAX: Final = 10_000
_FORGET_PARTS: Final = 64
"""Of the time between the oldest row and the audit horizon, so much goes at once while there are too many rows: what ended
first goes first, to about this part."""
_NO_ANCHORS: Final = (ArchiveUnavailable, SignerUnavailable, JournalCorrupt, ValueError)
"""Because of which nothing is anchored: also a journal, or an archive, that does not fit the anchors there are."""


class FollowerOrders(Struct, frozen=True, kw_only=True):
    """What a follower is told. ``hurry``: it is far behind, and takes its share of the processors until it is not."""

    retention: Retention = Retention()
    snapshot_events: int = SNAPSHOT_EVENTS
    hurry: bool = False


class FollowerReport(Struct, frozen=True):
    """How far a follower is: a line of what it says."""

    sequence: int
    """Up to which the read model knows everything."""
    time_ns: int
    """Of the event with this sequence."""
    snapshot: int
    """Sequence of the latest snapshot."""
    anchored: int
    journal_first: int
    compact: int
    """All before this sequence may leave the journal."""
    hurries: bool
    """It takes its share of the processors; otherwise it runs only when nobody else wants them."""
    alarms: dict[str, str]
    """By what they are about."""


class JournalFollower:
    """``begin``, then ``step`` for ever, then ``end``; all in one thread.

    Args:
        reader: of the journal.
        snapshots, archive, read_model: what is kept; written by no other process.
        signer: signs the anchors.
        orders: what it is told.
        clock: Unix time in nanoseconds.
        blobs: of which those go that nobody needs any more; None: there are none.

    All methods raise what the ports raise when they cannot go on: whoever runs it begins anew with another one.
    """

    def __init__(
        self,
        reader: JournalReader,
        snapshots: SnapshotStore,
        archive: Archive,
        read_model: ReadModel,
        signer: Signer,
        orders: FollowerOrders,
        clock: Callable[[], int] = time.time_ns,
        blobs: Blobs | None = None,
    ) -> None:
        self._reader = reader
        self._snapshots = snapshots
        self._archive = archive
        self._read_model = read_model
        self._signer = signer
        self._retention = retention = orders.retention
        self._snapshot_events = orders.snapshot_events
        self._clock = clock
        self._snapshotting = Snapshotting(snapshots, retention.snapshots_bytes_max)
        self._retaining = Retaining(reader, self._snapshotting, archive, retention, self._now_ns)
        self._sweeping = Sweeping(blobs, retention.journal_keep_s, clock) if blobs is not None else None
        self._anchoring: Anchoring | None = None
        self._alarms: dict[str, str] = {}
        self._projection = Projection(State())
        self._records: Iterator[Record] | None = None
        self._expected = b""
        """Hash of the record that the first one has to follow."""
        self._last: Record | None = None
        self._reached = Reached()
        self._snapshot = max(self._snapshotting.stored, default=0)
        self._snapshot_at_ns = clock()
        self._journal_first = 1
        self._forgets = False
        self._missing_until_ns = 0
        """Before this time tasks ended that the read model will never have; 0: there are none."""
        self._look_at_ns = 0
        self._anchor_at_ns = clock() + _ANCHOR_NS
        self._look_ns = round(min(_LOOK_S, retention.audit_horizon_s / _LOOKS_PER_HORIZON) * SECOND_NS)
        self._jobs: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(1, "merit-follower")

    @property
    def sequence(self) -> int:
        """The last event that was folded."""
        return self._projection.state.sequence

    def begin(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Fold up to where the read model is.

        Args:
            stopping: asked now and then whether to leave it at that.
        """
        reached = self._read_model.reached()
        if reached.sequence >= self._reader.tail().next:
            log.warning(
                "what can be searched is of another journal, or of one that was longer: it is made anew from what the journal "
                "still has"
            )
            self._read_model.clear()
            reached = Reached()
        state, self._expected = self._beginning(reached)
        self._reached = self._read_model.reached()
        self._projection = Projection(state)
        self._anchor_from_archive()
        if state.sequence < self._reached.sequence:
            for record in self._reader.read(state.sequence + 1, self._reached.sequence):
                if stopping():
                    return
                self._check(record)
                fold(state, record)
                self._seen(record)

    def step(self) -> bool:
        """Go on by a portion at most. Whether there is more to do at once."""
        more = self._fold_portion()
        if self._is_snapshot_due():
            self._take_snapshot()
        now_ns = self._clock()
        if not self._look_at_ns - self._look_ns <= now_ns < self._look_at_ns:  # it is time, or the clock was set back
            self._look_at_ns = now_ns + self._look_ns
            self._look()
        anchored = self._anchoring.anchored if self._anchoring is not None else 0
        more |= self._retaining.turn(Within(anchored, self._reached.sequence))
        if self._forgets:
            self._forgets = False
            self._hand_over(self._forget)
        if self._sweeping is not None and self._sweeping.more:
            self._sweeping.more = False
            self._hand_over(self._sweeping.turn)
        return more

    def end(self) -> None:
        """Go on by a last portion, which nearly always is all that there is, and store it; and a snapshot if that spares the
        next start much."""
        self._fold_portion()
        if self._last is not None and self.sequence - self._snapshot >= min(
            self._snapshot_events, SNAPSHOT_EVENTS_AT_END
        ):
            self._take_snapshot()
        self._anchor_now()
        self._thread.shutdown()
        while self._jobs:
            self._jobs.popleft().result()

    def report(self, hurries: bool = False) -> FollowerReport:
        """How far it is now."""
        while self._jobs and self._jobs[0].done():
            self._jobs.popleft().result()
        if self._retaining.compact > self._journal_first:
            self._journal_first = self._reader.base().next
        return FollowerReport(
            self._reached.sequence,
            self._reached.time_ns,
            self._snapshotting.stored[-1] if self._snapshotting.stored else 0,
            self._anchoring.anchored if self._anchoring is not None else 0,
            self._journal_first,
            self._retaining.compact,
            hurries,
            {**self._alarms, **self._retaining.alarms, **(self._sweeping.alarms if self._sweeping is not None else {})},
        )

    # Where to begin

    def _beginning(self, reached: Reached) -> tuple[State, bytes]:
        """A state that is not ahead of the read model, or, where nothing is left of what is between, the first one that is."""
        try:
            return beginning(self._reader, self._snapshots, reached.sequence)
        except (JournalCompacted, NoBeginning):
            first = self._reader.base().next
            for sequence in self._snapshotting.stored:
                if sequence < max(first - 1, reached.sequence):
                    continue
                snapshot = self._snapshots.latest(sequence)
                if snapshot is None or snapshot.sequence != sequence:
                    continue
                try:
                    state = decode_state(snapshot.data, snapshot.fold_version)
                except ValueError:
                    continue
                # The record behind the snapshot; the last one, which always stays, if there is none.
                at = min(sequence + 1, self._reader.tail().next - 1)
                time_ns = next(iter(self._reader.read(at, at))).time_ns
                self._read_model.write(Portion(reached.sequence, Reached(sequence, time_ns)))
                self._is_missing(reached, time_ns)
                return state, snapshot.record_hash
            raise

    def _is_missing(self, reached: Reached, until_ns: int) -> None:
        """What the read model lacks from ``reached`` on has left the journal."""
        self._missing_until_ns = until_ns
        since = f" and after {_utc(reached.time_ns)}" if reached.time_ns else ""
        self._alarms["missing"] = (
            f"tasks that ended before {_utc(until_ns)}{since} cannot be found by search, since the read model was lost or left "
            "behind, and the journal does not reach back to them any more; a client that submits one of them once more has it "
            "run once more. Their trails can still be exported. To have them back, stop the control plane and restore the read "
            "model from a copy"
        )

    def _check(self, record: Record) -> None:
        if self._expected:
            check_follows(record, self._projection.state, self._expected)
            self._expected = b""

    # Folding

    def _fold_portion(self) -> bool:
        """Fold and project until a portion is full or the journal ends. Whether there may be more."""
        projection = self._projection
        state, before = projection.state, projection.state.sequence
        if self._records is None:
            self._records = iter(self._reader.read(before + 1))
        more = False
        for record in self._records:
            self._check(record)
            projection.fold(record)
            self._seen(record)
            if state.sequence - before >= PORTION_EVENTS:
                more = True
                break
        if not more:
            self._records = None
        if state.sequence > before and self._last is not None:
            tasks, workers = projection.take()
            until = Reached(state.sequence, self._last.time_ns)
            self._hand_over(partial(self._write, Portion(before, until, tasks, workers)))
        return more

    def _seen(self, record: Record) -> None:
        self._last = record
        if self._anchoring is not None:
            try:
                self._keep_anchor(self._anchoring.take(record))
            except _NO_ANCHORS as error:
                self._cannot_anchor(error)

    def _hand_over(self, job: Callable[[], None]) -> None:
        """Have something done in the thread, in its turn; raises what one before it raised.

        Nothing is done behind what failed, nor once another follower is at work: it would be done by what is known no more,
        and a snapshot be let go to which the journal is compacted.
        """
        while len(self._jobs) >= _JOBS_MAX:
            self._jobs.popleft().result()
        before = self._jobs[-1] if self._jobs else None

        def in_turn() -> None:
            if before is not None:
                before.result()
            if (reached := self._read_model.reached()) != self._reached:
                raise Superseded(
                    f"the read model is at {reached.sequence:,}, and not at {self._reached.sequence:,}: another follower is at work"
                )
            job()

        self._jobs.append(self._thread.submit(in_turn))

    def _write(self, portion: Portion) -> None:
        self._read_model.write(portion)
        self._reached = portion.until

    # Snapshots

    def _is_snapshot_due(self) -> bool:
        new = self.sequence - self._snapshot
        if self._last is None or new <= 0:
            return False
        keep_ns = round(self._retention.journal_keep_s * SECOND_NS)
        age_ns = abs(self._clock() - self._snapshot_at_ns)
        return new >= self._snapshot_events or age_ns >= keep_ns // _SNAPSHOTS_PER_KEEP

    def _take_snapshot(self) -> None:
        assert self._last is not None
        self._snapshot, self._snapshot_at_ns = self.sequence, self._clock()
        data = encode_state(self._projection.state)
        self._hand_over(
            partial(self._snapshotting.save, self._snapshot, record_hash(self._last), data, self._journal_first)
        )

    # Keeping and forgetting

    def _now_ns(self) -> int:
        """The present, but not later than the last record that was folded: ages are counted up to that, so that a clock which
        is far ahead makes nothing old."""
        return min(self._clock(), self._last.time_ns if self._last is not None else self._reached.time_ns)

    def _look(self) -> None:
        first = self._reader.base().next
        if first != self._journal_first:
            self._journal_first = first
            self._hand_over(partial(self._snapshotting.thin, first))
        self._retaining.look()
        if self._missing_until_ns < self._now_ns() - round(self._retention.trails_keep_s * SECOND_NS):
            self._alarms.pop("missing", None)  # by now they would have been forgotten anyway
        if self._sweeping is not None:
            self._sweeping.look(self._projection.state, self._now_ns())
        if self._anchoring is None:
            self._anchor_from_archive()
            self._anchor_now()
        elif self._retaining.target > self._anchoring.anchored or self._clock() >= self._anchor_at_ns:
            # There is too little going on for an anchor to become due by itself.
            self._anchor_now()
        self._forgets = True

    def _forget(self) -> None:
        """In the thread, like all that changes the read model."""
        retention, now_ns, model = self._retention, self._now_ns(), self._read_model
        count = model.forget(now_ns - round(retention.trails_keep_s * SECOND_NS), _FORGET_MAX)
        size = model.size_bytes()
        if count >= _FORGET_MAX:
            self._forgets = True
            return
        if size <= retention.search_bytes_max:
            self._alarms.pop("search", None)
            return
        oldest_ns, horizon_ns = model.oldest_ns(), now_ns - round(retention.audit_horizon_s * SECOND_NS)
        if 0 < oldest_ns < horizon_ns:
            # Time by time and portion by portion, so that no more goes than has to.
            part_ns = max((horizon_ns - oldest_ns) // _FORGET_PARTS, self._look_ns)
            self._forgets = model.forget(min(oldest_ns + part_ns, horizon_ns), _FORGET_MAX) > 0
            return
        self._alarms["search"] = (
            f"the read model has {size:,} bytes, more than the {retention.search_bytes_max:,} that it may have (--search-max), "
            f"and all that is left is younger than {retention.audit_horizon_s:,.0f} s (--audit-horizon), within which nothing is "
            "removed: set one of the two anew, and make space"
        )

    # Anchors

    def _anchor_from_archive(self) -> None:
        """Go on behind the last anchor: what the journal has between that and the state is taken in now."""
        try:
            anchoring = Anchoring(self._archive.last_anchor(), self._signer)
            # Asked for now, so that a key that is missing is known of, or made, before it is needed.
            log.info("anchors are signed with the key %s", self._signer.public_key.hex())
            begin = max(anchoring.anchored + 1, self._reader.base().next)
            records = self._reader.read(begin, self.sequence) if begin <= self.sequence else ()
            for record in records:
                self._keep_anchor(anchoring.take(record))
            self._anchoring = anchoring
        except _NO_ANCHORS as error:
            self._cannot_anchor(error)

    def _anchor_now(self) -> None:
        """What has come since the last anchor, however little it is."""
        if self._anchoring is None:
            return
        try:
            self._keep_anchor(self._anchoring.flush())
        except _NO_ANCHORS as error:
            self._cannot_anchor(error)

    def _keep_anchor(self, anchor: SignedAnchor | None) -> None:
        if anchor is not None:
            self._archive.add_anchor(anchor)
            self._anchor_at_ns = self._clock() + _ANCHOR_NS
            self._alarms.pop("anchors", None)

    def _cannot_anchor(self, error: Exception) -> None:
        """That is tried again at the next look; all else goes on."""
        self._anchoring = None
        self._alarms["anchors"] = (
            f"nothing is anchored, so that trails cannot be proven and the journal is not compacted: {error}"
        )


def _utc(time_ns: int) -> str:
    """A moment for people, to the second."""
    return datetime.fromtimestamp(time_ns // SECOND_NS, UTC).isoformat()
