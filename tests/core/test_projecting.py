"""What the read model is told of events is what the state knows."""

import json

import pytest

from merit.core.apply import content_digest
from merit.core.codec import encode_state, fold
from merit.core.projecting import Projection, without_contents
from merit.core.state import State
from merit.core.submitting import asked_for
from merit.model.commands import RetryDead
from merit.model.limits import Limits
from merit.model.search import row_of
from merit.model.searchable import MARK
from merit.model.tasks import TaskState
from merit.testing.builders import (
    PRINCIPAL,
    TENANT,
    allocate,
    an_id,
    an_offer,
    attach,
    completed,
    detach,
    failed,
    say,
    submit,
    with_terms,
)
from tests.app.recorded_life import Recorded, a_busy_life
from tests.histories.replay import records_of
from tests.replay_on import HISTORIES


def folded(records):
    """The same twice: a fold, and a projection."""
    state, projection = State(), Projection(State())
    for record in records:
        fold(state, record)
        projection.fold(record)
    assert encode_state(projection.state) == encode_state(state)
    return state, projection


@pytest.mark.parametrize("path", sorted(HISTORIES.glob("*.json")), ids=lambda path: path.stem)
def test_it_folds_as_the_fold_does(path):
    state, projection = folded(records_of(json.loads(path.read_text())))
    tasks, workers = projection.take()
    rows = {row.id: row for row in tasks}
    assert {task.id for task in state.tasks.values() if task.state.final} <= rows.keys()
    assert all(row.state.final and row.ended_ns for row in tasks)
    assert {worker.worker for worker in workers if not worker.left_ns} == state.workers.keys()
    assert projection.take() == ([], [])


@pytest.mark.parametrize("seed", range(1, 6))
def test_rows_are_what_became_of_the_tasks(seed):
    recorded = a_busy_life(seed, "greedy-fit")
    state, projection = folded(recorded.disk.records)
    tasks, workers = projection.take()
    rows = {row.id: row for row in tasks}
    finals = [task for task in state.tasks.values() if task.state.final]
    assert len(rows) == len(finals) > 0
    for task in finals:
        bare = without_contents(task)
        assert rows[task.id] == row_of(bare, rows[task.id].sequence, words=rows[task.id].words)
        assert (bare.parameters, bare.result) == (b"", b"")
        assert not any(attempt.trail for attempt in bare.attempts)
        assert task.parameters
    assert {worker.worker for worker in workers} >= state.workers.keys()


def test_a_row_has_keys_words_and_what_came_of_a_dead_letter():
    recorded = Recorded()
    schema = json.dumps({"properties": {"city": {MARK: True}, "secret": {}}}).encode()
    attach(recorded.machine, "w1", offers=[an_offer("echo", input_schema=schema)])
    spec = with_terms(
        1,
        attempts_max=1,
        parameters=b'{"city": "Z\xc3\xbcrich", "secret": "Oslo"}',
        idempotency_key="key",
        labels=(("user", "ada"),),
        description="Nightly",
    )
    submit(recorded.machine, spec)
    allocate(recorded.machine)
    say(recorded.machine, reports=[failed(1)])
    recorded.machine.handle(RetryDead(TENANT, PRINCIPAL, [(an_id(1), an_id(2))]), recorded.machine.now_ns)
    recorded.close()
    tasks, _ = folded(recorded.disk.records)[1].take()
    dead, closed = tasks
    assert dead.words == "nightly attempt 1 went wrong zurich"
    assert (dead.key, dead.content) == ("key", asked_for(spec).hex())
    assert dead.content != content_digest("echo", b"", "", ()).hex()
    assert (dead.labels, dead.workers, dead.state) == ((("user", "ada"),), ("w1",), TaskState.DEAD)
    assert (dead.order, dead.task.successor) == (closed.order, "")
    assert closed.task.successor == an_id(2)


def test_workers_come_and_go():
    recorded = Recorded()
    offers = (an_offer("echo", version="1.2.0", tags=("eu", "gpu")), an_offer("sum", version="2.0.0"))
    attach(recorded.machine, "w1", offers=offers, tags=("gpu",), tenants=("acme",))
    recorded.close()
    detach(recorded.machine, "w1", bye=True)
    attach(recorded.machine, "w2")
    recorded.close()
    _, (left, here) = folded(recorded.disk.records)[1].take()
    assert (left.worker, left.tags, left.lost) == ("w1", ("gpu", "eu"), False)
    assert (left.capabilities, left.versions, left.tenants) == (("echo", "sum"), ("1.2.0", "2.0.0"), ("acme",))
    assert left.joined_ns < left.left_ns
    assert (here.worker, here.left_ns, here.capabilities) == ("w2", 0, ("echo",))


def test_a_task_that_is_forgotten_at_once_has_its_row_all_the_same():
    recorded = Recorded(Limits(finals_max=0))
    attach(recorded.machine, "w1")
    submit(recorded.machine, with_terms(1))
    allocate(recorded.machine)
    say(recorded.machine, reports=[completed(1)])
    recorded.close()
    state, projection = folded(recorded.disk.records)
    assert not state.tasks
    assert [row.state for row in projection.take()[0]] == [TaskState.COMPLETED]
