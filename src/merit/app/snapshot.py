"""Takes a snapshot of a cell from its journal, in a process of its own: ``python -m merit.app.snapshot DIRECTORY``.

It folds what has come since the last snapshot and writes the next one, beside the running cell, which it does not slow:
it runs at the lowest priority, and readers do not block the writer.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from merit.app.restore import restore
from merit.app.state_directory import CELL, StateDirectory
from merit.core.codec import FOLD_VERSION, encode_state
from merit.model.record import record_hash
from merit.storage.file_snapshots import FileSnapshots
from merit.storage.sqlite_reader import open_reader


def take_snapshot(directory: StateDirectory) -> int:
    """Fold the journal to its end and store the state; the sequence of the snapshot.

    Raises:
        JournalError, SnapshotUnavailable: nothing was stored.
    """
    snapshots = FileSnapshots(directory.snapshots)
    with open_reader(directory.journal, CELL) as reader:
        state, last = restore(reader, snapshots)
    if last is not None:
        snapshots.save(state.sequence, FOLD_VERSION, record_hash(last), encode_state(state))
    return state.sequence


def _stand_back() -> None:
    """Run only when nobody else wants the processor: at the usual lowest priority the tail of the cell's latency was four
    times as long while a snapshot was taken on two cores."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


if __name__ == "__main__":
    _stand_back()
    take_snapshot(StateDirectory(Path(sys.argv[1])))
