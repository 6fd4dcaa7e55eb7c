"""What one has to know of gRPC's calls to make one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import grpc.aio


@contextmanager
def calling(ended: str = "the connection was closed meanwhile") -> Iterator[None]:
    """Around a call: raises ``ConnectionError`` when the channel is closed under it, or the other side cancels it.

    gRPC makes of both what the one who waits for the call would take for the end of its own task.

    Args:
        ended: what to say then.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ConnectionError(ended) from None
    except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
        raise ConnectionError(f"the connection is closed: {error}") from error
