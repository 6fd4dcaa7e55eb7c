"""Direct: the worker that was named. The line of such tasks has no other, so there is nothing to compare."""

from __future__ import annotations

from merit.allocation.ranked import Key, Ranked
from merit.allocation.strategy import Candidate


class Direct(Ranked):
    """See the module. Where there are several all the same, the first by id gets everything as long as it has room."""

    def key(self, candidate: Candidate) -> Key:
        return (candidate.worker,)
