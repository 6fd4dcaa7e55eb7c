"""What the follower does so that large contents do not stay for ever.

A blob goes when it was last touched longer ago than the journal keeps contents, and a day, unless the state still names it.
Who names one to the cell has touched it right before (the door sees to that), so that what the state does not know yet is
young. What the state names is touched here twice a day: so a blob stays for its time after the last task that has it was
forgotten, not after that task came.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from merit.core.state import State
from merit.model.limits import SECOND_NS
from merit.model.tenancy import DEFAULT_TENANT
from merit.ports.blobs import BlobMissing, Blobs, BlobUnavailable

SLACK_NS: Final = 24 * 3600 * SECOND_NS
"""How much longer a blob stays than the journal: for what was touched some time before it was named, and clocks that differ."""
_ROUND_NS: Final = SLACK_NS // 2
_SETTLE_NS: Final = 600 * SECOND_NS
"""After a start nothing goes for so long: workers that were alone for days come back with results that they have put."""
_PORTION: Final = 500


class Sweeping:
    """Used by the follower: ``look`` now and then, and as long as there is ``more``, ``turn`` in the thread that writes.

    Args:
        blobs: the cell's.
        keep_s: how long the journal keeps contents.
        clock: Unix time in nanoseconds.
    """

    def __init__(self, blobs: Blobs, keep_s: float, clock: Callable[[], int]) -> None:
        self._blobs = blobs
        self._stay_ns = round(keep_s * SECOND_NS) + SLACK_NS
        self._clock = clock
        self._since_ns = clock()
        self._round_at_ns = 0
        self._named: frozenset[str] = frozenset()
        self._untouched: list[str] = []
        self._before_ns = 0
        self.more = False
        self.alarms: dict[str, str] = {}

    def look(self, state: State, now_ns: int) -> None:
        """Work out anew what may go; ``now_ns`` is the time up to which ``state`` is known."""
        if 0 <= self._clock() - self._since_ns < _SETTLE_NS:
            return
        self._named = named_blobs(state)
        if not self._round_at_ns - _ROUND_NS <= now_ns < self._round_at_ns:
            self._round_at_ns = now_ns + _ROUND_NS
            self._untouched = list(self._named)
        self._before_ns = now_ns - self._stay_ns
        self.more = True

    def turn(self) -> None:
        """A portion: first of what is to stay, then of what is to go."""
        named = self._named
        try:
            touched = self._touch_some()
            self.more = touched or self._blobs.sweep(self._before_ns, lambda _, digest: digest in named, _PORTION) > 0
            self.alarms = {}
        except BlobUnavailable as error:
            self.more = False
            self.alarms = {
                "blobs": f"large contents that are too old are not removed, so that they need more and more room: {error}"
            }

    def _touch_some(self) -> bool:
        untouched = self._untouched
        for digest in untouched[-_PORTION:]:
            with contextlib.suppress(BlobMissing):  # it was lost; whoever needs it is told
                self._blobs.touch(DEFAULT_TENANT, digest)
        some = bool(untouched)
        del untouched[-_PORTION:]
        return some


def named_blobs(state: State) -> frozenset[str]:
    """The digests of all blobs that a task or a schedule has which the state knows, whoever's they are."""
    named: set[str] = set()
    for task in state.tasks.values():
        if task.parameters_blob:
            named.add(task.parameters_blob)
        if task.result_blob:
            named.add(task.result_blob)
        if task.inputs:
            named.update(given.blob for given in task.inputs if given.blob)
    named.update(planned.schedule.template.parameters_blob for planned in state.schedules.values())
    named.discard("")
    return frozenset(named)
