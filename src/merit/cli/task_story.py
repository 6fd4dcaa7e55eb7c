"""One task for people: what was asked, how it stands, and what each attempt said and left behind; all of it bounded."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from merit.cli.output import table
from merit.cli.task_table import cut
from merit.cli.values import span
from merit.model.tasks import AttemptState, TaskState
from merit.sdk.amounts import quantity
from merit.sdk.outcome import Evidence

_BAR_CELLS: Final = 20
_LOG_LINES_SHOWN: Final = 50
_LOG_LINE_LENGTH_MAX: Final = 300
_EVIDENCE_SHOWN: Final = 20
_DIGEST_SHOWN: Final = 12
_LEVEL_WIDTH: Final = len("warning")
_NS: Final = 1_000_000_000
_HEADINGS: Final = {"idempotency_key": "only once"}
_DEMANDS: Final = {
    "versions": "versions",
    "worker": "on worker",
    "tags": "with tags",
    "without_tags": "no tags",
    "resources": "needs",
    "strategy": "strategy",
    "prefers": "rather on",
}
_ASKED_FOR: Final = {"COPY": "a copy", "JUDGE": "a verdict"}
_LOOKS_AT: Final = {
    "COPY": "the result of task {of}, by doing the same once more",
    "JUDGE": "the result of task {of}, by judging it",
    "GOLD": "its worker: the right result is known",
}
_SAID_SHOWN: Final = 60
_WAITS: Final = {"backoff_s": "first pause", "backoff_s_max": "longest pause"}


class TrailLine(Struct):
    """A line of an attempt's log, as its trail has it."""

    time_ns: int
    level: str
    message: str
    fields: dict[str, Any] = {}


class AttemptTrail(Struct):
    """What an attempt left behind: its log, how many lines of it were dropped, and its evidence."""

    log: list[TrailLine] = []
    log_dropped: int = 0
    evidence: list[Evidence] = []


def story(view: dict[str, Any], server: str) -> Iterator[str]:
    """The lines of a task.

    Args:
        view: the task, as ``AsyncClient.task`` gives it.
        server: ``HOST:PORT`` of its control plane, for the commands that are proposed.
    """
    names = ("id", "capability", "state", "why", "priority", "tenant", "principal", "description", "submitted", "ended")
    for name in names:
        if view[name] and not (name == "why" and view["ended"] and view["why"].startswith("it is ")):
            yield f"{name:12}{view[name]}"
    if (review := view["terms"].get("review")) is not None:
        yield f"{'looks at':12}{_LOOKS_AT[review['kind']].format(of=review['of'])}"
    if view["after"]:
        yield f"{'after':12}{', '.join(view['after'])}"
    yield from terms_lines(view)
    if view["successor"]:
        yield f"{'tried again':12}as {view['successor']}"
    yield from _judged(view)
    yield from _progress(view["attempts"])
    if view["parameters"] is not None:
        yield f"{'parameters':12}{content(view['parameters'])}"
    if view["result"] is not None:
        yield f"{'result':12}{content(view['result'])}"
        if _digest_of(view["result"]):
            yield f"{'':12}to get it, in Python (from merit import Client):"
            yield f"{'':12}with Client({server!r}) as client: print(client.watch({view['id']!r}).result())"
    if view["error"]:
        yield f"{'error':12}({view['error']['kind']}) {view['error']['message']}"
    if view["attempts"]:
        yield ""
        yield from _attempts(view["attempts"])
        for attempt in view["attempts"]:
            yield from _detail(attempt)
    if view.get("reviews"):
        yield ""
        yield "Others were asked about its result:"
        yield from _asked(view["reviews"])


def _judged(view: dict[str, Any]) -> Iterator[str]:
    """What became of a result that others were asked about."""
    states = [attempt["state"] for attempt in view["attempts"]]
    if not view.get("reviews") or "REPORTED" in states:
        return
    if view["state"] != TaskState.COMPLETED.name:
        said = "its result is not accepted"
    elif AttemptState.COMPLETED.name in states:
        said = "its result is accepted"
    else:
        said = "another worker's answer is its result"
    yield f"{'audit':12}{said}"


def _asked(reviews: list[dict[str, Any]]) -> list[str]:
    """Who was asked, and what they have said; who does not say anything has no result."""
    columns = ("asked for", "task", "worker", "state", "said")
    rows = [
        [
            _ASKED_FOR[one["terms"]["review"]["kind"]],
            one["id"],
            one["attempts"][-1]["worker"] if one["attempts"] else None,
            one["state"],
            None if one["result"] is None else cut(content(one["result"]), _SAID_SHOWN),
        ]
        for one in reviews
    ]
    return table(columns, rows)


def bar(fraction: float) -> str:
    """How far something is (0..1), as a small bar with its percentage."""
    fraction = min(max(fraction, 0.0), 1.0)
    full = int(fraction * _BAR_CELLS)
    return f"[{'█' * full}{'░' * (_BAR_CELLS - full)}] {int(fraction * 100)} %"


def _progress(attempts: list[dict[str, Any]]) -> Iterator[str]:
    if attempts and not attempts[-1]["ended"]:
        last = attempts[-1]
        if last["progress"] is not None:
            yield f"{'progress':12}{bar(last['progress'])}  {last['progress_message']}".rstrip()
        elif last["progress_message"]:
            yield f"{'progress':12}{last['progress_message']}"


def _digest_of(content: Any) -> str:
    """The digest of a content that is too large to come with the task; empty for one that came."""
    digest = content.get("blob") if isinstance(content, dict) and len(content) == 1 else None
    is_digest = isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef")
    return str(digest) if is_digest else ""


def content(given: Any) -> str:
    """Parameters or a result, as the SDK's views have them."""
    digest = _digest_of(given)
    return f"large, kept under its SHA-256 {digest}" if digest else msgspec.json.encode(given).decode()


def terms_lines(view: dict[str, Any]) -> Iterator[str]:
    """The lines of what was asked for beside a capability and its parameters, of a task or a schedule."""
    terms = view["terms"]
    spans = [f"{span(view['run_timeout_s'])} a run"]
    if view.get("timeout_s"):
        spans.append(f"{span(view['timeout_s'])} in all")
    for name, what in (("heartbeat_timeout_s", "without progress"), ("queue_timeout_s", "in the queue")):
        if name in terms:
            spans.append(f"{span(terms[name])} {what}")
    attempts = view["attempts_max"]
    yield f"{'limits':12}{', '.join(spans)}, {attempts} attempt{'' if attempts == 1 else 's'}"
    if view.get("deadline"):
        yield f"{'deadline':12}{view['deadline']}"
    if "not_before" in terms:
        yield f"{'not before':12}{terms['not_before']}"
    if "estimate_s" in terms:
        yield f"{'estimate':12}{span(terms['estimate_s'])} a run"
    if "retry" in terms:
        yield f"{'retry':12}{_retry(terms['retry'])}"
    yield from _demand(terms.get("demand", {}))
    if terms.get("safe_to_repeat") is False:
        yield f"{'repeating':12}never, unless it is known not to have started"
    for name in ("key", "idempotency_key", "origin", "schedule"):
        if name in terms:
            yield f"{_HEADINGS.get(name, name):12}{terms[name]}"
    for name, task in terms.get("inputs", {}).items():
        yield f"{'input':12}{name} = the result of {task}"
    if terms.get("despite_dead"):
        yield f"{'despite':12}it runs also when tasks that it needs die"
    if "labels" in terms:
        yield f"{'labels':12}{' '.join(f'{name}={value}' for name, value in terms['labels'].items())}"


def _demand(demand: dict[str, Any]) -> Iterator[str]:
    """What it asks of its worker, a line for each thing."""
    for name, heading in _DEMANDS.items():
        if name in demand:
            said = demand[name]
            if isinstance(said, dict):
                said = [f"{resource}={quantity(amount)}" for resource, amount in said.items()]
            yield f"{heading:12}{said if isinstance(said, str) else ' '.join(said)}"


def _retry(policy: dict[str, Any]) -> str:
    waits = [f"{_WAITS[name]} {span(policy[name])}" for name in _WAITS if name in policy]
    counts = [f"{count} after {kind}" for kind, count in policy.items() if kind not in _WAITS]
    return ", ".join([*counts, *waits])


def _attempts(attempts: list[dict[str, Any]]) -> list[str]:
    columns = ("attempt", "worker", "state", "assigned", "started", "ended", "wall_s", "cpu_s", "error")
    rows = [
        [
            one["number"],
            *(one[name] for name in columns[1:6]),
            f"{one['wall_s']:.3f}",
            f"{one['cpu_s']:.3f}",
            one["error"]["message"] if one["error"] else None,
        ]
        for one in attempts
    ]
    return table(columns, rows)


def _detail(attempt: dict[str, Any]) -> Iterator[str]:
    """The end of the traceback, the log and the evidence; nothing if there is none of them."""
    lines = []
    if attempt["error"] and attempt["error"]["detail"]:
        lines += attempt["error"]["detail"].rstrip().split("\n")
    if attempt["trail"] is not None:
        try:
            trail = msgspec.convert(attempt["trail"], AttemptTrail)
        except msgspec.ValidationError as error:  # a worker of another make may say anything
            lines.append(f"its trail is not what was expected ({error}); --json shows it")
        else:
            lines += _log(trail, _start_ns(attempt))
            lines += _evidence(trail.evidence)
    if lines:
        yield ""
        yield f"attempt {attempt['number']}:"
        yield from (f"  {line}" for line in lines)


def _start_ns(attempt: dict[str, Any]) -> int | None:
    """When it started, as Unix time in nanoseconds (to the millisecond)."""
    started = attempt["started"] or attempt["assigned"]
    return round(datetime.fromisoformat(started).timestamp() * 1_000) * 1_000_000 if started else None


def _log(trail: AttemptTrail, start_ns: int | None) -> Iterator[str]:
    if trail.log_dropped:
        yield f"log: {trail.log_dropped:,} lines were beyond its bounds and were not kept"
    if not trail.log:
        return
    first_ns = min(line.time_ns for line in trail.log)
    # The control plane's clock says when it started, the worker's when it spoke: nobody speaks before he starts.
    zero_ns = first_ns if start_ns is None else min(start_ns, first_ns)
    hidden = len(trail.log) - _LOG_LINES_SHOWN
    yield "log:" + (f" its last {_LOG_LINES_SHOWN} lines; --json has {hidden:,} before them" if hidden > 0 else "")
    for line in trail.log[-_LOG_LINES_SHOWN:]:
        fields = "".join(f"  {name}={_short(value)}" for name, value in line.fields.items())
        text = f"{line.message}{fields}"
        if len(text) > _LOG_LINE_LENGTH_MAX:
            text = f"{text[: _LOG_LINE_LENGTH_MAX - 1]}…"
        yield f"  +{(line.time_ns - zero_ns) / _NS:<9.3f} {line.level:{_LEVEL_WIDTH}}  {text}"


def _short(value: Any) -> str:
    is_word = isinstance(value, str) and value.isprintable() and value and " " not in value
    return str(value) if is_word else msgspec.json.encode(value).decode()


def _evidence(evidence: list[Evidence]) -> Iterator[str]:
    if not evidence:
        return
    yield "evidence:"
    shown = evidence[:_EVIDENCE_SHOWN]
    width = max(len(f"{item.size_bytes:,}") for item in shown)
    for item in shown:
        yield f"  {item.size_bytes:>{width},} bytes  sha256 {item.sha256[:_DIGEST_SHOWN]}…  {item.path}"
    if len(evidence) > len(shown):
        yield f"  and {len(evidence) - len(shown):,} more; --json has them"
