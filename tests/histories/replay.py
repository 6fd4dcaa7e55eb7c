"""Replays the recorded histories under the interpreter that runs it, and prints what came of each as JSON.

The histories are journals as older versions wrote them: they are kept for ever, and read for ever.
"""

import json
import platform
import sys
from base64 import b64decode
from pathlib import Path

from merit.core.codec import FOLD_VERSION, decode_state, encode_state, fold, state_digest
from merit.core.invariants import check
from merit.core.state import State
from merit.model.record import Record, Tail, decode_record, verify

HERE = Path(__file__).parent


def records_of(history):
    """The records of a history, read from its JSON."""
    return [decode_record(*(b64decode(part) for part in parts)) for parts in history["records"]]


def replay(records: list[Record]) -> State:
    """The state that the records give; by way of a snapshot in the middle, which must not make a difference."""
    state, tail = State(), Tail()
    for place, record in enumerate(records):
        tail = verify(record, tail)
        fold(state, record)
        check(None, state)
        if place == len(records) // 2:
            state = decode_state(encode_state(state))
    return state


def outcome(state):
    """What the digest stands for, in a form that does not depend on the version of the fold."""
    return [[task.id, task.state.name, [a.state.name for a in task.attempts]] for task in state.tasks.values()]


def main():
    histories = {}
    for path in sorted(HERE.glob("*.json")):
        state = replay(records_of(json.loads(path.read_text())))
        histories[path.stem] = {"digest": state_digest(state), "outcome": outcome(state)}
    found = {"python": platform.python_version(), "fold_version": FOLD_VERSION, "histories": histories}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
