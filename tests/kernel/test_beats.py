"""A worker that has nothing to say and beats is alive; one that does not even beat is lost."""

import pytest

from merit.allocation.catalogue import BUILT_IN
from merit.core.machine import Machine
from merit.core.state import State
from merit.kernel.kernel import Kernel
from merit.kernel.quarantine import Quarantine
from merit.model.frames import CellFrame, WorkerFrame
from merit.model.limits import SECOND_NS, Limits
from merit.model.record import Tail
from merit.session.cell_end import CellEnd
from merit.session.worker_end import WorkerEnd
from merit.testing.builders import START_NS, an_offer

LIMITS = Limits(stale_ns=30 * SECOND_NS, beat_ns=10 * SECOND_NS)


@pytest.mark.parametrize("beats", [True, False])
def test_a_worker_with_nothing_to_say_lives_by_its_beats(beats):
    kernel = Kernel("cell", Machine(State(), BUILT_IN, LIMITS), Tail(1, Tail().last_hash, 1), "l", Quarantine())
    worker, end = WorkerEnd("w1", "b1", (an_offer(),), 2), CellEnd()

    def turn(now_ns):
        """One batch, made durable at once; the frames that come of it are taken by the worker."""
        record = kernel.step(now_ns)
        if record is not None:
            kernel.committed(record.last)
        frames = [frame for _, frame in kernel.outgoing()]
        for frame in frames:
            if isinstance(frame, CellFrame) and not frame.refused:
                worker.take(frame)
        return frames

    worker.connect()
    kernel.worker_frame(end, worker.frame() or WorkerFrame())
    turn(START_NS)
    assert worker.welcome is not None
    said = []
    for number in range(1, 11):
        if beats:
            kernel.worker_frame(end, worker.frame(beat=True) or WorkerFrame())
        said += turn(START_NS + number * LIMITS.beat_ns)
    assert ("w1" in kernel.machine.state.workers) is beats
    if beats:
        assert said == [], "a beat asks for no answer"


def test_after_a_stop_of_the_cell_a_silent_worker_is_given_time():
    kernel = Kernel("cell", Machine(State(), BUILT_IN, LIMITS), Tail(1, Tail().last_hash, 1), "l", Quarantine())
    worker, end = WorkerEnd("w1", "b1", (an_offer(),), 2), CellEnd()
    worker.connect()
    kernel.worker_frame(end, worker.frame() or WorkerFrame())
    kernel.step(START_NS)
    resumed_ns = START_NS + 10 * LIMITS.stale_ns
    kernel.awake(resumed_ns)
    kernel.step(resumed_ns)
    assert "w1" in kernel.machine.state.workers
    kernel.step(resumed_ns + LIMITS.awake_ns + 1)
    assert "w1" not in kernel.machine.state.workers, "still silent"
