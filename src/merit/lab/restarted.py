"""What a cell comes to when it starts, held against the journal and against what was promised."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from merit.core.codec import state_digest
from merit.core.invariants import InvariantBroken, check
from merit.core.state import State
from merit.lab.ledger import Ledger
from merit.lab.violation import Violation
from merit.model.tasks import AttemptState


def check_started(state: State, ledger: Ledger, acknowledged: AbstractSet[str]) -> None:
    """What a start came to is what the journal says, and holds all that was promised.

    Raises:
        Violation: it is not, or does not.
    """
    if state_digest(state) != state_digest(ledger.state):
        raise Violation("fold", "", f"the state at {state.sequence} is not the fold of the journal")
    try:
        check(None, state)
    except InvariantBroken as broken:
        raise Violation("invariants", broken.about.split()[-1], str(broken)) from broken
    live = {task.id for task in state.tasks.values() if not task.state.final}
    lost = acknowledged - live - ledger.settled.keys()
    if lost:
        raise Violation("acknowledged", min(lost), "was acknowledged, and is neither alive nor final")
    _check_letters(state, ledger)


def _check_letters(state: State, ledger: Ledger) -> None:
    """The dead letters are those that died and that nobody has closed, with all that happened to them."""
    letters = ledger.terms_book.letters
    if list(state.dead_letters) != list(letters):
        wrong = sorted(set(state.dead_letters) ^ set(letters))
        raise Violation("dead letters", wrong[0] if wrong else "", f"are {list(state.dead_letters)} of {letters}")
    for task in state.dead_letters.values():
        reasons = [attempt.failure for attempt in task.attempts if attempt.state is not AttemptState.RETURNED]
        if task.failure is None or None in reasons or len(task.attempts) != ledger.attempts.get(task.id, 0):
            raise Violation("dead letters", task.id, f"says too little: {task.failure}, attempts {reasons}")
