"""What the follower does about snapshots: stores them, lets old ones go, and proves that they can be relied on."""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256
from threading import Lock

from merit.core.codec import FOLD_VERSION, decode_state, encode_state
from merit.model.retention import SNAPSHOTS_KEPT, superfluous
from merit.ports.snapshots import SnapshotStore


class Snapshotting:
    """Used by one process; ``save`` may be called in another thread than the rest.

    Args:
        snapshots: where they are.
        bytes_max: what they may take together.
    """

    def __init__(self, snapshots: SnapshotStore, bytes_max: int) -> None:
        self._snapshots = snapshots
        self._bytes_max = bytes_max
        self._digests: dict[int, bytes] = {}
        """Of the states from which this process made snapshots, by sequence."""
        self._good: dict[int, bool] = {}
        """By sequence of those that were looked at: whether it is what it should be."""
        self.stored = list(snapshots.sequences())
        """The sequences of those that are there, in order."""
        self._stay: Collection[int] = set(self.stored)
        """Those that are not let go for being too many. At first nobody knows to which of them the journal is being compacted."""
        self._thinning = Lock()
        self.bad = ""
        """What is wrong with the last one that was found not to be what it should be; empty: nothing is."""

    def save(self, sequence: int, record_hash: bytes, data: bytes, journal_first: int) -> None:
        """Store a snapshot of the encoded state, and let those go that are not needed any more.

        Args:
            sequence: of the last event in it.
            record_hash: of the record that ends with this event.
            data: the encoded state.
            journal_first: the sequence with which the journal begins.

        Raises:
            SnapshotUnavailable: nothing was stored.
        """
        self._digests[sequence] = sha256(data).digest()
        self._snapshots.save(sequence, FOLD_VERSION, record_hash, data)
        self._good.pop(sequence, None)
        self.thin(journal_first)

    def thin(self, journal_first: int) -> None:
        """Let those go that are not needed any more. Raises `SnapshotUnavailable`."""
        with self._thinning:
            self._snapshots.drop(superfluous(self._snapshots.sequences(), journal_first, self._bytes_max, self._stay))
            self.stored = list(self._snapshots.sequences())
            for known in (self._digests, self._good):
                for gone in known.keys() - set(self.stored):
                    del known[gone]

    def hold(self, sequences: Collection[int]) -> None:
        """From now on these stay as long as the journal does not begin behind them, and only these. What is not in ``stored``
        afterwards had gone before."""
        with self._thinning:
            self._stay = sequences

    def are_verified_from(self, sequence: int) -> bool:
        """Whether so many snapshots as always stay, of this sequence or later, were read back and are what they should be.

        Those of which that is not known yet are read now, the newest first: each takes as long as a start with it, and as
        much memory as the state. Raises `SnapshotUnavailable`.
        """
        count = 0
        for one in reversed(self.stored):
            if one < sequence or count == SNAPSHOTS_KEPT:
                break
            if one not in self._good:
                self._good[one] = self._is_good(one)
            count += self._good[one]
        return count >= SNAPSHOTS_KEPT

    def _is_good(self, sequence: int) -> bool:
        snapshot = self._snapshots.latest(sequence)
        if snapshot is None or snapshot.sequence != sequence:
            if self._snapshots.damaged:  # otherwise it was let go meanwhile
                self.bad = f"a snapshot is damaged: {'; '.join(self._snapshots.damaged)}"
            return False
        if snapshot.fold_version != FOLD_VERSION:
            return False  # nothing is wrong with it, but the next version of Merit may not be able to read it
        try:
            same = encode_state(decode_state(snapshot.data)) == snapshot.data
        except ValueError as error:
            self.bad = f"snapshot {sequence} cannot be read: {error}"
            return False
        if not same or self._digests.get(sequence, digest := sha256(snapshot.data).digest()) != digest:
            self.bad = f"snapshot {sequence} is not the state of which it was made"
            return False
        return True
