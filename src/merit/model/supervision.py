"""What is decided about workers by their record: nouns of supervision. The rules are in ``merit.supervision``."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from msgspec import Struct

from merit.model.track_record import UNKNOWN, Rating

FACTOR_MIN: Final = 100
FACTOR_ONE: Final = 1_000
FACTOR_MAX: Final = 2_000
"""The factor is the share of resources that a worker has earned, in thousandths."""
SCORE_MAX: Final = 100_000
"""Scores are thousandths of a point: 0 to 100 points."""


class Verdict(IntEnum):
    """What is decided about a worker; the numbers are those of the wire."""

    REWARD = 1
    """Its factor grows."""
    PUNISH = 2
    """Its factor shrinks."""
    PAUSE = 3
    """It gets nothing for a while, …"""
    PROBATION = 4
    """… and then a few tasks, all of them checked, with which it can prove itself."""
    RESTORE = 5
    """It is taken back among the others."""
    DEACTIVATE = 6
    """It is out until a person lets it back."""
    RESET = 7
    """It is told to restart, clear what it remembers and read its configuration anew."""
    RETRAIN = 8
    AUTHORISE = 9
    """It may do what only proven workers may."""
    REVOKE = 10
    """It may not any more."""
    PARDON = 11
    """A person has undone what was decided."""
    PIN = 12
    """A person has fixed its factor: nothing is decided about it until he lets it go."""
    UNPIN = 13


class Stage(IntEnum):
    """How far a worker is among the others, as supervision has it; what operators do to it is another matter."""

    ACTIVE = 1
    PAUSED = 2
    PROBATION = 3
    OUT = 4
    """Until a person lets it back."""


class CircuitState(IntEnum):
    """Of the breaker between a worker and its tasks; the numbers are those of the wire."""

    CLOSED = 1
    """It gets tasks."""
    OPEN = 2
    """It fails: it gets none for a while."""
    HALF_OPEN = 3
    """It gets a few, and what comes of them decides."""


class Circuit(Struct, frozen=True, array_like=True, gc=False):
    """A breaker. Closed ones with nothing to remember are not kept."""

    state: CircuitState = CircuitState.CLOSED
    until_ns: int = 0
    """OPEN: when it is tried again; CLOSED: when it came to be so, before which nothing counts any more."""
    openings: int = 0
    """In a row, without having held: each is twice as long as the one before."""
    probes: int = 0
    """HALF_OPEN: attempts that have come out well since."""


CLOSED: Final = Circuit()
TRUSTED: Final = "merit.trusted"
"""Tag of workers that have proven themselves."""
RESERVED_TAGS: Final = "merit."
"""How tags begin that nobody can give to himself."""


class Judgement(Struct, frozen=True, array_like=True, gc=False):
    """One decision about a worker, kept in its profile as long as it is among the last; all of them are in the journal."""

    sequence: int
    """Of its event: what it is called by."""
    at_ns: int
    verdict: Verdict
    factor: int
    """From then on."""
    score: int
    principal: str
    reason: str
    figures: tuple[tuple[str, int], ...] = ()
    undone: bool = False


class Point(Struct, frozen=True, array_like=True, gc=False):
    """How a worker stood at a time: what its history is drawn from."""

    at_ns: int
    score: int
    factor: int
    reputation: int
    """Its lower bound, over all capabilities."""


JUDGEMENTS_KEPT: Final = 16
POINTS_KEPT: Final = 60
DAY_NS: Final = 86_400_000_000_000


class Conduct(Struct, array_like=True, gc=False):
    """How a worker stands, by all that was decided about it. Kept in its profile, so that it cannot be shed by coming anew."""

    factor: int = FACTOR_ONE
    score: int = 0
    rating: Rating = UNKNOWN
    """Over all its capabilities."""
    rated_ns: int = 0
    """When it was rated last; 0: never, and the score means nothing."""
    rewards: int = 0
    punishments: int = 0
    strikes: int = 0
    """Punishments since the last reward, and since it was last taken back."""
    stage: Stage = Stage.ACTIVE
    since_ns: int = 0
    """When it came to be there."""
    fresh_ns: int = 0
    """When it was taken back, or made anew, last: only what it did since then counts for its score."""
    pauses_ns: tuple[int, ...] = ()
    """When it was paused for its punishments, within the last day."""
    relapses: int = 0
    """Probations in a row that it has failed."""
    right: int = 0
    """On probation: attempts that came out well since something was decided last …"""
    wrong: int = 0
    """… and those that did not."""
    trusted: bool = False
    """It may do what only proven workers may."""
    pinned: bool = False
    """A person has fixed its factor."""
    circuit: Circuit = CLOSED
    judged_ns: int = 0
    """When its factor was decided on last …"""
    judged_at: int = 0
    """… and how many attempts it had ended by then."""
    judgements: tuple[Judgement, ...] = ()
    """The last of them, oldest first."""
    points: tuple[Point, ...] = ()
    """The last of them, oldest first."""

    @property
    def privileges(self) -> tuple[str, ...]:
        """Tags that it has earned."""
        return (TRUSTED,) if self.trusted else ()

    @property
    def at_liberty(self) -> bool:
        """Whether it gets as many tasks as its factor lets it."""
        return self.stage is Stage.ACTIVE and self.circuit.state is CircuitState.CLOSED


class Policy(Struct, frozen=True, array_like=True, gc=False):
    """How the fleet is supervised: who decides, and by which numbers. Times are nanoseconds, shares thousandths."""

    engine: str = "threshold"
    """The decision engine, by name."""
    scoring: str = "relative"
    """How scores are reckoned; ``reference`` is the formula of the field."""
    reputation: str = "beta"
    """The model of reputation."""
    every_ns: int = 3_000_000_000
    """How often workers with news are looked at."""
    reward_at: int = 85_000
    """Scores from which on a worker is rewarded …"""
    punish_at: int = 50_000
    """… and up to which it is punished."""
    reward_permille: int = 100
    """By how much the factor grows …"""
    punish_permille: int = 100
    """… or shrinks."""
    pause_after: int = 3
    """Punishments until a worker is paused, …"""
    pause_below: int = 500
    """… if its factor is then below this."""
    pause_ns: int = 60_000_000_000
    """How long a pause lasts at least, until it may prove itself."""
    pauses_max: int = 3
    """With so many pauses within a day it is deactivated."""
    recover_points: int = 20_000
    """By so much above ``punish_at`` its score has to have recovered."""
    canaries: int = 3
    """Tasks that one on probation has to do right."""
    cool_down_ns: int = 3_000_000_000
    """Between two decisions about a worker, at least …"""
    attempts_min: int = 3
    """… and so many ended attempts."""
    trusted_at: int = 900
    """Lower bound of reputation from which on a worker is authorised for what only proven ones may do."""
    trusted_attempts: int = 20
    """… and so many results that were looked at closely."""
    weights: tuple[tuple[str, int], ...] = ()
    """Of the parts of the score, by name, in thousandths; those not named have the defaults of the scoring."""
    circuit_failures: int = 5
    """Failures among the last ``circuit_window`` attempts from which on the breaker opens …"""
    circuit_share: int = 500
    """… if they are this share of them."""
    circuit_window: int = 20
    circuit_open_ns: int = 30_000_000_000
    circuit_open_ns_max: int = 3_600_000_000_000
    circuit_probes: int = 3


class Objective(Struct, frozen=True, array_like=True, gc=False):
    """A service level objective (SLO): of this capability's tasks, such a share is to be done well and in time."""

    capability: str
    share_permille: int = 990
    within_ns: int = 0
    """From its submit to its end; 0: whenever."""
    window_ns: int = 3_600_000_000_000
    """Over which the share is counted."""
