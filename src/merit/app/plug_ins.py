"""What packages that are installed beside Merit add to it, by entry points."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from merit.model.limits import NAME_LENGTH_MAX

log = logging.getLogger("merit")

Make = TypeVar("Make", bound=Callable[..., Any])


def load_plug_ins(group: str, kind: str, built_in: Mapping[str, Make]) -> dict[str, Make]:
    """What there is, by name. What cannot be loaded is left out, with a line in the log: what asks for it is refused then,
    and nothing else suffers.

    Args:
        group: of entry points, each a name and what makes one.
        kind: what they are, for the log.
        built_in: what comes with Merit; these names are taken.
    """
    found = dict(built_in)
    for entry in sorted(entry_points(group=group), key=lambda one: (one.name, one.value)):
        package = entry.dist.name if entry.dist is not None else "a package"
        if entry.name in found or not 0 < len(entry.name) <= NAME_LENGTH_MAX:
            log.error("%s %r of %s is left out: its name is taken, or too long", kind, entry.name, package)
            continue
        try:
            make = entry.load()
        except Exception as error:  # noqa: BLE001  (code of others: whatever it raises)
            log.error("%s %s of %s is left out: %s: %s", kind, entry.name, package, type(error).__name__, error)
            continue
        if not callable(make):
            log.error("%s %s of %s is left out: %s is nothing that makes one", kind, entry.name, package, entry.value)
            continue
        found[entry.name] = make
    return found
