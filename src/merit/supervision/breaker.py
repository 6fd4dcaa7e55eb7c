"""The circuit breaker between a worker and its tasks: it reacts within seconds to one that fails, long before its score does.

========= =========================================================================================== =========
state     what happens                                                                                becomes
========= =========================================================================================== =========
CLOSED    ``circuit_failures`` of the last ``circuit_window`` attempts failed, and ``circuit_share``  OPEN
OPEN      its time is over: ``circuit_open_ns``, doubled each time that it did not hold               HALF_OPEN
HALF_OPEN ``circuit_probes`` attempts came out well                                                   CLOSED
          one failed                                                                                  OPEN
========= =========================================================================================== =========

A breaker that was closed again looks at the attempts since then only (``until_ns``), or a single failure would open it
for those before; when it has held for a whole window of them, it forgets that it was ever open.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from merit.model.supervision import CLOSED, Circuit, CircuitState, Policy
from merit.model.track_record import EndedAttempt, Ending


def after(circuit: Circuit, endings: Iterable[EndedAttempt], ending_ok: bool, policy: Policy, now_ns: int) -> Circuit:
    """The breaker after an attempt has ended.

    Args:
        circuit: before; one that has been half open since its time is to be given so (``ready``).
        endings: the last attempts, oldest first, this one the last of them. Only looked at where they can matter: never for
            what comes out well while there is nothing to remember.
        ending_ok: whether it came out well. What says nothing about the worker (canceled, returned) is not to be told.
        policy: the numbers that the operator has set.
        now_ns: Unix time.
    """
    if circuit.state is CircuitState.HALF_OPEN:
        if not ending_ok:
            return _opened(circuit, policy, now_ns)
        if circuit.probes + 1 < policy.circuit_probes:
            return replace(circuit, probes=circuit.probes + 1)
        return Circuit(CircuitState.CLOSED, now_ns, circuit.openings)
    if circuit.state is CircuitState.OPEN or (ending_ok and circuit == CLOSED):
        return circuit  # open: it had begun before
    last = [ended for ended in endings if ended.ended_ns > circuit.until_ns][-policy.circuit_window :]
    failures = sum(1 for ended in last if ended.ending is not Ending.COMPLETED)
    if failures >= policy.circuit_failures and failures * 1_000 >= policy.circuit_share * len(last) and not ending_ok:
        return _opened(circuit, policy, now_ns)
    return CLOSED if len(last) >= policy.circuit_window else circuit


def ready(circuit: Circuit, now_ns: int) -> Circuit:
    """The breaker at a time at which nothing has ended: half open when its time is over."""
    if circuit.state is CircuitState.OPEN and now_ns >= circuit.until_ns:
        return replace(circuit, state=CircuitState.HALF_OPEN, probes=0)
    return circuit


def room(circuit: Circuit, room_: int, live: int, policy: Policy) -> int:
    """How many more attempts a worker may be given, of those that it has room for.

    Args:
        circuit: at this time (``ready``).
        room_: how many it would take.
        live: attempts that it has.
        policy: the numbers that the operator has set.
    """
    if circuit.state is CircuitState.OPEN:
        return 0
    if circuit.state is CircuitState.HALF_OPEN:
        return max(0, min(room_, policy.circuit_probes - circuit.probes - live))
    return room_


def open_ns(openings: int, policy: Policy) -> int:
    """How long a breaker stays open when it opens for the ``openings``-th time in a row."""
    return min(policy.circuit_open_ns << min(max(0, openings - 1), 40), policy.circuit_open_ns_max)


def _opened(circuit: Circuit, policy: Policy, now_ns: int) -> Circuit:
    openings = circuit.openings + 1
    return Circuit(CircuitState.OPEN, now_ns + open_ns(openings, policy), openings)
