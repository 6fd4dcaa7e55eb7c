"""What comes with Merit. Others are registered by the entry point groups ``merit.engines`` and ``merit.scorings``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from merit.supervision.adaptive import Adaptive
from merit.supervision.engine import DecisionEngine
from merit.supervision.scoring import Reference, Relative, Scoring
from merit.supervision.thresholds import Thresholds

MakeEngine = Callable[[], DecisionEngine]
MakeScoring = Callable[[], Scoring]

ENGINES: Mapping[str, MakeEngine] = MappingProxyType({"threshold": Thresholds, "adaptive": Adaptive})
"""By the name that ``Policy.engine`` gives."""
SCORINGS: Mapping[str, MakeScoring] = MappingProxyType({"relative": Relative, "reference": Reference})
"""By the name that ``Policy.scoring`` gives."""
