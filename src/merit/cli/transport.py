"""How gRPC is set up in the processes that are Merit's own (``merit up``, ``merit worker``).

A user's program that embeds a client or a worker keeps the environment that it has. There is no uvloop on purpose: it starts
programs by a fork in C, which deadlocks in a process that has gRPC's threads (seen after some thousand starts); asyncio
itself uses vfork, which is safe.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Final

_POLLING: Final = "-event_engine_client,-event_engine_listener"
_POLLING_KNOWN: Final = ("1.85.",)
"""Versions of grpcio that were measured with it; another one might complain about names that it does not know."""


def prepare() -> None:
    """Have gRPC read its sockets in the thread that waits for them, not hand each message from a thread of its own to
    that one: a tenth less time for a task that goes alone. To be called before gRPC is imported; what the user has set
    stays."""
    if version("grpcio").startswith(_POLLING_KNOWN):
        os.environ.setdefault("GRPC_EXPERIMENTS", _POLLING)
