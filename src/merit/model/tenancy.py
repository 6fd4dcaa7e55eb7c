"""Whom everybody is, as long as there are no identities and everything listens on loopback only."""

from __future__ import annotations

from typing import Final

DEFAULT_TENANT: Final = "default"
"""Of callers that name none, and of the workers, which serve all."""
LOCAL_PRINCIPAL: Final = "local"
"""Every caller."""
PROBE_TENANT = "merit.probes"
"""Whose the tasks of admission are, which the cell makes itself."""
GOLD_TENANT = "merit.gold"
"""Whose the tasks with known results are, that are mixed among the others."""
