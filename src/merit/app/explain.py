"""Explains a past decision from the journal, in a process of its own: ``python -m merit.app.explain`` and the argument of
``main``. It is started by ``merit.app.explainer``, beside the running cell, which it does not slow.

It folds the journal to just before the event that bound the task to its worker, from the latest snapshot before it
where there is one, and asks the rules again.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

import msgspec

from merit.app.past import fold_until
from merit.app.stores import stores_of_environment
from merit.app.strategies import load_strategies
from merit.core.codec import decode_event
from merit.core.explaining import Explanation, explain_assigned
from merit.model.events import AttemptAssigned
from merit.model.limits import SECOND_NS, Limits
from merit.model.record import JournalError, Record
from merit.ports.journal import JournalReader
from merit.ports.snapshots import SnapshotStore, SnapshotUnavailable
from merit.runtime.task_finder import first_since

_CLOCK_BACK_NS: Final = 3600 * SECOND_NS
"""How far the clock may have been set back between two leaders for the event to be found."""
_SAY_S: Final = 0.2
_MEMORY_BYTES_MIN: Final = 1024**3


class Asked(msgspec.Struct, frozen=True):
    """What is to be explained; ``assigned_ns``: when the attempt was given out."""

    task: str
    number: int
    assigned_ns: int
    rulings_max: int
    limits: Limits


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the answer: how far it is, what was found, or why nothing can be."""

    sequence: int = 0
    last: int = 0
    explanation: Explanation | None = None
    problem: str = ""


def explain(
    reader: JournalReader, snapshots: SnapshotStore, asked: Asked, reached: Callable[[int, int], None]
) -> Explanation:
    """Why the attempt went where it went.

    Args:
        reader: of the journal.
        snapshots: one before the decision is where to begin.
        asked: which attempt.
        reached: called now and then with the sequence that was reached, and that which is wanted.

    Raises:
        LookupError: the journal has no such attempt.
        JournalError, SnapshotUnavailable: it cannot be read.
    """
    record, place, event = _find(reader, asked)
    last = record.first + place - 1
    state = fold_until(reader, snapshots, last, lambda sequence: reached(sequence, last))
    reached(last, last)
    return explain_assigned(state, event, record.time_ns, load_strategies(), asked.limits, asked.rulings_max)


def _find(reader: JournalReader, asked: Asked) -> tuple[Record, int, AttemptAssigned]:
    """The record with the event, the event's place in it, and the event."""
    name = asked.task.encode()
    for since_ns in (asked.assigned_ns, asked.assigned_ns - _CLOCK_BACK_NS):
        for record in reader.read(first_since(reader, since_ns)):
            if record.time_ns > asked.assigned_ns + _CLOCK_BACK_NS:
                break
            if record.time_ns != asked.assigned_ns:
                continue
            for place, data in enumerate(record.events):
                # Looked at before it is decoded: nearly all are about others.
                if name in data:
                    event = decode_event(data)
                    if isinstance(event, AttemptAssigned) and (event.task, event.number) == (asked.task, asked.number):
                        return record, place, event
    first = reader.base().next
    gone = f": it begins with event {first:,}, and what was before is not kept any more" if first > 1 else ""
    raise LookupError(f"the journal does not say to whom attempt {asked.number} of task {asked.task} was given{gone}")


def _say(told: Told) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
    sys.stdout.buffer.flush()


class _FoldNews:
    """Says how far it is now and then. Should nobody listen any more, this ends the process."""

    def __init__(self) -> None:
        self._said_s = time.monotonic()

    def __call__(self, sequence: int, last: int) -> None:
        if time.monotonic() - self._said_s >= _SAY_S:
            self._said_s = time.monotonic()
            _say(Told(sequence, last))


def _bound_memory() -> None:
    """Half of what the machine has: an explanation is not worth the cell."""
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    bound, most = max(_MEMORY_BYTES_MIN, half), resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (bound if most == resource.RLIM_INFINITY else min(bound, most), most))


def main(asked: str) -> None:
    """Write the answer to stdout, a JSON document a line (``Told``). The environment says where the control plane keeps its
    state (``stores_of_environment``).

    Args:
        asked: ``Asked`` as JSON.
    """
    os.nice(10)
    _bound_memory()
    try:
        with closing(stores_of_environment()) as stores, closing(stores.reader()) as reader:
            wanted = msgspec.json.decode(asked, type=Asked)
            found = explain(reader, stores.snapshots(), wanted, _FoldNews())
    except MemoryError:
        _say(Told(problem="the state of then does not fit into half of this machine's memory"))
    except (LookupError, JournalError, SnapshotUnavailable, ValueError) as error:
        _say(Told(problem=str(error)))
    else:
        _say(Told(explanation=found))


if __name__ == "__main__":
    main(*sys.argv[1:])
