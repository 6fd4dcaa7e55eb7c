"""Which event may happen to what, and what it makes of it. These tables are the law; :mod:`merit.core.apply` asks
them for every change, and the diagrams in the documentation are made from them.

Tasks::

    (new) ──▶ WAITING ──▶ PENDING ──▶ ASSIGNED ──▶ RUNNING ──▶ COMPLETED      (perhaps by way of AUDITING)
                 ▲           ▲ returned  │            │
                 │           └───────────┤            ├──▶ DEAD        (also from any state before)
                 └── back-off ───────────┴────────────┘
                                                          CANCELED     (from any state that is not final)

A final state never changes. ``AttemptFailed`` leaves the task where it is: what becomes of it is the next event
(``TaskDelayed`` or ``TaskDied``), in the same record.

Workers::

    (new) ──▶ PROBATION ──▶ ACTIVE ──▶ DRAINING ──▶ GONE      (GONE also from any other)
                   │  ▲      │  ▲
                   ▼  │      ▼  │
                      PAUSED
"""

from __future__ import annotations

from collections.abc import Mapping

from merit.model.events import (
    AttemptAssigned,
    AttemptFailed,
    AttemptReturned,
    AttemptStarted,
    AuditStarted,
    Event,
    TaskCanceled,
    TaskCompleted,
    TaskDelayed,
    TaskDied,
    TaskReleased,
    WorkerAdmitted,
    WorkerDraining,
    WorkerJoined,
    WorkerLeft,
    WorkerPaused,
    WorkerResumed,
)
from merit.model.tasks import AttemptState, TaskState
from merit.model.workers import WorkerState

_T = TaskState
_A = AttemptState
_W = WorkerState

_FAILED_AS = frozenset({_A.FAILED, _A.REFUSED, _A.TIMED_OUT, _A.LOST, _A.CANCELED, _A.REJECTED})

TASK: Mapping[type[Event], Mapping[TaskState, TaskState]] = {
    TaskReleased: {_T.WAITING: _T.PENDING},
    AttemptAssigned: {_T.PENDING: _T.ASSIGNED},
    AttemptStarted: {_T.ASSIGNED: _T.RUNNING},
    AttemptReturned: {_T.ASSIGNED: _T.PENDING},
    AttemptFailed: {_T.ASSIGNED: _T.ASSIGNED, _T.RUNNING: _T.RUNNING, _T.AUDITING: _T.AUDITING},
    AuditStarted: {_T.ASSIGNED: _T.AUDITING, _T.RUNNING: _T.AUDITING},
    TaskDelayed: {_T.ASSIGNED: _T.WAITING, _T.RUNNING: _T.WAITING, _T.AUDITING: _T.WAITING},
    TaskCompleted: {_T.ASSIGNED: _T.COMPLETED, _T.RUNNING: _T.COMPLETED, _T.AUDITING: _T.COMPLETED},
    TaskDied: {state: _T.DEAD for state in _T if not state.final},
    TaskCanceled: {state: _T.CANCELED for state in _T if not state.final},
}

ATTEMPT: Mapping[type[Event], Mapping[AttemptState, frozenset[AttemptState]]] = {
    AttemptStarted: {_A.ASSIGNED: frozenset({_A.RUNNING})},
    AttemptReturned: {_A.ASSIGNED: frozenset({_A.RETURNED})},
    AttemptFailed: {
        _A.ASSIGNED: _FAILED_AS,
        _A.RUNNING: _FAILED_AS,
        _A.REPORTED: frozenset({_A.REJECTED, _A.CANCELED}),
    },
    AuditStarted: {
        _A.ASSIGNED: frozenset({_A.REPORTED, _A.CANCELED}),
        _A.RUNNING: frozenset({_A.REPORTED, _A.CANCELED}),
    },
    TaskCompleted: {
        _A.ASSIGNED: frozenset({_A.COMPLETED, _A.CANCELED}),
        _A.RUNNING: frozenset({_A.COMPLETED, _A.CANCELED}),
        _A.REPORTED: frozenset({_A.COMPLETED}),
    },
    TaskCanceled: {state: frozenset({_A.CANCELED}) for state in (_A.ASSIGNED, _A.RUNNING, _A.REPORTED)},
    TaskDied: {_A.REPORTED: frozenset({_A.CANCELED})},
}

_PRESENT = (_W.ACTIVE, _W.DRAINING, _W.PROBATION, _W.PAUSED)
_JOINS_AS = frozenset({_W.ACTIVE, _W.PROBATION, _W.PAUSED})

WORKER: Mapping[type[Event], Mapping[WorkerState | None, frozenset[WorkerState]]] = {
    WorkerJoined: {None: _JOINS_AS, **dict.fromkeys(_PRESENT, _JOINS_AS)},
    WorkerAdmitted: {_W.PROBATION: frozenset({_W.ACTIVE})},
    WorkerPaused: {state: frozenset({_W.PAUSED}) for state in (_W.ACTIVE, _W.PROBATION)},
    WorkerResumed: {_W.PAUSED: frozenset({_W.ACTIVE, _W.PROBATION})},
    WorkerDraining: {state: frozenset({_W.DRAINING}) for state in (_W.ACTIVE, _W.PROBATION, _W.PAUSED)},
    WorkerLeft: {state: frozenset({_W.GONE}) for state in _PRESENT},
}
"""Only of a worker that is here; what an operator says of one that is away stands in its profile."""


class IllegalTransition(Exception):
    """An event met something in a state in which it cannot happen to it. Always a defect; the cell stops.

    ``story`` holds what is known of the object's past, a line per step.
    """

    def __init__(self, event: Event, what: str, state: object, story: list[str]) -> None:
        self.event = event
        self.story = story
        lines = "".join(f"\n  {line}" for line in story)
        super().__init__(f"{type(event).__name__} cannot happen to {what} in state {state}{lines}")
