"""Makes a capability of a command-line program.

    lint = command_line("lint", ["ruff", "check", "--output-format=json", "--", "{path}"], {"path": str}, output="json")

No shell is involved. Each element of `argv` is one argument, whatever is substituted into it: spaces, quotes, `;` and `$`
in a parameter mean nothing. `{name}` stands for a parameter, `{{` and `}}` for braces.

What a parameter can still do is look like an option. Where an argument begins with a placeholder and no `--` stands before
it, a value that begins with `-` is therefore refused; put `--` before the placeholder (most programs then take everything
after it as an operand), write the option and its value as one argument (`--file={path}`), or name the parameter in
`options` if callers may pass options.

A program runs in a session of its own. It and everything it started there is killed when it ends, at its time-out, when
its attempt is cancelled, and when it writes more than it may.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import msgspec
from pydantic_core import to_json

from merit.model.limits import NAME_LENGTH_MAX
from merit.sdk.amounts import Amounts
from merit.sdk.capability import PREFERENCE_DEFAULT, Capability, register
from merit.sdk.command_template import Template, argv_templates, parameters_of, text_of
from merit.sdk.context import active
from merit.sdk.live_lines import LiveLines
from merit.sdk.outcome import bounded_text
from merit.sdk.schema import CapabilityError, InvalidInput, Parameter, build_signature

Output = Literal["text", "json", "lines"]

STDERR_BYTES_MAX = 4 * 1024
OUTPUT_BYTES_MAX = 1024 * 1024
TIMEOUT_S = 60.0
SPEC_BYTES_MAX = 1024 * 1024
_END_WAIT_S = 1.0
_KEPT_ENVIRONMENT = ("PATH", "HOME", "TMPDIR")


class CommandFailed(Exception):
    """The program could not be started, ended with another code than it may, took too long, or wrote what it may not."""


class TextResult(TypedDict):
    """Result of a program whose output is text. `stdout_replaced`: bytes that are not UTF-8 were replaced by U+FFFD."""

    exit_code: int
    stdout: str
    stdout_replaced: bool
    stderr: str
    duration_s: float


class LinesResult(TypedDict):
    """Result of a program whose output is lines, without their ends."""

    exit_code: int
    stdout: list[str]
    stdout_replaced: bool
    stderr: str
    duration_s: float


class JsonResult(TypedDict):
    """Result of a program whose output is one JSON value."""

    exit_code: int
    stdout: Any
    stderr: str
    duration_s: float


_RESULTS: dict[str, Any] = {"text": TextResult, "lines": LinesResult, "json": JsonResult}


def command_line(
    name: str,
    argv: Sequence[str],
    parameters: Mapping[str, Any],
    *,
    description: str = "",
    version: str = "1.0.0",
    stdin: str | None = None,
    output: Output = "text",
    timeout_s: float = TIMEOUT_S,
    output_bytes_max: int = OUTPUT_BYTES_MAX,
    ok_codes: Sequence[int] = (0,),
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    concurrency: int | None = None,
    tags: Sequence[str] = (),
    safe_to_repeat: bool = True,
    heartbeat_timeout_s: float | None = None,
    resources: Amounts | None = None,
    cost: float = 0.0,
    preference: float = PREFERENCE_DEFAULT,
    stateful: bool = False,
    requires: Sequence[str] = (),
) -> Capability[..., Any]:
    """Declare a program as a capability.

    `parameters` gives each name a type (`str`), a type and default (`(int, 10)`), or a JSON Schema of its own; or it is one
    JSON Schema of an object. `stdin` is a template like the arguments, or "json" for all parameters as a JSON object, or
    None for nothing. `output` says how standard output (at most `output_bytes_max` bytes) is read. The exit code must be
    among `ok_codes`. The environment holds PATH, HOME and TMPDIR of the worker, LANG=C.UTF-8, and what `env` adds.
    The attempt fails with the end of standard error (4 KiB) in its message. Whoever follows the task sees the lines of both
    outputs as they are written (with `output="json"` those of standard error), and each is a sign of progress. What is not
    about the program (`version` and `concurrency` to `requires`) is as for every `Capability`.

    Raises CapabilityError for what does not fit together: the message names the parameter or setting and the reason.
    """
    declared = parameters_of(name, parameters)
    command = _Command(
        name=name,
        argv=argv_templates(name, argv),
        stdin=None if stdin is None or stdin == "json" else Template.parse(name, stdin),
        stdin_json=stdin == "json",
        output=output,
        timeout_s=timeout_s,
        output_bytes_max=output_bytes_max,
        ok_codes=frozenset(ok_codes),
        cwd=None if cwd is None else str(cwd),
        env=_environment(env),
        options=frozenset(options),
    )
    command.check(declared)
    signature = build_signature(name, declared, _RESULTS[output])
    defaults = {p.name: p.default for p in declared if not p.required}

    async def run(**arguments: Any) -> Any:
        return await command.run(defaults | arguments)

    run.__name__ = run.__qualname__ = name
    usual: dict[str, Any] = {"version": version, "description": description or f"Runs {argv[0]}", "tags": tags}
    usual |= {"concurrency": concurrency, "safe_to_repeat": safe_to_repeat, "heartbeat_timeout_s": heartbeat_timeout_s}
    usual |= {"resources": resources, "cost": cost, "preference": preference, "stateful": stateful}
    return register(Capability(run, name=name, mode="async", signature=signature, requires=requires, **usual))


def load_commands(path: str | Path) -> list[Capability[..., Any]]:
    """The commands that a TOML file declares, one `[[command]]` table each, its keys named as in `command_line`.

        [[command]]
        name = "checksum"
        argv = ["cksum", "--", "{path}"]
        parameters.path = { type = "string", maxLength = 4096 }

    Raises OSError for a file that cannot be read, CapabilityError (naming the file) for one that does not fit.
    """
    file = Path(path)
    with file.open("rb") as opened:
        raw = opened.read(SPEC_BYTES_MAX + 1)
    if len(raw) > SPEC_BYTES_MAX:
        raise CapabilityError(f"{file}: larger than {SPEC_BYTES_MAX} bytes")
    try:
        content = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CapabilityError(f"{file}: not TOML: {error}") from None
    tables = content.pop("command", [])
    if content or not isinstance(tables, list) or not tables:
        extra = f", not {', '.join(sorted(content))}" if content else ""
        raise CapabilityError(f"{file}: it must hold [[command]] tables{extra}")
    try:
        specifications = [_specification(number, table) for number, table in enumerate(tables)]
        names = [s.name for s in specifications]
        for twice in sorted({n for n in names if names.count(n) > 1}):
            raise CapabilityError(f"two commands are called {twice}; rename one")
        return [command_line(**msgspec.structs.asdict(s)) for s in specifications]
    except CapabilityError as error:
        raise CapabilityError(f"{file}: {error}") from None


def _specification(number: int, table: Any) -> CommandSpecification:
    """One table. Raises CapabilityError that says which, and which field."""
    try:
        return msgspec.convert(table, CommandSpecification)
    except msgspec.ValidationError as error:
        called = table.get("name") if isinstance(table, dict) else None
        name = f" ({bounded_text(called, NAME_LENGTH_MAX)})" if isinstance(called, str) else ""
        raise CapabilityError(f"command[{number}]{name}: {error}") from None


class CommandSpecification(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One `[[command]]` table; the fields are the arguments of `command_line`."""

    name: str
    argv: list[str]
    parameters: dict[str, Any] = {}
    description: str = ""
    version: str = "1.0.0"
    stdin: str | None = None
    output: Output = "text"
    timeout_s: float = TIMEOUT_S
    output_bytes_max: int = OUTPUT_BYTES_MAX
    ok_codes: list[int] = msgspec.field(default_factory=lambda: [0])
    cwd: str | None = None
    env: dict[str, str] = {}
    options: list[str] = []
    concurrency: int | None = None
    tags: list[str] = []
    safe_to_repeat: bool = True
    heartbeat_timeout_s: float | None = None
    resources: dict[str, Any] = {}
    cost: float = 0.0
    preference: float = PREFERENCE_DEFAULT
    stateful: bool = False
    requires: list[str] = []


# --- running ------------------------------------------------------------------------------------------------------------


def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
    kept = {key: os.environ[key] for key in _KEPT_ENVIRONMENT if key in os.environ}
    return kept | {"LANG": "C.UTF-8"} | dict(env or {})


@dataclass(frozen=True, slots=True)
class _Command:
    """A declared program, ready to be run."""

    name: str
    argv: tuple[Template, ...]
    stdin: Template | None
    stdin_json: bool
    output: Output
    timeout_s: float
    output_bytes_max: int
    ok_codes: frozenset[int]
    cwd: str | None
    env: dict[str, str]
    options: frozenset[str]

    def check(self, declared: Sequence[Parameter]) -> None:
        """Raise CapabilityError for what does not fit together."""
        known = {p.name for p in declared}
        used = {n for template in (*self.argv, *([self.stdin] if self.stdin else [])) for n in template.names}
        for unknown in sorted(used - known):
            raise CapabilityError(f"{self.name}: placeholder {{{unknown}}} has no parameter of that name")
        for unknown in sorted(self.options - known):
            raise CapabilityError(f"{self.name}: options names {unknown!r}, which is no parameter")
        if not self.stdin_json:
            for idle in sorted(known - used):
                raise CapabilityError(f"{self.name}: parameter '{idle}' is used neither in argv nor in stdin")
        if self.output not in _RESULTS:
            raise CapabilityError(f"{self.name}: output must be one of {', '.join(_RESULTS)}, not {self.output!r}")
        if not 0 < self.timeout_s < float("inf"):
            raise CapabilityError(f"{self.name}: timeout_s must be a finite number above 0, not {self.timeout_s!r}")
        if self.output_bytes_max < 0:
            raise CapabilityError(f"{self.name}: output_bytes_max must not be negative")

    async def run(self, arguments: dict[str, Any]) -> Any:
        """Run the program once. Raises InvalidInput, CommandFailed."""
        argv = self.filled(arguments)
        given = self.input_of(arguments)
        started_s = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            transport, talk = await loop.subprocess_exec(
                lambda: _Talk(self.output_bytes_max, given, self.live_lines()),
                *argv,
                stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
                cwd=self.cwd,
                env=self.env,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise CommandFailed(f"{argv[0]} cannot be started: {error}") from None
        try:
            async with asyncio.timeout(self.timeout_s):
                await talk.exited.wait()
                # All output should be there. Something that left the session may hold it open: wait, but not long.
                await talk.wait(talk.lost)
        except TimeoutError:
            raise CommandFailed(
                f"{argv[0]} took longer than {self.timeout_s:g} s and was killed{talk.complaint}"
            ) from None
        finally:
            talk.kill()
            # Closing the transport of a process that is not reaped yet would reap it behind asyncio's back.
            await talk.wait(talk.exited)
            transport.close()
        return self.judged(argv[0], transport.get_returncode(), talk, time.monotonic() - started_s)

    def live_lines(self) -> dict[int, LiveLines]:
        """By descriptor; none where the function is called as such, and nobody follows."""
        context = active.get(None)
        if context is None:
            return {}
        return {1: LiveLines(context, shown=self.output != "json"), 2: LiveLines(context, shown=True)}

    def filled(self, arguments: dict[str, Any]) -> list[str]:
        """The arguments of one run. Raises InvalidInput for a value that cannot be, or must not be, an argument."""
        texts: dict[str, str] = {}
        for name in {n for template in self.argv for n in template.names}:
            texts[name] = text_of(name, arguments[name])
            if "\0" in texts[name]:
                raise InvalidInput(f"{name}: a program's argument cannot hold a NUL character")
        filled: list[str] = []
        operands_only = False
        for template in self.argv:
            text = template.fill(texts)
            first = template.opens_with
            operands_only = operands_only or (text == "--" and not template.names)
            if first is not None and text.startswith("-") and not operands_only and first not in self.options:
                raise InvalidInput(
                    f"{first}: {bounded_text(text, 80)!r} would be read as an option; "
                    f"the command may allow it by '--' before {{{first}}} or by options=[\"{first}\"]"
                )
            filled.append(text)
        return filled

    def input_of(self, arguments: dict[str, Any]) -> bytes | None:
        """What the program reads."""
        if self.stdin_json:
            return to_json(arguments)
        if self.stdin is None:
            return None
        return self.stdin.fill({name: text_of(name, arguments[name]) for name in self.stdin.names}).encode()

    def judged(self, program: str, code: int | None, talk: _Talk, duration_s: float) -> Any:
        """The result of a program that has ended. Raises CommandFailed."""
        if talk.overflown:
            raise CommandFailed(
                f"{program} wrote more than {self.output_bytes_max} bytes to its output and was killed{talk.complaint}"
            )
        if code is None or code not in self.ok_codes:
            how = (
                f"was ended by {_signal_name(-code)}"
                if code is not None and code < 0
                else f"ended with exit code {code}"
            )
            raise CommandFailed(f"{program} {how}{talk.complaint}")
        raw = bytes(talk.stdout)
        rest = {"exit_code": code, "stderr": talk.stderr_text, "duration_s": round(duration_s, 6)}
        if self.output == "json":
            try:
                return {"stdout": msgspec.json.decode(raw), **rest}
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise CommandFailed(f"the output of {program} is not JSON: {error}{talk.complaint}") from None
        text = raw.decode("utf-8", "replace")
        replaced = "\ufffd" in text and text.encode() != raw
        return {"stdout": _lines_of(text) if self.output == "lines" else text, "stdout_replaced": replaced, **rest}


@dataclass(slots=True, eq=False)
class _Talk(asyncio.SubprocessProtocol):
    """What a running program says, as it says it; it is killed at the byte that is too many."""

    stdout_bytes_max: int
    stdin: bytes | None
    live: dict[int, LiveLines]
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    overflown: bool = False
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    _group: int = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        process = cast("asyncio.SubprocessTransport", transport)
        self._group = process.get_pid()
        if self.stdin is not None:
            pipe = cast("asyncio.WriteTransport", process.get_pipe_transport(0))
            pipe.write(self.stdin)
            pipe.close()  # after what is written has gone out

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        live = self.live.get(fd)
        if live is not None:
            live.feed(data)
        if fd == 1:
            if self.overflown:
                return
            self.stdout += data
            if len(self.stdout) > self.stdout_bytes_max:
                self.overflown = True
                self.stdout.clear()
                self.kill()
        else:
            self.stderr += data
            del self.stderr[: max(0, len(self.stderr) - STDERR_BYTES_MAX)]

    def process_exited(self) -> None:
        self.kill()  # what it left running would hold its output open
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    async def wait(self, event: asyncio.Event) -> None:
        """Wait for what must happen soon, but not for ever."""
        try:
            async with asyncio.timeout(_END_WAIT_S):
                await event.wait()
        except TimeoutError:
            pass

    def kill(self) -> None:
        """Kill the program and all that it started in its session, once it has been started and again harmlessly."""
        if self._group:
            try:
                os.killpg(self._group, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # all gone; or (macOS) only zombies are left
                pass
            if self.exited.is_set():
                self._group = 0  # from here on the system may give the number to somebody else

    @property
    def stderr_text(self) -> str:
        return self.stderr.decode("utf-8", "replace")

    @property
    def complaint(self) -> str:
        """The end of standard error, for a message."""
        text = self.stderr_text.strip()
        return f"; standard error ends with: {bounded_text(text, STDERR_BYTES_MAX // 2, keep_end=True)}" if text else ""


def _lines_of(text: str) -> list[str]:
    """Split at line feeds only: str.splitlines also splits at form feeds and the like, which programs mean as text."""
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
