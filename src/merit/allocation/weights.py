"""What an operator says of how much the figures of a strategy count."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

WEIGHT_PERMILLE_MAX = 1_000_000
"""A thousand times as much as what counts simply."""
NO_WEIGHTS: Mapping[str, int] = MappingProxyType({})
"""Of strategies that weigh nothing, and where an operator has set none."""


def weights_of(given: Mapping[str, int], known: Mapping[str, int]) -> dict[str, int]:
    """All weights of a strategy by name, in thousandths: those of ``known``, with what was given in place of some.

    Raises:
        ValueError: A weight that the strategy does not know, or one that is out of bounds.
    """
    for name, weight in given.items():
        if name not in known:
            has = f"its weights are {', '.join(known)}" if known else "it weighs nothing, so leave weights out"
            raise ValueError(f"the strategy knows no weight {name!r}; {has}")
        if not 0 <= weight <= WEIGHT_PERMILLE_MAX:
            raise ValueError(f"{name} is {weight} thousandths; give 0 to {WEIGHT_PERMILLE_MAX}")
    return {**known, **given}
