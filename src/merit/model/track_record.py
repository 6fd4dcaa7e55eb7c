"""What is kept of how a worker does at a capability: counts over its whole life, and its last attempts one by one.

The fold keeps what has happened, in whole numbers; what is made of it (a score, a reputation) is reckoned by
``merit.supervision`` and ``merit.auditing`` now and then, and comes back in events.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from msgspec import Struct

from merit.model.limits import MILLISECOND_NS, SECOND_NS

WINDOW: Final = 50
"""Attempts that are kept one by one."""
UNSTARTED_NS: Final = 1 * SECOND_NS
"""Longer than this nobody holds an attempt that he has not begun: he would have handed it back."""
STARTED_SEEN_NS: Final = 250 * MILLISECOND_NS
"""What runs for longer has been said to have begun."""

_PACKED: Final = struct.Struct("<qqHB")
_pack = _PACKED.pack
_WINDOW_BYTES: Final = WINDOW * _PACKED.size


class Ending(IntEnum):
    """How an attempt ended, as far as it says something about the worker; canceled and returned ones say nothing."""

    COMPLETED = 1
    FAILED = 2
    REFUSED = 3
    TIMED_OUT = 4
    LOST = 5
    REJECTED = 6
    """Its result did not pass the audit."""


class EndedAttempt(Struct, frozen=True, gc=False):
    """One of the last attempts."""

    ended_ns: int
    """Unix time."""
    took_ns: int
    """By the control plane's clock; 0 where nobody knows."""
    load_permille: int
    """Share of the worker's concurrency that was in use when it ended, at most 1,000."""
    ending: Ending


class Rating(Struct, frozen=True, array_like=True, gc=False):
    """How far one is trusted, in thousandths: an estimate, and bounds between which the truth is with a probability of
    nine tenths. Choice and privileges go by ``low``, so that who is unknown stands below whoever is proven."""

    value: int = 500
    low: int = 0
    high: int = 1_000


UNKNOWN: Final = Rating()
"""Of whom nothing is known."""


class TrackRecord(Struct, array_like=True, gc=False):
    """How a worker has done at one capability. The first two are a moving average over about the last eight attempts; the
    others count over its whole life."""

    attempts: int = 0
    took_ns: int = 0
    completed: int = 0
    """Attempts whose result was accepted."""
    failed: int = 0
    """Attempts that failed, were refused, timed out or were lost."""
    rejected: int = 0
    """Attempts whose result did not pass a check that all results go through."""
    slow: int = 0
    """Of the completed ones: those that took longer than they should."""
    passed: int = 0
    """Results that were looked at more closely (a copy, a gold task, a judge, a person) and were right …"""
    wrong: int = 0
    """… and those that were not."""
    in_row: int = 0
    """How many were right since the last that was not."""
    window: bytes = b""
    """The last attempts, packed; see ``endings``."""
    rating: Rating = UNKNOWN
    """As it was reckoned last …"""
    memory: tuple[int, ...] = ()
    """… what the model of reputation that did so remembers, in whatever unit it likes …"""
    counted: tuple[int, ...] = ()
    """… and the counts up to which it has taken them into account, as ``counts`` has them."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Completed, failed, rejected, slow, passed, wrong."""
        return (self.completed, self.failed, self.rejected, self.slow, self.passed, self.wrong)

    def note(self, ended_ns: int, took_ns: int, load_permille: int, ending: int) -> None:
        """One more attempt in the window."""
        window = self.window
        if len(window) == _WINDOW_BYTES:
            window = window[_PACKED.size :]
        self.window = window + _pack(ended_ns, took_ns, min(load_permille, 1_000), ending)

    def endings(self) -> Iterator[EndedAttempt]:
        """The last attempts, oldest first; up to ``WINDOW`` of them."""
        for ended_ns, took_ns, load_permille, ending in _PACKED.iter_unpack(self.window):
            yield EndedAttempt(ended_ns, took_ns, load_permille, Ending(ending))


def measured_ns(claimed_ns: int, assigned_ns: int, started_ns: int, now_ns: int) -> int:
    """How long an attempt took that ends now, by what the control plane has seen itself.

    Args:
        claimed_ns: what the worker says; only believed where nothing speaks against it.
        assigned_ns: when it was bound to the worker.
        started_ns: when the worker said that it had begun; 0: it never said.
        now_ns: when the report came.
    """
    if started_ns:
        return now_ns - started_ns
    held_ns = now_ns - assigned_ns
    # Attempts that others are done before wait with the worker, but not for long.
    return max(min(claimed_ns, held_ns), held_ns - UNSTARTED_NS)
