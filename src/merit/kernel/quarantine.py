"""What stopped the cell once is set aside, so that it cannot stop the restart too."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from merit.model.frames import AttemptRef, Report, ReportStatus
from merit.model.tasks import Failure, Refusal, TaskSpec


class Stopped(Exception):
    """The machine raised: a defect. ``item`` is what it was handling, ``digest`` names it, ``task`` is set when it was
    a task that is in the state already."""

    def __init__(self, item: object, cause: Exception) -> None:
        self.item = item
        self.digest = digest_of(item) if isinstance(item, msgspec.Struct) else ""
        self.task = item if isinstance(item, str) else ""
        what = f"task or worker {item}" if isinstance(item, str) else f"{type(item).__name__} {self.digest[:16]}"
        super().__init__(
            f"the cell stopped while handling {what}: {type(cause).__name__}: {cause}. It is set aside, and refused when "
            "the cell is started again; please report this: it is a defect of Merit"
        )


def digest_of(item: msgspec.Struct) -> str:
    """SHA-256, hexadecimal, of what a task, report or reference says; of its text, since it may be what cannot be
    encoded that stopped the cell."""
    return sha256(repr(item).encode("utf-8", "backslashreplace")).hexdigest()


class Quarantine:
    """Items by digest, and tasks by id, that the machine is not to be given (again). False when there are none."""

    def __init__(self, digests: frozenset[str] = frozenset(), tasks: tuple[str, ...] = ()) -> None:
        self.digests = digests
        self.tasks = tasks

    def __bool__(self) -> bool:
        return bool(self.digests or self.tasks)

    def without(self, tasks: list[TaskSpec], *, atomic: bool) -> tuple[list[TaskSpec], list[Refusal]]:
        """The tasks that may pass, and the refusals of those that may not; ``atomic``: all pass or none."""
        passed: list[TaskSpec] = []
        refusals: list[Refusal] = []
        for task in tasks:
            if digest_of(task) in self.digests:
                reason = "this very task stopped the cell once and is set aside; see the quarantine"
                refusals.append(Refusal(task.id, "poisoned", "id", reason))
            else:
                passed.append(task)
        if atomic and refusals:
            reason = f"not taken, since task {refusals[0].task} of the same submit was refused"
            refusals += [Refusal(task.id, "batch", "tasks", reason) for task in passed]
            passed = []
        return passed, refusals

    def refs(self, refs: list[AttemptRef]) -> list[AttemptRef]:
        """Those of the references that may pass."""
        return [ref for ref in refs if digest_of(ref) not in self.digests]

    def instead_of(self, report: Report) -> Report:
        """The report itself, or one that says that it was set aside."""
        if digest_of(report) not in self.digests:
            return report
        failure = Failure("poisoned", "its report stopped the cell once and is set aside", permanent=True)
        return Report(report.task, report.number, ReportStatus.FAILED, failure=failure)
