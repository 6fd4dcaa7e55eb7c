"""The output of a running program, line by line, for whoever follows its task."""

from __future__ import annotations

from typing import Final

from merit.sdk.context import Context

LINE_BYTES_MAX: Final = 4 * 1024
_LOOKED_AT_BYTES_MAX: Final = 64 * 1024
"""Of one portion: nobody reads more than its end, and a program may write gigabytes."""


class LiveLines:
    """One of the program's outputs. Whatever comes on it is a sign of life.

    Args:
        context: of the attempt.
        shown: whether its lines are worth seeing.
    """

    def __init__(self, context: Context, *, shown: bool) -> None:
        self._context = context
        self._shown = shown
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """The program has written this."""
        if not self._shown:
            self._context.beat()
            return
        if len(data) > _LOOKED_AT_BYTES_MAX:
            data, self._rest = data[-_LOOKED_AT_BYTES_MAX:], b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            lines.append(self._rest)
            self._rest = b""
        if lines:
            self._context.tell(*(line[:LINE_BYTES_MAX].decode("utf-8", "replace").rstrip("\r") for line in lines))
        else:
            self._context.beat()
