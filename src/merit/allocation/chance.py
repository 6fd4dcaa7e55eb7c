"""What stands for chance where the same must come out each time."""

from __future__ import annotations

_MASK = (1 << 64) - 1


def chance(order: int) -> int:
    """64 bits that look like chance, the same ones for the same number; 0 for 0.

    The finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    """
    bits = order & _MASK
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & _MASK
    return bits ^ bits >> 31
