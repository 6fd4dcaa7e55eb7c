"""Who is told the outcome of which task."""

from __future__ import annotations

from merit.session.server_end import ServerEnd


class Watchers:
    """By task: the clients' streams that wait for it. Nearly always one, which is then kept without a list.

    Streams that have ended are not looked for; they go when their task ends, or when another one asks after it.
    """

    def __init__(self) -> None:
        self._by_task: dict[str, ServerEnd | list[ServerEnd]] = {}

    def __len__(self) -> int:
        return len(self._by_task)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._by_task

    def tasks(self) -> list[str]:
        """That are watched."""
        return list(self._by_task)

    def add(self, task_id: str, end: ServerEnd) -> None:
        """``end`` is told when the task ends."""
        watcher = self._by_task.get(task_id)
        if watcher is None:
            self._by_task[task_id] = end
        elif isinstance(watcher, list):
            watcher[:] = [other for other in watcher if not other.closing and other is not end] + [end]
        elif watcher is not end:
            self._by_task[task_id] = end if watcher.closing else [watcher, end]

    def take(self, task_id: str) -> list[ServerEnd]:
        """Those who are to be told now; they are watching no longer."""
        watcher = self._by_task.pop(task_id, None)
        if watcher is None:
            return []
        return [end for end in (watcher if isinstance(watcher, list) else [watcher]) if not end.closing]
