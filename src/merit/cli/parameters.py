"""A task's parameters from the words of the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from merit.cli import output
from merit.cli.client import refusal_of
from merit.cli.output import CliError
from merit.model.limits import PAYLOAD_BYTES_MAX
from merit.sdk.results import Refused

Function = TypeVar("Function", bound=Callable[..., Any])


def parameter_words(function: Function) -> Function:
    """The arguments ``CAPABILITY [KEY=VALUE | KEY:=JSON]...`` and the option ``--params``."""
    function = click.option(
        "--params", metavar="JSON|@FILE|-", help="Parameters as a JSON object; KEYs beside it win."
    )(function)
    function = click.argument("values", metavar="[KEY=VALUE | KEY:=JSON]...", nargs=-1)(function)
    return click.argument("capability")(function)


def parameters_of(params: str | None, values: Sequence[str]) -> dict[str, Any]:
    """The parameters from ``--params`` and from ``key=value`` and ``key:=json``.

    Raises:
        CliError: one of them is not what it should be.
    """
    parameters = _object(params) if params is not None else {}
    for word in values:
        name, equals, text = word.partition("=")
        if not equals or not name.removesuffix(":"):
            raise _bad(f"{word!r} is neither KEY=VALUE (a string) nor KEY:=JSON")
        if not name.endswith(":"):
            parameters[name] = text
            continue
        try:
            parameters[name[:-1]] = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise _bad(f"{name[:-1]}: {text!r} is no JSON ({error}); for a string use {name[:-1]}={text}") from None
    return parameters


def with_hint(error: Refused, values: Sequence[str]) -> CliError:
    """The refusal; where a plain value met a schema that wants no string, with the way to give it."""
    complaint = refusal_of(error)
    field = error.refusal.field
    for word in values:
        name, _, text = word.partition("=")
        if "is not of type" in error.refusal.reason and field.endswith(f"parameters.{name}"):
            message = f"{complaint}. {name}={text} is a string; for any other JSON value write {name}:={text}"
            return CliError(complaint.kind, message, complaint.code, **complaint.details)
    return complaint


def _object(params: str) -> dict[str, Any]:
    try:
        if params == "-":
            data = sys.stdin.buffer.read(PAYLOAD_BYTES_MAX + 1)
        elif params.startswith("@"):
            with Path(params[1:]).open("rb") as file:
                data = file.read(PAYLOAD_BYTES_MAX + 1)
        else:
            data = params.encode()
    except (OSError, UnicodeError) as error:
        raise _bad(f"--params {params}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > PAYLOAD_BYTES_MAX:
        raise _bad(f"--params: more than {PAYLOAD_BYTES_MAX:,} bytes: split the task")
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _bad(f"--params: no JSON: {error}") from None
    if not isinstance(found, dict):
        raise _bad(f'--params: must be a JSON object, such as {{"key": 1}}, not {type(found).__name__}')
    return found


def _bad(message: str) -> CliError:
    return CliError("usage", message, output.USAGE)
