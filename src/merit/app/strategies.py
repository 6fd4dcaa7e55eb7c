"""The strategies that there are: Merit's own, and those of packages that are installed beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Final

from merit.allocation.catalogue import BUILT_IN
from merit.allocation.strategy import MakeStrategy
from merit.model.limits import NAME_LENGTH_MAX

log = logging.getLogger("merit")

GROUP: Final = "merit.strategies"
"""Of entry points, each the name of a strategy and what makes one (``MakeStrategy``)."""


@cache
def load_strategies() -> Mapping[str, MakeStrategy]:
    """By name. What cannot be loaded is left out, with a line in the log: tasks that ask for it are refused then, and
    nothing else suffers."""
    found: dict[str, MakeStrategy] = dict(BUILT_IN)
    for entry in sorted(entry_points(group=GROUP), key=lambda one: (one.name, one.value)):
        package = entry.dist.name if entry.dist is not None else "a package"
        if entry.name in found or not 0 < len(entry.name) <= NAME_LENGTH_MAX:
            log.error("strategy %r of %s is left out: its name is taken, or too long", entry.name, package)
            continue
        try:
            make = entry.load()
        except Exception as error:  # noqa: BLE001  (code of others: whatever it raises)
            log.error("strategy %s of %s is left out: %s: %s", entry.name, package, type(error).__name__, error)
            continue
        if not callable(make):
            log.error("strategy %s of %s is left out: %s is nothing that makes one", entry.name, package, entry.value)
            continue
        found[entry.name] = make
    return found
