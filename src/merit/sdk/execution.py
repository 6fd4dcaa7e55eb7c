"""One attempt from parameters to outcome: decode, call, encode, measure. Nothing that a function does gets past this."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from merit.sdk.capability import Capability
from merit.sdk.context import Cancelled, Context, Permanent, active
from merit.sdk.memory import MemoryGauge
from merit.sdk.outcome import (
    MESSAGE_BYTES_MAX,
    RESULT_BYTES_MAX,
    AttemptError,
    ErrorKind,
    Outcome,
    Status,
    bounded_text,
    detail_of,
    message_of,
)
from merit.sdk.schema import InvalidInput, InvalidOutput


class Job(msgspec.Struct, frozen=True, gc=False):
    """One attempt to be run. `parameters` is a JSON object; `deadline_ns` is Unix time, 0 for none."""

    attempt: str
    task: str
    number: int
    capability: str
    parameters: bytes
    deadline_ns: int = 0


def run_here(
    capability: Capability[..., Any],
    parameters: bytes,
    context: Context,
    memory: MemoryGauge,
    result_bytes_max: int = RESULT_BYTES_MAX,
    cpu_clock_ns: Callable[[], int] = time.thread_time_ns,
) -> Outcome:
    """Run a plain function in this thread. Never raises: whatever it does ends in the outcome, SystemExit included."""
    signature = capability.signature
    active.set(context)
    result = b""
    error: AttemptError | None = None
    started_ns = time.time_ns()
    wall_ns = time.perf_counter_ns()
    cpu_ns = cpu_clock_ns()
    try:
        arguments = signature.decode(parameters)
        if signature.context_parameter is not None:
            arguments[signature.context_parameter] = context
        result = signature.encode(capability.function(**arguments))
        if len(result) > result_bytes_max:
            result, error = b"", too_large(len(result), result_bytes_max)
    except BaseException as raised:  # noqa: BLE001 — SystemExit and KeyboardInterrupt of a function end its attempt, not the worker
        error = error_of(raised, context)
    cpu_ns = cpu_clock_ns() - cpu_ns
    now_ns = time.perf_counter_ns()
    wall_ns = now_ns - wall_ns
    return finish(context, result, error, started_ns, wall_ns, cpu_ns, memory.peak_bytes(now_ns, wall_ns))


def finish(
    context: Context,
    result: bytes,
    error: AttemptError | None,
    started_ns: int,
    wall_ns: int,
    cpu_ns: int,
    memory_bytes: int,
) -> Outcome:
    """Put an outcome together with what the function said."""
    status: Status = "completed" if error is None else "canceled" if error.kind == "canceled" else "failed"
    ended_ns = started_ns + wall_ns
    if context.silent:
        return Outcome(context.attempt, status, result, error, started_ns, ended_ns, wall_ns, cpu_ns, memory_bytes)
    log, dropped, evidence = context.said()
    return Outcome(
        context.attempt,
        status,
        result,
        error,
        started_ns,
        ended_ns,
        wall_ns,
        cpu_ns,
        memory_bytes,
        log,
        dropped,
        evidence,
    )


def too_large(size_bytes: int, result_bytes_max: int) -> AttemptError:
    """The error of a result above the limit."""
    return AttemptError(
        "result_too_large",
        f"the result has {size_bytes} bytes, the limit is {result_bytes_max}: store it elsewhere and return where it is",
        retry=False,
    )


def error_of(raised: BaseException, context: Context) -> AttemptError:
    """What an exception means for the attempt."""
    if isinstance(raised, InvalidInput):
        return AttemptError("invalid_input", bounded_text(str(raised), MESSAGE_BYTES_MAX), retry=False)
    if isinstance(raised, InvalidOutput):
        return AttemptError("invalid_output", bounded_text(str(raised), MESSAGE_BYTES_MAX))
    if isinstance(raised, Cancelled) and context.cancelled:
        return canceled()
    kind: ErrorKind = "permanent" if isinstance(raised, Permanent) else "exception"
    message = message_of(raised) if kind == "exception" else _without_name(raised)
    return AttemptError(kind, message, detail_of(raised), retry=kind == "exception")


def canceled(how: str = "canceled while it ran") -> AttemptError:
    """The error of an attempt that was cancelled."""
    return AttemptError("canceled", how, retry=False)


def _without_name(raised: BaseException) -> str:
    """The message alone, for an exception whose name says nothing to a reader; never empty."""
    return message_of(raised).removeprefix(f"{type(raised).__name__}: ")
