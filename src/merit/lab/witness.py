"""Stands at the cell's door and holds each word that leaves against what is durable at that moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from merit.lab.asked import review_of
from merit.lab.ledger import Ledger
from merit.lab.network import Stream
from merit.lab.violation import Violation
from merit.model.frames import Assignment, CellFrame, ClientFrame, ServerFrame, Settled, WorkerFrame
from merit.model.tasks import ReviewKind, TaskSpec, TaskState
from merit.session.cell_end import CellEnd
from merit.session.server_end import ServerEnd


class Witness:
    """See the module."""

    def __init__(self, ledger: Ledger, is_outcome: Callable[[Settled, Settled], bool] | None = None) -> None:
        self._ledger = ledger
        self._is_outcome = is_outcome or Settled.__eq__

    def leaves(self, stream: Stream, frame: CellFrame | ServerFrame) -> None:
        """The cell says ``frame``.

        Raises:
            Violation: it says what is not durable, or not so.
        """
        if isinstance(frame, CellFrame):
            self._to_worker(stream, frame)
        else:
            self._to_client(stream, frame)
        while stream.promised and stream.promised[0].sequence <= frame.ack:
            said = stream.promised.popleft()
            if isinstance(said, WorkerFrame):
                self._report_acked(stream, said)
            else:
                self._submit_acked(stream, said)

    def _to_worker(self, stream: Stream, frame: CellFrame) -> None:
        assert isinstance(stream.end, CellEnd)
        if stream.end.hello is None:
            return
        live, worker = self._ledger.live, stream.end.hello.worker
        if not stream.welcomed and not frame.refused:
            stream.welcomed = True
            if frame.welcome is None:
                raise Violation("welcome", worker, "something came before the welcome")
        for assignment in frame.assignments:
            key = (assignment.task, assignment.number)
            if key in stream.assigned:
                raise Violation(
                    "sent twice", assignment.task, f"attempt {assignment.number} was sent twice on one stream"
                )
            stream.assigned.add(key)
            holder = live.get(assignment.task)
            self._check_inputs(assignment)
            # It may have ended since that was decided; but then it was alive once, and durably so.
            live_there = holder is not None and holder[:2] == (assignment.number, worker)
            if not live_there and not self._was_assigned(assignment.task, assignment.number, worker):
                message = f"attempt {assignment.number} was sent to {worker} before that was durable"
                raise Violation("durable first", assignment.task, message)
        for ref in frame.cancels:
            holder = live.get(ref.task)
            if holder is not None and holder[:2] == (ref.number, worker):
                raise Violation("durable first", ref.task, f"attempt {ref.number}, which is alive, was called off")

    def _check_inputs(self, assignment: Assignment) -> None:
        """The parameters that are results of other tasks are just those, each once."""
        spec = self._ledger.submitted.get(assignment.task)
        if spec is not None and (review := review_of(spec)) is not None and review.kind is ReviewKind.COPY:
            spec = self._ledger.submitted[review.of]
        terms = spec.terms if spec is not None else None
        wanted: dict[str, bytes] = {}
        for name, needed in terms.inputs if terms is not None else ():
            outcome = self._ledger.settled.get(needed)
            completed = outcome is not None and outcome.state is TaskState.COMPLETED
            wanted[name] = outcome.result if outcome is not None and completed else b"null"
        given = {item.name: item.result for item in assignment.inputs}
        if given != wanted or len(given) != len(assignment.inputs):
            raise Violation("inputs", assignment.task, f"was given {assignment.inputs} for {wanted}")

    def _was_assigned(self, task: str, number: int, worker: str) -> bool:
        known = self._ledger.state.tasks.get(task)
        if known is None:
            return task in self._ledger.settled
        attempt = known.attempt(number)
        return attempt is not None and attempt.worker == worker

    def _report_acked(self, stream: Stream, said: WorkerFrame) -> None:
        assert isinstance(stream.end, CellEnd)
        hello = stream.end.hello
        if hello is None:
            return
        ended = [(report.task, report.number) for report in said.reports]
        ended += [(ref.task, ref.number) for ref in said.returned]
        for task, number in ended:
            if self._ledger.live.get(task) == (number, hello.worker, hello.boot):
                message = f"the report of attempt {number} was acknowledged, and the attempt is alive"
                raise Violation("durable first", task, message)

    def _to_client(self, stream: Stream, frame: ServerFrame) -> None:
        for outcome in frame.outcomes:
            durable = self._ledger.settled.get(outcome.task)
            if durable is None or not self._is_outcome(outcome, durable):
                raise Violation("durable first", outcome.task, f"{outcome} was told, and {durable} is durable")
        stream.refused.update(refusal.task for refusal in frame.refusals)
        for task, existing in frame.known:
            self._known(stream, task, existing)
        for update in frame.updates:
            durable = self._ledger.settled.get(update.task)
            if update.state.final and (durable is None or durable.state is not update.state):
                raise Violation("durable first", update.task, f"{update} was told, and {durable} is durable")

    def _known(self, stream: Stream, task: str, existing: str) -> None:
        assert isinstance(stream.end, ServerEnd)
        said = (spec for frame in stream.promised if isinstance(frame, ClientFrame) for spec in specs_of(frame))
        book = self._ledger.terms_book
        if {book.stands_for(stream.end.tenant, spec) for spec in said if spec.id == task} != {existing}:
            raise Violation("one task per key", task, f"was called {existing}, and that is not what its key stands for")
        stream.known.add(task)

    def _submit_acked(self, stream: Stream, said: ClientFrame) -> None:
        for group in ([task] for task in said.tasks):
            self._taken_or_refused(stream, [task.id for task in group])
        for group in said.groups:
            self._taken_or_refused(stream, [task.id for task in group])
        for task_id in said.cancels:
            if task_id not in self._ledger.settled and task_id not in stream.refused:
                raise Violation("durable first", task_id, "its cancel was acknowledged, and it is not final")

    def _taken_or_refused(self, stream: Stream, tasks: list[str]) -> None:
        for task_id in tasks:
            if not (task_id in self._ledger.submitted or task_id in stream.refused or task_id in stream.known):
                raise Violation("durable first", task_id, "was acknowledged and is neither durable nor refused")
        # One that is another task by its key is neither: it is there already, whatever becomes of the rest.
        tasks = [task_id for task_id in tasks if task_id not in stream.known]
        taken = [task_id for task_id in tasks if task_id in self._ledger.submitted]
        if taken and len(taken) != len(tasks):
            raise Violation("all or nothing", taken[0], f"{len(taken)} of a group of {len(tasks)} were taken")


def specs_of(frame: ClientFrame) -> Iterable[TaskSpec]:
    """All that a frame submits."""
    yield from frame.tasks
    for group in frame.groups:
        yield from group
