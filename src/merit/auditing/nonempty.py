"""The auditor that wants to see something."""

from __future__ import annotations

from typing import Any

from merit.auditing.auditor import AuditContext
from merit.model.auditing import Finding


class NonEmpty:
    """A result says something: it is not null, and no text, list or object without content."""

    def check(self, parameters: Any, result: Any, context: AuditContext) -> Finding:
        """See ``Auditor``."""
        del parameters, context
        said = result.strip() if isinstance(result, str) else result
        empty = said is None or (isinstance(said, str | list | dict) and not said)
        return Finding("nonempty", not empty, "the result is empty" if empty else "")
