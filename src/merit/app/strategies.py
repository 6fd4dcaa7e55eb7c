"""The strategies that there are: Merit's own, and those of packages that are installed beside it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

from merit.allocation.catalogue import BUILT_IN
from merit.allocation.strategy import MakeStrategy
from merit.app.plug_ins import load_plug_ins

GROUP: Final = "merit.strategies"
"""Of entry points, each the name of a strategy and what makes one (``MakeStrategy``)."""


@cache
def load_strategies() -> Mapping[str, MakeStrategy]:
    """By name."""
    return load_plug_ins(GROUP, "strategy", BUILT_IN)
