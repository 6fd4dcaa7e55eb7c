"""An auditor: a check of results that is written in Python. Others than Merit's own are registered by the entry point group
``merit.auditors``, and tested with ``merit.testing.auditor_contract``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

from merit.model.auditing import Finding


class AuditContext(Struct, frozen=True, kw_only=True):
    """What an auditor is told beside parameters and result."""

    task: str
    capability: str
    priority: int
    """0 is the most urgent."""
    worker: str
    wall_s: float
    """How long the attempt took, as the control plane has measured it."""
    trail: Any = None
    """Log and evidence as the worker has sent them; None: neither."""


class Auditor(Protocol):
    """Looks at one result at a time, in a process beside the control plane. It is made once and keeps nothing of what it has
    seen: the same result is judged alike, whatever came before."""

    def check(self, parameters: Any, result: Any, context: AuditContext) -> Finding:
        """Whether the result is right. What is raised means that the auditor failed, and is not held against the worker; so
        is taking longer than a second.

        Args:
            parameters: of the task; decoded JSON, the auditor's own to change.
            result: as well.
            context: the rest.
        """
        ...


MakeAuditor = Callable[[], Auditor]
"""What is registered as entry point."""
