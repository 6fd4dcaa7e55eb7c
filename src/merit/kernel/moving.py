"""Which workers something has happened to, for those who watch the fleet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from merit.core.state import State
from merit.model.commands import AttachWorker, Command, DetachWorker, TakeFrame
from merit.model.events import Event


def moved(command: Command, events: Iterable[Event], state: State) -> Iterator[str]:
    """The workers, some of them several times, that a command and the events which came of it are about."""
    if isinstance(command, AttachWorker):
        yield command.hello.worker
    elif isinstance(command, TakeFrame | DetachWorker):
        yield command.worker
    for event in events:
        worker = getattr(event, "worker", "")
        task = state.tasks.get(getattr(event, "task", "")) if not worker else None
        if worker:
            yield worker
        elif task is not None and task.attempts:
            yield task.attempts[-1].worker
