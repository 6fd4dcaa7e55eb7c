"""The kinds of rules about results that come with Merit, by the names that policies and settings give. Others are registered
by entry points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from merit.auditing.auditor import MakeAuditor
from merit.auditing.compare import JsonComparer, MakeComparer
from merit.auditing.detecting import MakeDetector
from merit.auditing.detectors.collusion import Collusion
from merit.auditing.detectors.copied_results import CopiedResults
from merit.auditing.detectors.false_claims import FalseClaims
from merit.auditing.detectors.on_off import OnOff
from merit.auditing.detectors.same_answer import SameAnswer
from merit.auditing.detectors.selective_failing import SelectiveFailing
from merit.auditing.detectors.sybils import Sybils
from merit.auditing.detectors.wrong_key import WrongKey
from merit.auditing.evidence import ReputationModel
from merit.auditing.nonempty import NonEmpty
from merit.auditing.reputation import BetaReputation, SimpleReputation

DEFAULT_MODEL: Final = "beta"

MODELS: Final[Mapping[str, Callable[[], ReputationModel]]] = MappingProxyType(
    {DEFAULT_MODEL: BetaReputation, "simple": SimpleReputation}
)
"""What makes a model of reputation. Entry points: group ``merit.reputations``."""

AUDITORS: Final[Mapping[str, MakeAuditor]] = MappingProxyType({"nonempty": NonEmpty})
"""What makes an auditor. Entry points: group ``merit.auditors``."""

COMPARERS: Final[Mapping[str, MakeComparer]] = MappingProxyType({"json": JsonComparer})
"""What makes something that compares results. Entry points: group ``merit.comparers``."""

DETECTORS: Final[Mapping[str, MakeDetector]] = MappingProxyType(
    {
        detector.name: detector
        for detector in (
            FalseClaims,
            CopiedResults,
            SameAnswer,
            SelectiveFailing,
            OnOff,
            Sybils,
            Collusion,
            WrongKey,
        )
    }
)
"""What makes a detector of cheats. Entry points: group ``merit.detectors``."""
