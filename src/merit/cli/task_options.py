"""What may be asked for when a task is submitted, in one place for all commands that make tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final, TypeVar, cast

import click

from merit.cli.values import Duration, Moment, Pair, Quantity, distinct
from merit.model.limits import ATTEMPTS_DEFAULT, ATTEMPTS_MAX, RUN_TIMEOUT_NS_DEFAULT, SECOND_NS, TIMEOUT_NS_DEFAULT
from merit.model.tasks import Priority
from merit.sdk.options import OptionArguments, Retry

Function = TypeVar("Function", bound=Callable[..., Any])

_KINDS: Final = ("refused", "failed", "timed_out", "silent", "lost", "rejected")

_OPTIONS: Final = {
    "priority": click.option(
        "--priority",
        type=click.Choice([item.name.lower() for item in Priority], case_sensitive=False),
        help="Higher goes first.  [default: medium]",
    ),
    "timeout_s": click.option(
        "--timeout",
        "timeout_s",
        type=Duration(),
        help="Of the task as a whole, waiting and all attempts included; then it dies."
        f"  [default: {TIMEOUT_NS_DEFAULT // 3600 // SECOND_NS}h]",
    ),
    "run_timeout_s": click.option(
        "--run-timeout",
        "run_timeout_s",
        type=Duration(),
        help=f"How long one attempt may run.  [default: {RUN_TIMEOUT_NS_DEFAULT // SECOND_NS}s]",
    ),
    "queue_timeout_s": click.option(
        "--queue-timeout",
        "queue_timeout_s",
        type=Duration(),
        help="How long it may be in its queue, each time; then it dies.",
    ),
    "heartbeat_timeout_s": click.option(
        "--heartbeat-timeout",
        "heartbeat_timeout_s",
        type=Duration(),
        help="How long an attempt may run without a sign of progress.",
    ),
    "estimate_s": click.option(
        "--estimate", "estimate_s", type=Duration(), help="How long an attempt is expected to run: what it costs."
    ),
    "attempts_max": click.option(
        "--attempts",
        "attempts_max",
        type=click.IntRange(1, ATTEMPTS_MAX),
        help=f"How often it may be tried.  [default: {ATTEMPTS_DEFAULT}]",
    ),
    "retry": click.option(
        "--retry",
        type=Pair("KIND", "N"),
        multiple=True,
        help=f"So many retries after attempts that ended so ({', '.join(_KINDS)}); may be repeated.",
    ),
    "backoff_s": click.option("--backoff", "backoff_s", type=Duration(), help="First pause before a retry; doubles."),
    "backoff_s_max": click.option("--backoff-max", "backoff_s_max", type=Duration(), help="Longest such pause."),
    "not_safe_to_repeat": click.option(
        "--not-safe-to-repeat", is_flag=True, help="Never try it again unless it is known not to have started."
    ),
    "key": click.option(
        "--key",
        help="What limits per key count by (merit queue limit --key-of); tasks of a stateful capability with the same one"
        " stay on one worker.",
    ),
    "labels": click.option(
        "--label", "labels", type=Pair("NAME", "VALUE"), multiple=True, help="A word to find it by; may be repeated."
    ),
    "description": click.option("--description", help="What it is for, for people."),
    "versions": click.option(
        "--versions", metavar="RANGE", help="Of the capability, such as '>=1.2,<2' or '^1.2'.  [default: any]"
    ),
    "worker": click.option("--worker", metavar="ID", help="The worker that has to do it."),
    "tags": click.option(
        "--tag",
        "tags",
        metavar="TAG",
        multiple=True,
        help="The worker, or the capability as it offers it, has this tag; may be repeated.",
    ),
    "without_tags": click.option(
        "--without-tag",
        "without_tags",
        metavar="TAG",
        multiple=True,
        help="It does not have this one; may be repeated.",
    ),
    "resources": click.option(
        "--resource",
        "resources",
        type=Quantity(),
        multiple=True,
        help="What an attempt needs, such as cpu=0.5, memory=512Mi or gpu=1, in place of what the capability says; may be"
        " repeated.",
    ),
    "strategy": click.option(
        "--strategy",
        metavar="NAME",
        help="How its worker is chosen, such as round-robin.  [default: as its capability]",
    ),
    "prefers": click.option(
        "--prefer",
        "prefers",
        metavar="TAG",
        multiple=True,
        help="A tag of the worker that it would rather have, for strategies that go by it; may be repeated.",
    ),
    "delay_s": click.option("--delay", "delay_s", type=Duration(), help="Not to begin earlier than this from now."),
    "not_before": click.option("--not-before", type=Moment(1), help="Not to begin earlier than this: a time."),
    "deadline": click.option(
        "--deadline", type=Moment(1), help="Of no use after this, a time or 2h from now: it dies."
    ),
    "after": click.option(
        "--after", metavar="ID", multiple=True, help="A task that must be completed first; may be repeated."
    ),
    "despite_dead": click.option(
        "--despite-dead", is_flag=True, help="Run it also when tasks that it needs die; inputs from those are null."
    ),
    "inputs": click.option(
        "--input",
        "inputs",
        type=Pair("NAME", "ID"),
        multiple=True,
        help="A parameter that is the result of another task, which is waited for; may be repeated.",
    ),
    "idempotency_key": click.option(
        "--idempotency-key", help="A task of the same tenant with the same key is this one, and is not made twice."
    ),
}

REPEATED: Final = tuple(_OPTIONS)[: tuple(_OPTIONS).index("delay_s")]
"""Options of a task that is made again and again."""
MANY: Final = tuple(_OPTIONS)[: tuple(_OPTIONS).index("inputs")]
"""Options of many tasks at once."""
ONE: Final = tuple(_OPTIONS)
"""Options of a single task."""


def task_options(names: Sequence[str]) -> Callable[[Function], Function]:
    """These options, together as the argument ``options`` of the command: what of them was given, and nothing else.

    Args:
        names: ``REPEATED``, ``MANY`` or ``ONE``.
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def command(**given: Any) -> Any:
            chosen = {name: given.pop(name) for name in names}
            return function(**given, options=_arguments(chosen))

        decorated: Any = command
        for name in reversed(names):
            decorated = _OPTIONS[name](decorated)
        return decorated  # type: ignore[no-any-return]  # what click.option gives back is the function that it was given

    return decorate


def _arguments(chosen: dict[str, Any]) -> OptionArguments:
    """What the SDK takes. Raises ``click.UsageError`` for what cannot be."""
    given = {name: value for name, value in chosen.items() if value not in (None, (), False)}
    if given.pop("not_safe_to_repeat", False):
        given["safe_to_repeat"] = False
    for name, option in (("labels", "--label"), ("inputs", "--input"), ("resources", "--resource")):
        if name in given:
            given[name] = distinct(option, given[name])
    waits = {name: given.pop(name) for name in ("backoff_s", "backoff_s_max") if name in given}
    counts = _counts(given.pop("retry", ()))
    if counts or waits:
        given["retry"] = Retry(**counts, **waits)
    return cast("OptionArguments", given)  # names of options are those of the SDK


def _counts(pairs: Sequence[tuple[str, str]]) -> dict[str, int]:
    counts = {}
    for kind, text in distinct("--retry", [(kind.replace("-", "_"), text) for kind, text in pairs]).items():
        if kind not in _KINDS:
            raise click.UsageError(f"--retry: {kind!r} is none of {', '.join(_KINDS)}")
        if not (text.isascii() and text.isdecimal()) or int(text) > ATTEMPTS_MAX:
            raise click.UsageError(f"--retry {kind}: {text!r} is no whole number between 0 and {ATTEMPTS_MAX}")
        counts[kind] = int(text)
    return counts
