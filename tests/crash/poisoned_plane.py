"""A control plane whose machine has a defect: it raises at whatever it does about the capability `poison`, at the point
that the environment variable POISON names. Arguments as for merit.testing.plane."""

import os
import sys
from typing import Any

from merit.core import apply
from merit.model.events import AttemptFailed, Event, TaskCompleted, TaskSubmitted
from merit.testing import plane

POINTS: dict[str, type[Event]] = {"submit": TaskSubmitted, "complete": TaskCompleted, "fail": AttemptFailed}
POINT = POINTS[os.environ["POISON"]]
_healthy = apply._APPLY[POINT]


def poisoned(state, event, payloads, now_ns):
    capability = event.capability if isinstance(event, TaskSubmitted) else state.tasks[event.task].capability
    if capability == "poison":
        raise RuntimeError("a defect for tests")
    _healthy(state, event, payloads, now_ns)


if __name__ == "__main__":
    rules: Any = apply._APPLY
    rules[POINT] = poisoned
    sys.exit(plane.main(*sys.argv[1:]))
