"""Both ends of the session that a driver has with the cell in place of its worker."""

from __future__ import annotations

from collections.abc import Iterable

from merit.model.frames import AttemptRef
from merit.session.cell_end import CellEnd
from merit.session.worker_end import WorkerEnd


class UnaryEnd(WorkerEnd):
    """A worker's end without prefetching, since the worker has no queue: it holds what it has room for, and nothing while it
    is not to be reached."""

    open = False

    @property
    def target(self) -> int:
        """Attempts to hold at a time."""
        return self.concurrency if self.open else 0

    def take_up(self, ref: AttemptRef, *, begun: bool) -> None:
        """The worker has this from before the control plane was started."""
        self._held[ref.task, ref.number] = begun


class DialledEnd(CellEnd):
    """The cell's end of such a session. What operators have a worker told is not said on it: a driver may end with its
    process, and so has nothing that only the worker can acknowledge. The registry tells it, in answers to heartbeats."""

    def tell(self, words: Iterable[str]) -> None:
        """Nothing: see the class."""
