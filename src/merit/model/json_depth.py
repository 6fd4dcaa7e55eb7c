"""How deep a JSON text is nested: the worker measures what its functions return as the door will measure it."""

from __future__ import annotations

import re

from merit.model.limits import JSON_DEPTH_MAX

_STRING = re.compile(rb'"[^"\\]*(?:\\[\s\S][^"\\]*)*"')
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


def too_deep(data: bytes, depth_max: int = JSON_DEPTH_MAX) -> bool:
    """Whether brackets outside strings are nested deeper than ``depth_max``."""
    # Counting the brackets costs a tenth of decoding, and spares nearly everything the exact measure.
    if data.count(b"[") + data.count(b"{") <= depth_max:
        return False
    depth = 0
    for bracket in _STRING.sub(b"", data).translate(None, _OTHERS):
        if bracket in b"[{":
            depth += 1
            if depth > depth_max:
                return True
        else:
            depth -= 1
    return False
