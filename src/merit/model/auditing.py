"""Whether work is right: how that is looked into, and what is found. Nouns of auditing; times are nanoseconds, shares
thousandths."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

from merit.model.limits import SECOND_NS


class Finding(Struct, frozen=True, array_like=True, gc=False):
    """What one step of an audit has come to. One that is ``ok`` and has a reason is a warning."""

    step: str
    ok: bool
    reason: str = ""
    weight_permille: int = 1_000
    broken: bool = False
    """The step itself failed (an exception, a time-out), which says nothing about the worker."""


SLOW = "slow"
"""Step of the warning that a result is right, but came later than it should have."""


class Severity(IntEnum):
    """What it means when a rule does not hold; the numbers are those of the wire."""

    FAIL = 1
    """The result is not accepted."""
    WARN = 2
    """It is, and somebody is told."""


class AuditRule(Struct, frozen=True, array_like=True, gc=False):
    """What has to be so of each result, as an expression of the Common Expression Language over ``result``,
    ``parameters``, ``task`` and ``wall_s``."""

    name: str
    expression: str
    message: str = ""
    """What is said when it is not so; empty: the expression."""
    severity: Severity = Severity.FAIL


class GoldTask(Struct, frozen=True, array_like=True, gc=False):
    """A task of which the right result is known; both are JSON."""

    parameters: bytes
    expected: bytes


class OnBroken(IntEnum):
    """What becomes of a result that could not be looked at, by no fault of its worker; the numbers are those of the wire."""

    REJECT = 1
    """It is not accepted; the task is tried again."""
    ACCEPT = 2


class Lists(IntEnum):
    """What lists are taken for when results are compared; the numbers are those of the wire."""

    ORDERED = 1
    """The same, in the same order."""
    MULTISETS = 2
    """The same, as often, in whatever order."""
    SETS = 3
    """The same, however often, in whatever order."""


class Comparison(Struct, frozen=True, array_like=True, gc=False):
    """When two results count as the same. Unless something else is said: when they are the same JSON, whatever the order of
    their fields and the way in which numbers are written; 1 and 1.0 are the same, true is no number."""

    absolute_millionths: int = 0
    """Numbers may differ by so much …"""
    relative_millionths: int = 0
    """… or by so much of the larger one, whichever is more."""
    lists: Lists = Lists.ORDERED
    text_permille: int = 1_000
    """From this likeness on texts are the same, letter case, spacing and ways to write the same character aside; 1,000: only
    those that are equal to the letter."""
    ignore: tuple[str, ...] = ()
    """What is left out, as JSON Pointers; ``*`` stands for any field or element."""
    method: str = "json"
    """What compares them, by the name under which it is installed."""


class AuditPolicy(Struct, frozen=True, array_like=True, gc=False):
    """How the results of a capability are looked at. The checks up to ``norm_ns`` cost next to nothing, and are made of each
    of them; those after it are made of a sample."""

    capability: str
    schema: bytes = b""
    """JSON Schema 2020-12 that a result has to match; empty: none."""
    declared: bool = False
    """It has to match the output schema that its worker has declared."""
    rules: tuple[AuditRule, ...] = ()
    auditors: tuple[str, ...] = ()
    """In Python, by the names under which they are installed."""
    evidence: tuple[str, ...] = ()
    """For each of these patterns, such as ``*.png``, a file of such a name was recorded."""
    log_required: bool = False
    """There is a log, and nothing of it is missing."""
    log_errors: tuple[str, ...] = ()
    """Patterns that no line of the log matches."""
    norm_ns: int = 0
    """What takes longer is slow, which is a warning; 0: nothing is."""
    copies: int = 1
    """Answers by different workers that are wanted for a task of the sample."""
    gold: tuple[GoldTask, ...] = ()
    gold_permille: int = 50
    """Of all tasks, those that are gold ones."""
    judge: str = ""
    """Capability that reviews results; empty: none does."""
    floor_permille: int = 50
    """The sample is never less than this, however well a worker is reputed."""
    timeout_ns: int = 60 * SECOND_NS
    """How long a result may be looked at."""
    retries: int = 1
    """How often what failed by its own fault is looked at again."""
    newcomer_tasks: int = 10
    """So many results of a worker that nobody knows are all looked at."""
    on_broken: OnBroken = OnBroken.REJECT
    comparison: Comparison = Comparison()
    """When a result is the same as a copy's, or as the expected one of a gold task."""

    @property
    def nothing(self) -> bool:
        """Whether it asks nothing."""
        return self == AuditPolicy(self.capability)

    @property
    def apart(self) -> bool:
        """Whether some of its checks have no bound of their own, so that they are made in a process apart."""
        return bool(self.rules or self.auditors)


class SecondOpinion(Struct, frozen=True, array_like=True, gc=False):
    """What another worker has to say of a task whose result is looked at."""

    task: str
    """The one by which it was asked."""
    worker: str
    result: bytes = b""
    """JSON; empty: none came, and it abstains."""


class AuditCase(Struct, array_like=True, gc=False):
    """A result that is being looked at, as it was set when it came, whatever is set for others since."""

    task: str
    number: int
    """Of the attempt that it comes from."""
    worker: str
    reviews: tuple[str, ...] = ()
    """Tasks by which others are asked, that have not ended yet."""
    answers: tuple[SecondOpinion, ...] = ()
    asked: int = 0
    """Tasks by which others were asked, all together."""
    judge: str = ""
    """Capability that is asked to judge; empty: copies are made."""
    copies: int = 1
    retries: int = 1
    on_broken: OnBroken = OnBroken.REJECT
    comparison: Comparison = Comparison()


def new_case(task: str, number: int, worker: str, policy: AuditPolicy) -> AuditCase:
    """A result that is to be looked at from now on, as the policy has it at this moment."""
    return AuditCase(
        task,
        number,
        worker,
        judge=policy.judge,
        copies=policy.copies,
        retries=policy.retries,
        on_broken=policy.on_broken,
        comparison=policy.comparison,
    )
