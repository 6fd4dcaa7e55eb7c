"""Altering a part of the product from outside for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def instead(place: object, name: str, altered: object) -> Iterator[None]:
    """While it lasts, ``place`` has ``altered`` under ``name``."""
    original = getattr(place, name)
    setattr(place, name, altered)
    try:
        yield
    finally:
        setattr(place, name, original)
