"""What the machine asks of an allocation strategy.

Tasks that ask the same of a worker wait in one line (``merit.core.lines``), and each line has a strategy of its own,
which knows the workers that may do them: the hard constraints (capability, version, tags, resources, tenant, …) have been
seen to before (``merit.allocation.feasibility``). A strategy only prefers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

from msgspec import Struct

PERMILLE = 1_000


class Candidate(Struct):
    """A worker that may be given a task of the line, as a strategy sees it; to be read only. All figures follow from what
    the journal says, so that a decision can be looked at again."""

    worker: str
    concurrency: int = 1
    """Attempts that it makes at a time, times the factor that it has earned."""
    live: int = 0
    """Attempts that it has, prefetched ones included."""
    room: int = 1
    """How many more it takes."""
    turn: int = 0
    """Who has been as it is for longest, idle or with the attempts that it has, has the lowest."""
    took_ns: int = 0
    """What its attempts at this capability took lately; 0: nobody knows."""
    preference_permille: int = 500
    cost_micros: int = 0
    misfit_permille: int = 0
    """How far what it has free of cpu, memory and network is from what the task needs: the sum of the differences, each
    as a share of what it has."""
    tags: frozenset[str] = frozenset()
    given: int = 0
    """Who was given nothing for longest has the lowest."""
    score: int = 0
    """How well it performs, in thousandths of a point; 0: nobody knows yet."""
    reputation: int = 0
    """How far its work at this capability is trusted at least, in thousandths."""


class Wish(Struct, frozen=True):
    """What a strategy may know of the task."""

    order: int = 0
    """Place of the task among all, and of the attempt: what stands for chance."""
    slack_ns: int = -1
    """Time until its deadline; -1: it has none."""
    estimate_ns: int = 0
    """How long it is expected to run; 0: nobody knows."""
    prefers: tuple[str, ...] = ()
    critical: bool = False
    """It is of the highest priority."""


PLAIN = Wish()
"""For strategies that do not look at the task …"""
CRITICAL = Wish(critical=True)
"""… and all that they are told of one of the highest priority."""


class Strategy(Protocol):
    """Keeps an index of the workers of one line that have room now, and picks one for a task.

    A choice depends on the figures of the candidates and on the wish only, not on the order or number of calls that
    brought them in: so it comes out the same for whoever builds the index anew, after a restart or to explain it. The
    cost of each call must not depend on how many workers there are (a logarithm is fine).
    """

    reads_wish: bool
    """Whether ``choose`` looks at its wish; otherwise it is given ``PLAIN`` or ``CRITICAL``, which cost nothing to make."""

    def place(self, candidate: Candidate) -> None:
        """It has room for one more, and these figures; if it is known, these are its new ones. The object may be changed
        by the caller afterwards, who then places it again before the next choice."""
        ...

    def remove(self, worker: str) -> None:
        """It has no room any more, or is gone. Unknown ones are ignored."""
        ...

    def placed(self) -> AbstractSet[str]:
        """The workers that have room, for whoever checks that nobody was forgotten."""
        ...

    def choose(self, wish: Wish = PLAIN, avoid: Collection[str] = ()) -> str | None:
        """The worker for the task, or None when nobody has room but those to ``avoid``.

        Only with something to avoid may the cost grow, by one for each that is passed over.
        """
        ...

    def figures(self, candidate: Candidate, wish: Wish) -> Mapping[str, int]:
        """What it goes by for this candidate, by name, for people: the most important first, the lower the better.

        Of two candidates the one with the lower figures, compared in their order, is chosen (``figures`` of a strategy
        that draws by chance name what it drew).
        """
        ...


MakeStrategy = Callable[[Mapping[str, int]], Strategy]
"""Makes a strategy for a line; the argument: weights by name, in thousandths, those that an operator has set."""
