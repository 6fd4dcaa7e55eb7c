"""What a run left behind, read without the help of the code that wrote it, and what must be true of it."""

from collections import Counter, defaultdict
from hashlib import sha256
from pathlib import Path

from msgspec import Struct, field

from merit.app.state_directory import CELL
from merit.core.codec import decode_event
from merit.model.events import AttemptAssigned, AttemptFailed, TaskCanceled, TaskCompleted, TaskDied, TaskSubmitted
from merit.model.tasks import AttemptState, TaskState
from merit.sdk.results import Result
from merit.storage.sqlite_reader import open_reader
from merit.storage.verify import verify_journal
from tests.crash.queue_evidence import QueueTrail

FINAL = {TaskCompleted: TaskState.COMPLETED, TaskDied: TaskState.DEAD, TaskCanceled: TaskState.CANCELED}


class Trail(Struct):
    """All that a journal says of one task."""

    spec: TaskSubmitted
    assigned: dict[int, str] = field(default_factory=dict)
    completed_by: list[int] = field(default_factory=list)
    failed: list[AttemptState] = field(default_factory=list)
    finals: list[TaskState] = field(default_factory=list)
    result: bytes = b""
    result_blob: str = ""


class Journalled(Struct):
    tasks: dict[str, Trail]
    epochs: int
    queue: QueueTrail


def read_journal(state: Path) -> Journalled:
    """Fails when the journal is not whole, or says something twice."""
    with open_reader(state / "journal", CELL) as reader:
        verification = verify_journal(reader)
        assert verification.ok, verification.problems
    tasks: dict[str, Trail] = {}
    queue = QueueTrail()
    with open_reader(state / "journal", CELL) as reader:
        for record in reader.read():
            payloads = {sha256(payload).digest(): payload for payload in record.payloads}
            for data in record.events:
                event = decode_event(data)
                queue.take(event, record.time_ns)
                if isinstance(event, TaskSubmitted):
                    assert event.task not in tasks, f"{event.task} was submitted twice"
                    tasks[event.task] = Trail(event)
                elif isinstance(event, AttemptAssigned):
                    assert event.number not in tasks[event.task].assigned
                    tasks[event.task].assigned[event.number] = event.worker
                elif isinstance(event, AttemptFailed):
                    tasks[event.task].failed.append(event.state)
                elif isinstance(event, TaskCompleted | TaskDied | TaskCanceled):
                    trail = tasks[event.task]
                    trail.finals.append(FINAL[type(event)])
                    if isinstance(event, TaskCompleted):
                        trail.completed_by.append(event.number)
                        trail.result = payloads.get(event.result, b"")
                        trail.result_blob = event.result_blob
    return Journalled(tasks, verification.epochs, queue)


def read_executions(file: Path) -> Counter[tuple[str, int]]:
    """How often each attempt was begun, as the functions themselves noted."""
    counts: Counter[tuple[str, int]] = Counter()
    if file.exists():
        for line in file.read_text().splitlines():
            task, number, *_ = line.split()
            counts[task, int(number)] += 1
    return counts


def check(state: Path, executions_file: Path, acknowledged: set[str], told: dict[str, Result]) -> Journalled:
    """Nothing acknowledged is lost, everything is final once, nobody was told anything else, nothing was run unasked."""
    journalled = read_journal(state)
    tasks = journalled.tasks
    missing = acknowledged - tasks.keys()
    assert not missing, f"acknowledged and not in the journal: {missing}"
    wrong = {task: trail.finals for task, trail in tasks.items() if len(trail.finals) != 1}
    assert not wrong, f"not final exactly once: {wrong}"
    untold = acknowledged - told.keys()
    assert not untold, f"the client never heard of {untold}"
    for task, result in told.items():
        trail = tasks[task]
        assert [result.state] == trail.finals, f"{task}: told {result.state}, journalled {trail.finals}"
        if result.ok:
            assert (
                sha256(result.json).hexdigest() == trail.result_blob
                if trail.result_blob
                else result.json == trail.result
            )
    executions = read_executions(executions_file)
    by_task: dict[str, set[int]] = defaultdict(set)
    for (task, number), count in executions.items():
        assert number in tasks[task].assigned, f"{task}: attempt {number} was run, but is not in the journal"
        assert count == 1, f"{task}: attempt {number} was run {count} times"
        by_task[task].add(number)
    for task, trail in tasks.items():
        if trail.finals == [TaskState.COMPLETED]:
            assert set(trail.completed_by) <= by_task[task], f"{task} is completed, but its attempt never ran"
        assert len(trail.failed) <= trail.spec.attempts_max, f"{task} failed {len(trail.failed)} times"
    return journalled
