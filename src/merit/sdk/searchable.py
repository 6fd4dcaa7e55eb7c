"""How a capability says that its tasks can be found by what is in a parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

from merit.model.searchable import MARK


@final
class _Mark:
    """Puts the mark into the schema of whatever it stands at."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {**handler(core), MARK: True}

    def __repr__(self) -> str:
        return "Searchable"


Searchable: Final = _Mark()
"""Marks a parameter, or a part of one: ``title: Annotated[str, Searchable]``. Tasks are found by the words in it then, by
everybody who may list tasks; all text in its value counts, however deep."""
