"""The event loop of the processes that are Merit's own (``merit up``, ``merit worker``), made as quick as it can be.

A user's program that embeds a client or a worker keeps the loop and the environment that it has.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from importlib.metadata import version
from typing import Any, Final

_POLLING: Final = "-event_engine_client,-event_engine_listener"
_POLLING_KNOWN: Final = ("1.85.",)
"""Versions of grpcio that were measured with it; another one might complain about names that it does not know."""


def prepare() -> None:
    """Have gRPC read its sockets in the thread that waits for them, not hand each message from a thread of its own to
    that one: a tenth less time for a task that goes alone. To be called before gRPC is imported; what the user has set
    stays."""
    if version("grpcio").startswith(_POLLING_KNOWN):
        os.environ.setdefault("GRPC_EXPERIMENTS", _POLLING)


def run(main: Coroutine[Any, Any, None]) -> None:
    """``asyncio.run``, on uvloop where it is installed (the extra ``uvloop``)."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
