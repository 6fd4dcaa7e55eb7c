"""Is it JSON that everything behind the door can live with?"""

from __future__ import annotations

from typing import Any

import msgspec

from merit.model.json_depth import too_deep
from merit.model.limits import JSON_DEPTH_MAX


class BadJson(ValueError):
    """The message says what is wrong, and where."""


def check_json(data: bytes) -> Any:
    """The decoded value.

    Strict RFC 8259: NaN, infinities, lone surrogates and invalid UTF-8 are refused, as is nesting deeper than
    ``JSON_DEPTH_MAX``.

    Raises:
        BadJson: with the reason.
    """
    if too_deep(data):
        raise BadJson(f"is nested deeper than {JSON_DEPTH_MAX} levels")
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise BadJson(f"is not valid JSON: {error}; NaN, infinities and lone surrogates are not JSON") from None
    except UnicodeDecodeError as error:
        raise BadJson(f"is not valid UTF-8: {error.reason} at byte {error.start}") from None
