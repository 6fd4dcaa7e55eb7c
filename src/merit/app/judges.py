"""Who reckons and decides about workers and results: Merit's own, and those of packages that are installed beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, TypeVar

from merit.app.plug_ins import load_plug_ins
from merit.auditing.catalogue import COMPARERS, MODELS
from merit.core.panel import BUILT_IN_PANEL, Panel
from merit.supervision.catalogue import ENGINES, SCORINGS

log = logging.getLogger("merit")

MODELS_GROUP: Final = "merit.reputations"
SCORINGS_GROUP: Final = "merit.scorings"
ENGINES_GROUP: Final = "merit.engines"
COMPARERS_GROUP: Final = "merit.comparers"
"""Of entry points, each a name and what makes one."""

Judge = TypeVar("Judge")


@cache
def load_panel() -> Panel:
    """All of them. What cannot be made is left out, with a line in the log."""
    return Panel(
        _made(MODELS_GROUP, "model of reputation", MODELS, BUILT_IN_PANEL.models),
        _made(SCORINGS_GROUP, "scoring", SCORINGS, BUILT_IN_PANEL.scorings),
        _made(ENGINES_GROUP, "decision engine", ENGINES, BUILT_IN_PANEL.engines),
        _made(COMPARERS_GROUP, "comparer", COMPARERS, BUILT_IN_PANEL.comparers),
    )


def _made(
    group: str, kind: str, makers: Mapping[str, Callable[[], Any]], built_in: Mapping[str, Judge]
) -> dict[str, Judge]:
    made = dict(built_in)
    for name, make in load_plug_ins(group, kind, makers).items():
        if name in made:
            continue
        try:
            made[name] = make()
        except Exception as error:  # noqa: BLE001  (code of others: whatever it raises)
            log.error("%s %s is left out, it cannot be made: %s: %s", kind, name, type(error).__name__, error)
    return made
