"""How agents behind HTTP endpoints are described, in a TOML or JSON file or in Python, and what is checked of it at once.

[agent]
headers.Authorization = "Bearer ${env:TRANSLATOR_TOKEN}"

[[capability]]
name = "translate"
path = "/v1/{language}/translations"
input = { type = "object", required = ["language", "text"], properties.language.type = "string", properties.text.type = "string" }
body_json = { text = "{text}" }
result = "/translation"
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from merit.model.limits import CONCURRENCY_MAX, JSON_DEPTH_MAX
from merit.sdk.capability import PREFERENCE_DEFAULT
from merit.sdk.outcome import RESULT_BYTES_MAX, bounded_text
from merit.sdk.schema import PROBLEMS_SHOWN_MAX, VALUE_SHOWN_BYTES_MAX, CapabilityError

HTTP_SPEC_BYTES_MAX = 1024 * 1024
CAPABILITIES_MAX = 256
HEADERS_MAX = 64
HEADER_BYTES_MAX = 8 * 1024
TIMEOUT_S_MAX = 24 * 3600.0
RETRIES_MAX = 10
REDIRECTS_MAX = 5
REQUESTS_PER_S_MAX = 1_000_000.0
ANSWER_BYTES_MAX = 1024 * 1024

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}")
_HEADER_TEXT = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?")
_SECRET = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_STATUS_CLASS = re.compile(r"[2-5]xx")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
_OWN_HEADERS = frozenset(
    {
        *("host", "content-length", "transfer-encoding", "content-type", "accept-encoding", "connection", "keep-alive"),
        *("te", "trailer", "upgrade", "expect", "proxy-authorization", "proxy-connection"),
        *("idempotency-key", "merit-task", "merit-attempt"),
    }
)
"""They follow from the connection, the body and the attempt, and would contradict them."""

Seconds = Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX, allow_inf_nan=False)]
Statuses = list[Any]
Spec = TypeVar("Spec", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @field_validator("headers", check_fields=False)
    @classmethod
    def _headers_fit(cls, headers: dict[str, str]) -> dict[str, str]:
        if len(headers) > HEADERS_MAX:
            raise ValueError(f"at most {HEADERS_MAX} headers")
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{bounded_text(name, VALUE_SHOWN_BYTES_MAX)!r} is no name of a header")
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"{name} is set by Merit; take it out (a body's type is content_type)")
            if "${" in _SECRET.sub("", value):
                raise ValueError(f"{name}: write ${{env:NAME}} for the environment variable NAME")
            if len(value) > HEADER_BYTES_MAX or not _HEADER_TEXT.fullmatch(value):
                raise ValueError(
                    f"{name}: its value must be at most {HEADER_BYTES_MAX} printable ASCII characters, without space around"
                )
        return headers


class HttpAgentSettings(_Strict):
    """`[agent]`: what holds for all capabilities of an agent; the fields are the arguments of `HttpAgent`."""

    headers: dict[str, str] = {}
    connect_timeout_s: Seconds = 5.0
    concurrency: Annotated[int, Field(ge=1, le=CONCURRENCY_MAX)] = 100
    requests_per_s: Annotated[float, Field(gt=0, le=REQUESTS_PER_S_MAX, allow_inf_nan=False)] | None = None
    proxy: str | None = None
    ca_file: str | None = None


class HttpCallSpec(_Strict):
    """One `[[capability]]`; the fields are the arguments of `http_capability`."""

    name: str
    version: str = "1.0.0"
    description: str = ""
    tags: list[str] = []
    concurrency: int | None = None
    safe_to_repeat: bool = True
    resources: dict[str, Any] = {}
    cost: float = 0.0
    preference: float = PREFERENCE_DEFAULT
    stateful: bool = False
    requires: list[str] = []

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    path: str = "/"
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    body: Literal["json", "form", "none"] | None = None
    body_json: JsonValue = None
    body_text: str | None = None
    content_type: str | None = None

    input: dict[str, JsonValue] | None = None
    output: dict[str, JsonValue] | None = None
    result: str = "json"
    ok_statuses: Statuses = ["2xx"]
    permanent_statuses: Statuses | None = None
    answer_bytes_max: Annotated[int, Field(ge=0, le=RESULT_BYTES_MAX)] = ANSWER_BYTES_MAX

    timeout_s: Seconds = 30.0
    safe: bool | None = None
    retries: Annotated[int, Field(ge=0, le=RETRIES_MAX)] | None = None
    retry_wait_s_max: Seconds = 10.0
    redirects: Annotated[int, Field(ge=0, le=REDIRECTS_MAX)] = 0

    @field_validator("content_type")
    @classmethod
    def _content_type_fits(cls, value: str | None) -> str | None:
        if value is not None and not (value and len(value) <= HEADER_BYTES_MAX and _HEADER_TEXT.fullmatch(value)):
            raise ValueError('write a media type, such as "text/plain; charset=utf-8"')
        return value

    @field_validator("result")
    @classmethod
    def _result_is_somewhere(cls, value: str) -> str:
        if value not in ("json", "text") and not _POINTER.fullmatch(value):
            raise ValueError('write "json", "text", or a JSON pointer that begins with "/", such as "/data/0/text"')
        return value

    @field_validator("ok_statuses", "permanent_statuses")
    @classmethod
    def _statuses_exist(cls, values: Statuses | None) -> Statuses | None:
        for value in values or ():
            known = (type(value) is int and 200 <= value <= 599) or (
                isinstance(value, str) and _STATUS_CLASS.fullmatch(value)
            )
            if not known:
                shown = bounded_text(repr(value), VALUE_SHOWN_BYTES_MAX)
                raise ValueError(f'{shown} is no status; write numbers such as 404, or classes such as "4xx"')
        return values

    @field_validator("ok_statuses")
    @classmethod
    def _something_is_success(cls, values: Statuses) -> Statuses:
        if not values:
            raise ValueError("name at least one status that is a success")
        return values


class HttpSpecFile(_Strict):
    """A whole file."""

    agent: HttpAgentSettings = HttpAgentSettings()
    capability: Annotated[list[HttpCallSpec], Field(min_length=1, max_length=CAPABILITIES_MAX)]


def checked(kind: type[Spec], given: Mapping[str, Any], where: str = "") -> Spec:
    """`given` as a spec. Raises CapabilityError that names each field that does not fit, and what it should be."""
    if _deeper(given, JSON_DEPTH_MAX):
        raise CapabilityError(f"{where}nested deeper than {JSON_DEPTH_MAX} levels; make it flatter")
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
    parts = [_problem(kind, given, problem) for problem in found[:PROBLEMS_SHOWN_MAX]]
    if len(found) > PROBLEMS_SHOWN_MAX:
        parts.append(f"and {len(found) - PROBLEMS_SHOWN_MAX} more")
    raise CapabilityError(where + "; ".join(parts))


def read_http_spec(path: str | Path) -> HttpSpecFile:
    """The spec in a .toml or .json file.

    Raises OSError for a file that cannot be read, CapabilityError (naming the file) for one that does not fit.
    """
    file = Path(path)
    if file.suffix not in (".toml", ".json"):
        raise CapabilityError(f"{file}: its name must end in .toml or .json, which says how to read it")
    with file.open("rb") as opened:
        raw = opened.read(HTTP_SPEC_BYTES_MAX + 1)
    if len(raw) > HTTP_SPEC_BYTES_MAX:
        raise CapabilityError(f"{file}: larger than {HTTP_SPEC_BYTES_MAX} bytes")
    kind = file.suffix[1:].upper()
    try:
        content = tomllib.loads(raw.decode()) if kind == "TOML" else msgspec.json.decode(raw)
    except (tomllib.TOMLDecodeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CapabilityError(f"{file}: not {kind}: {error}") from None
    if not isinstance(content, dict):
        raise CapabilityError(f"{file}: it must hold an object with the key capability, and agent if need be")
    spec = checked(HttpSpecFile, content, f"{file}: ")
    names = [one.name for one in spec.capability]
    for twice in sorted({name for name in names if names.count(name) > 1}):
        raise CapabilityError(f"{file}: two capabilities are called {twice}; rename one")
    return spec


def with_secrets(where: str, headers: Mapping[str, str]) -> tuple[dict[str, str], frozenset[str]]:
    """`headers` with `${env:NAME}` replaced, and what was put in, which nobody may read anywhere.

    Raises CapabilityError for a variable that is not set, or that no header can hold; the message does not quote it.
    """
    filled: dict[str, str] = {}
    secrets: set[str] = set()
    for header, template in headers.items():
        for name in _SECRET.findall(template):
            value = os.environ.get(name, "")
            if not value:
                raise CapabilityError(
                    f"{where}: headers.{header}: the environment variable {name} is not set, or empty; "
                    "set it before the worker is started"
                )
            if len(value) > HEADER_BYTES_MAX or not _HEADER_TEXT.fullmatch(value):
                raise CapabilityError(
                    f"{where}: headers.{header}: the environment variable {name} must be at most {HEADER_BYTES_MAX} "
                    "printable ASCII characters, without space or line ends around"
                )
            secrets.add(value)
        filled[header] = _SECRET.sub(lambda found: os.environ[found[1]], template)
    return filled, frozenset(secrets)


def without(secrets: Iterable[str], text: str) -> str:
    """`text` with every secret in it blotted out."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _problem(kind: type[BaseModel], given: Mapping[str, Any], problem: Any) -> str:
    """One mistake: where it is, the capability by its name too, and what is wrong."""
    place = ""
    within: Any = given
    for step in problem["loc"]:
        within = _inner(within, step)
        if isinstance(step, int):
            called = within.get("name") if isinstance(within, dict) else None
            place += f"[{step}]" + (
                f" ({bounded_text(called, VALUE_SHOWN_BYTES_MAX)})" if isinstance(called, str) else ""
            )
        else:
            place += f".{step}" if place else str(step)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = f"there is no such setting; there are {', '.join(_settings(kind, problem['loc']))}"
    elif problem["type"] not in ("missing", "value_error") and "headers" not in problem["loc"]:
        message += f" (got {bounded_text(repr(problem['input']), VALUE_SHOWN_BYTES_MAX)})"
    return f"{place}: {message}"


def _deeper(value: Any, levels_max: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels_max < 0 or any(_deeper(one, levels_max - 1) for one in inner)


def _inner(whole: Any, step: str | int) -> Any:
    if isinstance(whole, dict):
        return whole.get(step)
    return whole[step] if isinstance(whole, list) and isinstance(step, int) and step < len(whole) else None


def _settings(kind: type[BaseModel], place: tuple[str | int, ...]) -> Iterable[str]:
    """The fields that there are where somebody wrote another one."""
    known: type[BaseModel] = kind
    if kind is HttpSpecFile and len(place) > 1:
        known = HttpAgentSettings if place[0] == "agent" else HttpCallSpec
    return known.model_fields
