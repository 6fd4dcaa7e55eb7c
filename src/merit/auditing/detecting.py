"""Who cheats: what a detector is told, what it says, and how sure it has to be. Detectors read what the journal tells, beside the
cell and after the fact; others than Merit's own are tested with ``merit.testing.detector_contract``.

Nearly all of Merit's own weigh evidence in the same way (``Cusum``): each observation counts by the logarithm of how much
likelier it would be if the worker cheated than it is among the others, whom the detector knows by what it has seen of them.
The sum begins anew when it falls below nothing, and at ``BAR`` somebody is told: whoever is honest reaches that once in a
million observations on average, or more rarely (Page: Continuous inspection schemes, 1954; Lorden: Procedures for reacting
to a change in distribution, 1971). What is taken to be usual is more than was seen of others, since workers differ, and what
hangs together counts once. What is then left of false alarms is measured by ``merit bench merit``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Final, Protocol

from msgspec import Struct

from merit.model.track_record import Ending

BAR: Final = log(1_000_000)
_TASKS_SHOWN: Final = 8
_ACCUSED_MAX: Final = 1_000


class AttemptOver(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt has ended by the word of its worker, or since nothing was heard of it; not one that was canceled."""

    at_ns: int
    task: str
    worker: str
    capability: str
    tenant: str = ""
    priority: int = 0
    """0 is the most urgent."""
    parameters: bytes = b""
    """Digest of them."""
    parameters_bytes: int = 0
    result: bytes = b""
    """Digest of it in canonical form, so that the same answers have the same; empty: there is none."""
    ending: Ending = Ending.COMPLETED
    claimed_wall_ns: int = 0
    """0: nothing was claimed."""
    claimed_cpu_ns: int = 0
    wall_ns: int = 0
    """As the control plane has seen it; 0: it could not."""
    cpu_ns: int = 0
    """As the pool has seen it; 0: nobody has."""
    cores: int = 0
    """Of the worker's machine; 0: nobody knows."""


class VerdictGiven(Struct, frozen=True, kw_only=True, gc=False):
    """A result was looked at closely: with a gold task, a copy or a judge, now or long after it came."""

    at_ns: int
    of: AttemptOver
    right: bool


class VoteHeld(Struct, frozen=True, kw_only=True, gc=False):
    """Several workers did the same task."""

    at_ns: int
    task: str
    capability: str
    answers: tuple[tuple[str, str], ...]
    """Worker, and what its answer counts as: the same for those that were compared and found equal."""


class WorkerCame(Struct, frozen=True, kw_only=True, gc=False):
    """A worker joined, for the first time or again."""

    at_ns: int
    worker: str
    boot: str
    tags: tuple[str, ...] = ()
    first_ns: int = 0
    """When it joined for the first time; 0: now, or nobody knows."""


class WorkerCaught(Struct, frozen=True, kw_only=True, gc=False):
    """A worker was put out for its cheating or bad work."""

    at_ns: int
    worker: str


class SignatureWrong(Struct, frozen=True, kw_only=True, gc=False):
    """A report came that the key of its worker has not signed."""

    at_ns: int
    worker: str
    task: str


Fact = AttemptOver | VerdictGiven | VoteHeld | WorkerCame | WorkerCaught | SignatureWrong


class Suspicion(Struct, frozen=True, kw_only=True, gc=False):
    """What speaks against a worker."""

    detector: str
    worker: str
    at_ns: int
    reason: str
    """For people: what it does, with the numbers."""
    tasks: tuple[str, ...] = ()
    """Some of those that show it, oldest first."""
    others: tuple[str, ...] = ()
    """Workers that have to do with it."""
    figures: tuple[tuple[str, int], ...] = ()
    grave: bool = False
    """Nothing but cheating explains it. What is not grave has innocent explanations too: it is a reason to look at all results
    of the worker, and for people to look at the worker."""


class Detector(Protocol):
    """Looks for one way to cheat. What it says follows from the facts that it was shown, in their order, and from nothing
    else; what it remembers is bounded."""

    def observe(self, fact: Fact) -> None:
        """The next fact. Those that do not matter to it, it passes over. ``at_ns`` hardly ever goes back."""
        ...

    def findings(self) -> list[Suspicion]:
        """What has come up since this was last asked. Whoever was named is looked at anew from then on."""
        ...


MakeDetector = Callable[[], Detector]
"""What is registered as entry point."""


class Accusations:
    """What a detector has found and not yet been asked for: the last of each worker."""

    def __init__(self) -> None:
        self._found: dict[str, Suspicion] = {}

    def accuse(self, suspicion: Suspicion) -> None:
        """Kept until somebody asks, if there are not too many already."""
        if len(self._found) < _ACCUSED_MAX or suspicion.worker in self._found:
            self._found[suspicion.worker] = suspicion

    def findings(self) -> list[Suspicion]:
        """See ``Detector``."""
        found, self._found = list(self._found.values()), {}
        return found


class Cusum:
    """What speaks for one suspicion, and the last tasks that do. It falls to nothing and no further."""

    __slots__ = ("sum", "tasks")

    def __init__(self) -> None:
        self.sum = 0.0
        self.tasks: tuple[str, ...] = ()

    def add(self, weight: float, task: str) -> bool:
        """Whether the bar is reached: then it begins anew, and ``tasks`` are those that did it."""
        if not self.sum:
            self.tasks = ()
        if weight > 0:
            self.tasks = (*self.tasks[1 - _TASKS_SHOWN :], task)
        self.sum = max(0.0, self.sum + weight)
        if self.sum < BAR:
            return False
        self.sum = 0.0
        return True


def weigh(happened: bool, usual: float, suspected: float) -> float:
    """By the logarithm of how much likelier it is with a cheat: what happens in so many cases usually, and in so many there."""
    return log(suspected / usual) if happened else log((1 - suspected) / (1 - usual))


def at_most(share: float, tolerance: float) -> float:
    """A share with odds so many times as large: how often it may happen to one of many that differ."""
    odds = tolerance * share
    return odds / (1 - share + odds)
