"""A capability: a named kind of work, made of a typed function.

    @capability
    def word_count(text: str) -> int:
        "Number of words in a text."
        return len(text.split())

    @capability(name="thumbnail", version="2.1.0", cpu=True, resources={"cpu": 1, "memory": "512Mi"})
    def make_thumbnail(path: str, width: int = 128) -> str: ...

The function stays callable as it was.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

import msgspec

from merit.model.limits import COST_MICROS_MAX, NAME_LENGTH_MAX, RUN_TIMEOUT_NS_MAX, SECOND_NS
from merit.model.workers import PERMILLE, PREFERENCE_PERMILLE_DEFAULT, Offer
from merit.sdk.amounts import Amounts, amounts_of
from merit.sdk.schema import CapabilityError, Signature, signature_of

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Mode = Literal["thread", "async", "process"]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_NUMBER = r"(?:0|[1-9]\d{0,8})"
_PART = r"(?:0|[1-9]\d*|\d*[A-Za-z\-][0-9A-Za-z\-]*)"
VERSION = re.compile(  # Semantic Versioning 2.0.0
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_PART}(?:\.{_PART})*)?(?:\+[0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*)?", re.ASCII
)
VERSION_LENGTH_MAX = 128
TAG = re.compile(r"[^\s\x00-\x1f]{1,64}")
TAGS_MAX = 32
DESCRIPTION_BYTES_MAX = 4 * 1024
CONCURRENCY_MAX = 10_000
HEARTBEAT_TIMEOUT_S_MIN = 1.0  # workers pass signs of life on four times a second
HEARTBEAT_TIMEOUT_S_MAX = RUN_TIMEOUT_NS_MAX // SECOND_NS
PREFERENCE_DEFAULT = PREFERENCE_PERMILLE_DEFAULT / PERMILLE
MICROS = 1_000_000
COST_MAX = COST_MICROS_MAX // MICROS


class Capability(Generic[Parameters, Result]):
    """A declared function. Calling it calls the function; `merit worker MODULE` and `serve()` offer it to the fleet.

    `mode` says where an attempt runs: in a runner thread, as a task of the event loop, or in a child process.
    `concurrency` bounds how many attempts of it one worker runs at a time; None leaves that to the worker. Without
    `safe_to_repeat` an attempt that may have begun is never followed by another one. With `heartbeat_timeout_s` an attempt
    has failed that gives no sign of progress for so long.

    `resources` is what one attempt needs while it lives, by name (`cpu` in cores, `memory` in bytes, `network` in bytes a
    second, `gpu` in devices, or any other), as a number or a text such as "512Mi"; it goes only to workers that have so much of it free. `cost` of one task is in
    whatever the operator reckons in, `preference` (0..1) says how much its worker likes this kind of work; strategies may go
    by both. With `stateful` the tasks of one key stay on one worker. `requires` names what it depends on outside, for
    people to read.
    """

    __name__: str
    __qualname__: str

    def __init__(
        self,
        function: Callable[Parameters, Result],
        *,
        name: str,
        version: str,
        description: str,
        mode: Mode,
        signature: Signature,
        concurrency: int | None = None,
        tags: Iterable[str] = (),
        safe_to_repeat: bool = True,
        heartbeat_timeout_s: float | None = None,
        resources: Amounts | None = None,
        cost: float = 0.0,
        preference: float = PREFERENCE_DEFAULT,
        stateful: bool = False,
        requires: Iterable[str] = (),
    ) -> None:
        """Raises CapabilityError for a name, version, tag, number or anything else that is out of form."""
        self.function = function
        self.name = name
        self.version = version
        self.description = description
        self.mode: Mode = mode
        self.signature = signature
        self.concurrency = concurrency
        self.tags = tuple(tags)
        self.safe_to_repeat = safe_to_repeat
        self.heartbeat_timeout_s = heartbeat_timeout_s
        self.resources: Amounts = {} if resources is None else resources
        self.cost = cost
        self.preference = preference
        self.stateful = stateful
        self.requires = tuple(requires)
        self._check()
        functools.update_wrapper(self, function)

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        """Call the function itself, here and now."""
        return self.function(*args, **kwargs)

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema (draft 2020-12) of the parameters: one object."""
        return self.signature.input_schema

    @property
    def output_schema(self) -> dict[str, Any]:
        """JSON Schema (draft 2020-12) of the result."""
        return self.signature.output_schema

    @property
    def address(self) -> tuple[str, str]:
        """Module and qualified name under which another process finds it."""
        return self.function.__module__, self.function.__qualname__

    @property
    def offer(self) -> Offer:
        """The capability as its worker offers it to the control plane."""
        return Offer(
            self.name,
            self.version,
            self.description,
            msgspec.json.encode(self.input_schema),
            msgspec.json.encode(self.output_schema),
            self.tags,
            self.safe_to_repeat,
            round((self.heartbeat_timeout_s or 0) * SECOND_NS),
            amounts_of("resources", self.resources),
            self.concurrency or 0,
            round(self.cost * MICROS),
            round(self.preference * PERMILLE),
            self.stateful,
            self.requires,
        )

    def __repr__(self) -> str:
        return f"<capability {self.name} {self.version} ({self.mode})>"

    def __reduce__(self) -> tuple[Callable[[str, str], Capability[..., Any]], tuple[str, str]]:
        return find, self.address

    def _check(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise CapabilityError(
                f"{self.name!r}: a capability's name is 1 to 128 letters, digits, '_', '.' or '-', "
                "and starts with a letter, a digit or '_'"
            )
        version_is_text = isinstance(self.version, str) and len(self.version) <= VERSION_LENGTH_MAX
        if not version_is_text or not VERSION.fullmatch(self.version):
            raise CapabilityError(f"{self.name}: version {self.version!r} is not semantic (like 1.0.0)")
        if len(self.description.encode("utf-8", "replace")) > DESCRIPTION_BYTES_MAX:
            raise CapabilityError(f"{self.name}: its description is longer than {DESCRIPTION_BYTES_MAX} bytes")
        if self.concurrency is not None and not 1 <= self.concurrency <= CONCURRENCY_MAX:
            raise CapabilityError(f"{self.name}: concurrency must be 1 to {CONCURRENCY_MAX}, not {self.concurrency}")
        timeout_s = self.heartbeat_timeout_s
        if timeout_s is not None and not HEARTBEAT_TIMEOUT_S_MIN <= timeout_s <= HEARTBEAT_TIMEOUT_S_MAX:
            raise CapabilityError(
                f"{self.name}: heartbeat_timeout_s must be {HEARTBEAT_TIMEOUT_S_MIN:g} to "
                f"{HEARTBEAT_TIMEOUT_S_MAX:,} seconds, not {timeout_s!r}"
            )
        if len(self.tags) > TAGS_MAX or not all(isinstance(tag, str) and TAG.fullmatch(tag) for tag in self.tags):
            raise CapabilityError(
                f"{self.name}: tags are at most {TAGS_MAX} words of 1 to 64 characters, not {list(self.tags)!r}"
            )
        try:
            amounts_of("resources", self.resources)
        except ValueError as error:
            raise CapabilityError(f"{self.name}: {error}") from None
        for field, number, most in (("cost", self.cost, COST_MAX), ("preference", self.preference, 1)):
            if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= most:
                raise CapabilityError(f"{self.name}: {field} must be a number from 0 to {most:,}, not {number!r}")
        if len(self.requires) > TAGS_MAX or not all(
            isinstance(item, str) and 0 < len(item) <= NAME_LENGTH_MAX for item in self.requires
        ):
            raise CapabilityError(
                f"{self.name}: requires are at most {TAGS_MAX} texts of 1 to {NAME_LENGTH_MAX} characters, "
                f"not {list(self.requires)!r}"
            )


_declared: list[Capability[..., Any]] = []
_declaring: list[None] = []


@overload
def capability(function: Callable[Parameters, Result], /) -> Capability[Parameters, Result]: ...
@overload
def capability(
    *,
    name: str | None = None,
    version: str = "1.0.0",
    description: str | None = None,
    cpu: bool = False,
    concurrency: int | None = None,
    tags: Iterable[str] = (),
    safe_to_repeat: bool = True,
    heartbeat_timeout_s: float | None = None,
    resources: Amounts | None = None,
    cost: float = 0.0,
    preference: float = PREFERENCE_DEFAULT,
    stateful: bool = False,
    requires: Iterable[str] = (),
) -> Callable[[Callable[Parameters, Result]], Capability[Parameters, Result]]: ...
def capability(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: str = "1.0.0",
    description: str | None = None,
    cpu: bool = False,
    concurrency: int | None = None,
    tags: Iterable[str] = (),
    safe_to_repeat: bool = True,
    heartbeat_timeout_s: float | None = None,
    resources: Amounts | None = None,
    cost: float = 0.0,
    preference: float = PREFERENCE_DEFAULT,
    stateful: bool = False,
    requires: Iterable[str] = (),
) -> Any:
    """Declare a typed function as a capability.

    `name` is the function's unless given, `description` its docstring. `cpu` runs attempts in processes of their own (for
    work that holds the interpreter), `concurrency` bounds them per worker. `safe_to_repeat=False` is for work that must not be
    done twice: an attempt that may have begun is never followed by another one. With `heartbeat_timeout_s` an attempt has
    failed that gives no sign of progress (`Context.progress`, `beat`, `log`) for so long. `resources`, `cost`, `preference`,
    `tags`, `stateful` and `requires` are for whoever chooses the worker (see `Capability`). Raises CapabilityError when it is
    declared, not when it is called: for a parameter without a type or of one that is not JSON, for *args, for a bad name
    or version.
    """

    def declare(target: Callable[..., Any]) -> Capability[..., Any]:
        if not inspect.isroutine(target) or not hasattr(target, "__qualname__"):
            raise CapabilityError(f"{target!r} is not a function")
        named = target.__name__ if name is None else name
        is_async = inspect.iscoroutinefunction(target)
        if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
            raise CapabilityError(f"{named}: a generator has no single result; return a list")
        if cpu and is_async:
            raise CapabilityError(f"{named}: cpu=True is for plain functions; an async one runs on the event loop")
        if cpu and "<locals>" in target.__qualname__:
            raise CapabilityError(
                f"{named}: with cpu=True the function must stand at module level, to be found by name"
            )
        return register(
            Capability(
                target,
                name=named,
                version=version,
                description=inspect.getdoc(target) or "" if description is None else description,
                mode="process" if cpu else "async" if is_async else "thread",
                signature=signature_of(target, named),
                concurrency=concurrency,
                tags=tags,
                safe_to_repeat=safe_to_repeat,
                heartbeat_timeout_s=heartbeat_timeout_s,
                resources=resources,
                cost=cost,
                preference=preference,
                stateful=stateful,
                requires=requires,
            )
        )

    return declare if function is None else declare(function)


def register(made: Capability[Parameters, Result]) -> Capability[Parameters, Result]:
    """Add a capability to those that this process declares. One that is declared again (a reload) replaces the old one."""
    _declared[:] = [known for known in _declared if known.address != made.address or known.name != made.name]
    _declared.append(made)
    return made


@contextlib.contextmanager
def declaring() -> Iterator[None]:
    """While a module is loaded for what it declares: ``serve`` in it does nothing."""
    _declaring.append(None)
    try:
        yield
    finally:
        _declaring.pop()


def only_declaring() -> bool:
    """Whether a module is being loaded for what it declares."""
    return bool(_declaring)


def declared() -> tuple[Capability[..., Any], ...]:
    """All capabilities that were declared in this process, in order."""
    return tuple(_declared)


def capabilities_of(module: ModuleType | str) -> tuple[Capability[..., Any], ...]:
    """The capabilities that a module's namespace holds, imported ones and those in lists included, each once, in order.

    Raises ImportError for a module that cannot be found, CapabilityError for two capabilities of one name.
    """
    loaded = importlib.import_module(module) if isinstance(module, str) else module
    found: dict[str, Capability[..., Any]] = {}
    for value in vars(loaded).values():
        for item in value if isinstance(value, list | tuple) else (value,):
            if not isinstance(item, Capability):
                continue
            if found.setdefault(item.name, item) is not item:
                raise CapabilityError(f"{loaded.__name__}: two capabilities are called {item.name}; rename one")
    return tuple(found.values())


def find(module: str, qualified_name: str) -> Capability[..., Any]:
    """The capability at that address. Raises ImportError for a missing module, CapabilityError if there is none of that name."""
    found: Any = importlib.import_module(module)
    for step in qualified_name.split("."):
        found = getattr(found, step, None)
    if not isinstance(found, Capability):
        raise CapabilityError(
            f"{module}.{qualified_name} is no capability; the name must hold what @capability returned"
        )
    return found
