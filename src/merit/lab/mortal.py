"""A process that may be killed before and after everything that it writes, and in place of a thread jobs that it loses then."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from merit.lab.violation import Violation


class Killed(BaseException):
    """As by kill -9: nobody may catch it but whoever plays the process."""


class Mortal:
    """Passes on what is asked of a port.

    Args:
        port: what it stands for.
        fate: called before and after each write with its name; raises `Killed`.
        written: by name of each method that writes: what is told of it, with its arguments, once it has.
    """

    def __init__(self, port: object, fate: Callable[[str], None], written: Mapping[str, Callable[..., None]]) -> None:
        self._port = port
        self._fate = fate
        self._written = written

    def __getattr__(self, name: str) -> Any:
        """What the port has under this name."""
        found = getattr(self._port, name)
        told = self._written.get(name)
        if told is None:
            return found

        def write(*given: Any) -> Any:
            self._fate(f"before {name}")
            answer = found(*given)
            told(*given)
            self._fate(f"after {name}")
            return answer

        return write


class LaterJobs:
    """Takes the place of a ``ThreadPoolExecutor`` with one thread: jobs are done in their order, when somebody waits for them
    or lets some be done; those that were not done are lost with the process."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[LaterJob, Callable[[], None]]] = deque()
        self.failed = False
        """One of them has."""

    def submit(self, job: Callable[[], None]) -> LaterJob:
        """See ``Executor``."""
        future = LaterJob(self)
        self._waiting.append((future, job))
        return future

    def shutdown(self) -> None:
        """See ``Executor``; all that waits is done."""
        while self.do_one():
            pass

    def do_one(self) -> bool:
        """Have the first of those that wait done. Whether there was one."""
        if not self._waiting:
            return False
        future, job = self._waiting.popleft()
        try:
            job()
        except Violation:
            raise
        except Exception as error:  # noqa: BLE001  (as an executor does: whoever asks for the result gets it)
            self.failed = True
            future.set_exception(error)
        else:
            future.set_result(None)
        return True


class LaterJob(Future[None]):
    """What comes of a job."""

    def __init__(self, jobs: LaterJobs) -> None:
        super().__init__()
        self._jobs = jobs

    def result(self, timeout: float | None = None) -> None:
        """See ``Future``."""
        while not self.done():
            self._jobs.do_one()
        super().result(timeout)
