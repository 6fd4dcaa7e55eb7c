"""Parameters that a capability has marked searchable in its input schema, with ``"x-merit-searchable": true`` at a property.

A marked property is found by all text in it: the strings and numbers of its value, however deep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from merit.model.tasks import Task
from merit.model.workers import Offer

MARK: Final = "x-merit-searchable"
_DEPTH_MAX: Final = 8
_PLACES_MAX: Final = 64
_LOOKED_AT_MAX: Final = 5_000
_DEFINITION: Final = "#/$defs/"
_ALL_OF_IT: Final = ("items", "additionalProperties")
_CHOICES: Final = ("anyOf", "oneOf", "allOf")
_TEXTS_MAX: Final = 500

Place = tuple[str, ...]
"""Names of properties, one inside the other; an empty name stands for all items of an array, or all values of an object."""


class Marked:
    """Finds the marked texts of tasks, with the input schemas of their capabilities.

    Args:
        offers: by capability; looked at each time, since they change.
    """

    def __init__(self, offers: Mapping[str, Offer]) -> None:
        self._offers = offers
        self._places: dict[str, tuple[bytes, tuple[Place, ...]]] = {}
        """By capability: its input schema, and what is marked in it."""

    def texts(self, task: Task) -> list[str]:
        """Of parameters that are kept beside the task; what is in the blob store is not searched."""
        offer = self._offers.get(task.capability)
        if offer is None or not offer.input_schema:
            return []
        known = self._places.get(task.capability)
        if known is None or known[0] is not offer.input_schema:
            known = self._places[task.capability] = (offer.input_schema, places(offer.input_schema))
        return texts_at(known[1], task.parameters) if known[1] else []


def places(schema: bytes) -> tuple[Place, ...]:
    """Where in the parameters something is marked; also in definitions (``$defs``) of the same schema. Empty for what is no
    schema. Of a hostile one, only so much is looked at."""
    if MARK.encode() not in schema:
        return ()
    try:
        decoded = msgspec.json.decode(schema)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    definitions = decoded.get("$defs") if isinstance(decoded, dict) else None
    found: dict[Place, None] = {}
    rest: list[tuple[Any, Place]] = [(decoded, ())]
    for _ in range(_LOOKED_AT_MAX):
        if not rest or len(found) >= _PLACES_MAX:
            break
        part, here = rest.pop()
        if not isinstance(part, dict) or len(here) > _DEPTH_MAX:
            continue
        if part.get(MARK) is True and here:
            found[here] = None
            continue
        properties, reference = part.get("properties"), part.get("$ref")
        if isinstance(properties, dict):
            rest += [(inner, (*here, name)) for name, inner in properties.items()]
        rest += [(part[name], (*here, "")) for name in _ALL_OF_IT if name in part]
        for name in _CHOICES:
            choices = part.get(name)
            if isinstance(choices, list):
                rest += [(choice, here) for choice in choices[:_PLACES_MAX]]
        if isinstance(reference, str) and isinstance(definitions, dict) and reference.startswith(_DEFINITION):
            rest.append((definitions.get(reference[len(_DEFINITION) :]), here))
    return tuple(found)


def texts_at(marked: tuple[Place, ...], parameters: bytes) -> list[str]:
    """The texts at the marked places of parameters, which are a JSON object."""
    if not marked or not parameters:
        return []
    try:
        decoded = msgspec.json.decode(parameters)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    found: list[str] = []
    for place in marked:
        for value in _at(decoded, place):
            for text in _texts(value):
                found.append(text)
                if len(found) >= _TEXTS_MAX:
                    return found
    return found


def _at(value: Any, place: Place) -> Iterator[Any]:
    if not place:
        yield value
    elif place[0]:
        if isinstance(value, dict) and place[0] in value:
            yield from _at(value[place[0]], place[1:])
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _at(item, place[1:])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
