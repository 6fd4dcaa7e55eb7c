"""For those who wait without an event loop: a loop in a thread of its own that does the waiting for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def outcome(future: Future[T]) -> T:
    """Waits for what was begun, and returns or raises what comes of it."""
    try:
        return future.result()
    except BaseException:
        future.cancel()  # whoever waited was interrupted: nobody wants the result any more
        raise


class Bridge:
    """Runs coroutines in a private thread, which is started by the first one; any number of threads may use it.

    The thread ends with `close`, and with the process at the latest.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()
        self._closed = False

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Has `work` done; canceling the future cancels it. Raises `RuntimeError` after `close`."""
        with self._turn:
            if self._closed:
                work.close()
                raise RuntimeError(f"{self._name} is closed: open it again")
            if self._loop is None:
                started = threading.Event()
                self._thread = threading.Thread(target=self._serve, args=(started,), name=self._name, daemon=True)
                self._thread.start()
                started.wait()
            assert self._loop is not None
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Cancels what is under way, and ends the thread. May be called twice."""
        with self._turn:
            self._closed = True
            if self._loop is not None and self._thread is not None and self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._end.set)
        if self._thread is not None:
            self._thread.join()

    def _serve(self, started: threading.Event) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            started.set()
            runner.run(self._until_closed())

    async def _until_closed(self) -> None:
        await self._end.wait()
