"""Whether every decision of a simulated cell can be explained from its journal alone, and comes out the same again."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from merit.allocation.catalogue import BUILT_IN
from merit.core.apply import apply
from merit.core.codec import decode_event, state_digest
from merit.core.explaining import explain_assigned, explain_now
from merit.core.machine import Machine
from merit.core.state import State
from merit.lab.fleet_book import FleetBook
from merit.lab.violation import Violation
from merit.model.events import AttemptAssigned, TaskSubmitted
from merit.model.limits import Limits
from merit.model.record import Record

RULINGS_MAX = 20


def check_explained(records: Iterable[Record], limits: Limits) -> State:
    """Fold the journal anew, and ask before each assignment who gets the task; the state at its end.

    Raises:
        Violation: somebody else got it, or asking has changed something.
    """
    state = State()
    for record in records:
        payloads = {sha256(payload).digest(): payload for payload in record.payloads}
        for event in map(decode_event, record.events):
            if isinstance(event, AttemptAssigned):
                _check(state, event, record.time_ns, limits)
            apply(state, event, payloads, record.time_ns)
    return state


def check_waiting(machine: Machine, book: FleetBook, spec: TaskSubmitted) -> None:
    """Ask why a task waits, of a cell of which all is durable.

    Raises:
        Violation: it is said that somebody could do it who never can.
    """
    said = explain_now(machine, machine.state.tasks[spec.task], RULINGS_MAX)
    if not said.why:
        raise Violation("explain", spec.task, "waits, and nothing is said of that")
    for ruling in said.rulings:
        against = list(book.against(spec, book.workers[ruling.worker], now=False)) if ruling.fits else []
        if against:
            raise Violation("explain", spec.task, f"{ruling.worker} is said to fit, which {against[0][1]}")


def _check(state: State, event: AttemptAssigned, now_ns: int, limits: Limits) -> None:
    before = state_digest(state)
    said = explain_assigned(state, event, now_ns, BUILT_IN, limits, RULINGS_MAX)
    if state_digest(state) != before:
        raise Violation("explain", event.task, "explaining why it was given out has changed the state")
    first = [ruling.worker for ruling in said.rulings if ruling.fits][:1]
    if not said.agrees or first != [event.worker]:
        raise Violation("explain", event.task, f"attempt {event.number}: {said.why}; {said.strategy}, {said.rulings}")
