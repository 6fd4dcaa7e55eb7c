"""Amounts of resources as people write them, as programs give them, and as the model has them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from merit.model.limits import AMOUNT_THOUSANDTHS_MAX, NAME_LENGTH_MAX, RESOURCES_MAX
from merit.model.workers import Amount

Amounts = Mapping[str, float | str]
"""By name: numbers, or texts such as ``512Mi`` (``quantity_of``)."""

_THOUSAND: Final = 1_000
_MOST: Final = AMOUNT_THOUSANDTHS_MAX // _THOUSAND
_BINARY: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SIZES: Final = _BINARY | {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_QUANTITY: Final = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)(m|k|M|G|T|Ki|Mi|Gi|Ti|)", re.ASCII)


def amounts_of(field: str, given: Amounts) -> tuple[Amount, ...]:
    """Resources by name (``cpu`` in cores, ``memory`` in bytes, ``network`` in bytes a second, ``gpu`` in devices, or any
    other), in the order of their names.

    Raises:
        ValueError: with ``field``: one has no name, or is nothing that can be reckoned with.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f'{field}: must be amounts by name, such as {{"cpu": 0.5}}, not {given!r}')
    if len(given) > RESOURCES_MAX:
        raise ValueError(f"{field}: {len(given)} resources; {RESOURCES_MAX} at most")
    return tuple(sorted(_amount(field, name, number) for name, number in given.items()))


def _amount(field: str, name: str, number: float | str) -> Amount:
    if not isinstance(name, str) or not (name.isprintable() and 0 < len(name) <= NAME_LENGTH_MAX):
        raise ValueError(f"{field}: {name!r} is no name of 1 to {NAME_LENGTH_MAX} characters")
    if isinstance(number, str):
        try:
            number = quantity_of(number)
        except ValueError as error:
            raise ValueError(f"{field}: {name}: {error}") from None
    is_number = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    if not is_number or not 0 <= number <= _MOST:
        raise ValueError(f"{field}: {name}: {number!r} is no number from 0 to {_MOST:,}")
    thousandths = round(number * _THOUSAND)
    if number and not thousandths:
        raise ValueError(f"{field}: {name}: {number!r} is less than a thousandth, the smallest amount there is")
    return Amount(name, thousandths)


def numbers_of(amounts: Iterable[Amount]) -> dict[str, float]:
    """The same the other way round; whole numbers as such."""
    return {
        amount.name: amount.thousandths / _THOUSAND
        if amount.thousandths % _THOUSAND
        else amount.thousandths // _THOUSAND
        for amount in amounts
    }


def quantity_of(text: str) -> float:
    """The amount that a text says, rounded to thousandths: a number of 0 or more, which may have a unit as in 512Mi, 2Gi, 1.5G
    or 500m. Whole numbers are such.

    Raises:
        ValueError: it says none, or one that cannot be reckoned with.
    """
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:NAME_LENGTH_MAX]!r} is no amount, such as 0.5, 500m, 512Mi or 2Gi")
    number, unit = found.groups()
    given = Decimal(number) / _THOUSAND if unit == "m" else Decimal(number) * _SIZES[unit]
    if given > _MOST:
        raise ValueError(f"{text!r} is more than {_MOST:,}, the largest amount there is")
    amount = round(given, 3)
    if given and not amount:
        raise ValueError(f"{text!r} is less than a thousandth, the smallest amount there is")
    return int(amount) if amount == int(amount) else float(amount)


def quantity(amount: float) -> str:
    """An amount as a text, exactly, in the largest binary unit of which it is a multiple: 0.5, 4, 512Mi."""
    if amount != int(amount):
        return f"{amount:.3f}".rstrip("0")
    whole = int(amount)
    for unit, size in reversed(_BINARY.items()):
        if whole and not whole % size:
            return f"{whole // size}{unit}"
    return str(whole)
