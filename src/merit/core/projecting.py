"""What the read model has to learn of events: rows of tasks as they end and of workers as they come and go.

It is taken from the state while that is folded, since the state has the whole task at the very moment when it ends.
"""

from __future__ import annotations

from copy import copy
from hashlib import sha256

import msgspec

from merit.core.apply import apply, content_digest
from merit.core.codec import decode_events
from merit.core.state import State
from merit.model.events import (
    DeadLetterClosed,
    TaskCanceled,
    TaskCompleted,
    TaskDied,
    WorkerJoined,
    WorkerLeft,
)
from merit.model.record import Record
from merit.model.search import TaskRow, WorkerRow, row_of, texts_of, words_of
from merit.model.searchable import Marked
from merit.model.tasks import Task
from merit.model.workers import Worker

_ENDS = frozenset({TaskCompleted, TaskDied, TaskCanceled, DeadLetterClosed})


class Projection:
    """Folds records into ``state`` and keeps what has become of them until it is taken."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.tasks: list[TaskRow] = []
        self.workers: dict[str, WorkerRow] = {}
        self._marked = Marked(state.offers)

    def fold(self, record: Record) -> None:
        """As ``merit.core.codec.fold``, and raises as that."""
        state = self.state
        if record.first != state.sequence + 1:
            raise ValueError(f"record {record.first} does not follow a state at {state.sequence}")
        payloads = {sha256(payload).digest(): payload for payload in record.payloads}
        time_ns = record.time_ns
        tasks = state.tasks
        for event in decode_events(record.events):
            kind = type(event)
            if kind in _ENDS:
                # Looked up before: it may be forgotten at the moment when it ends.
                task = tasks.get(event.task)  # type: ignore[attr-defined]  # all of these are about a task
                apply(state, event, payloads, time_ns)
                if task is not None:
                    self.tasks.append(self._row(task))
            elif isinstance(event, WorkerLeft):
                worker = state.workers.get(event.worker)
                apply(state, event, payloads, time_ns)
                if worker is not None:
                    self.workers[worker.id] = self._worker_row(worker, time_ns, event)
            else:
                apply(state, event, payloads, time_ns)
                if kind is WorkerJoined:
                    name: str = event.worker  # type: ignore[attr-defined]  # it is about a worker
                    self.workers[name] = self._worker_row(state.workers[name])

    def take(self) -> tuple[list[TaskRow], list[WorkerRow]]:
        """What has come up since the last call."""
        tasks, self.tasks = self.tasks, []
        workers, self.workers = self.workers, {}
        return tasks, list(workers.values())

    def _row(self, task: Task) -> TaskRow:
        terms, content = task.terms, ""
        if terms is not None and terms.idempotency_key:
            parameters = b"" if task.parameters_blob else sha256(task.parameters).digest()
            content = content_digest(task.capability, parameters, task.parameters_blob, task.after).hex()
        return row_of(without_contents(task), self.state.sequence, content, self._words(task))

    def _words(self, task: Task) -> str:
        texts, attempts = self._marked.texts(task), task.attempts
        # Of most tasks nothing is said.
        if task.description or task.failure is not None or len(attempts) > 1 or (attempts and attempts[0].failure):
            texts = [*texts_of(task), *texts]
        return " ".join(words_of(texts)) if texts else ""

    def _worker_row(self, worker: Worker, left_ns: int = 0, left: WorkerLeft | None = None) -> WorkerRow:
        profile, before = self.state.profiles.get(worker.id), self.workers.get(worker.id)
        offers = worker.offers
        first_ns = profile.first_ns if profile is not None else worker.joined_ns
        if before is not None:
            # The profile may have been forgotten since.
            first_ns = min(first_ns, before.first_ns)
        return WorkerRow(
            worker.id,
            self.state.sequence,
            worker.tenant,
            tuple(offer.name for offer in offers),
            tuple(dict.fromkeys([*worker.tags, *(tag for offer in offers for tag in offer.tags)])),
            first_ns,
            worker.joined_ns,
            left_ns,
            left is not None and left.lost,
            left.reason if left is not None else "",
            tuple(offer.version for offer in offers),
            worker.tenants,
        )


def without_contents(task: Task) -> Task:
    """The task as people look at it: without parameters, results and trails, which are in the journal."""
    # Copied by msgspec, since naming all its fields takes three times as long.
    kept = copy(task)
    kept.parameters = kept.result = b""
    kept.blocked_by = kept.due_ns = 0
    kept.inputs = ()
    for attempt in task.attempts:
        if attempt.trail:
            kept.attempts = tuple([msgspec.structs.replace(one, trail=b"") for one in task.attempts])
            break
    return kept
