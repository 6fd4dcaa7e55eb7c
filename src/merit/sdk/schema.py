"""From type hints to JSON: the schemas of a function's input and output, and the decoder and encoder that go with them.

The meaning is pydantic's strict mode for JSON, which agrees with JSON Schema: "5" is no integer, 1 is a number, an
enum is its value, a date is its ISO text. Plain types are decoded by msgspec, which agrees on them and costs a tenth;
whatever it refuses is judged by pydantic, so that there is one set of rules and of error messages.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

import msgspec
import pydantic_core
from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema

# pydantic asks for this TypedDict before Python 3.12, and is the one that brings it.
from typing_extensions import TypedDict

from merit.model.json_depth import too_deep
from merit.model.limits import JSON_DEPTH_MAX, PAYLOAD_INLINE_BYTES_MAX
from merit.sdk.context import Context
from merit.sdk.outcome import bounded_text
from merit.sdk.searchable import Searchable

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PROBLEMS_SHOWN_MAX = 8
VALUE_SHOWN_BYTES_MAX = 80
PARAMETERS_MAX = 100


class CapabilityError(TypeError):
    """A function or program that cannot be made a capability: the message names it, the parameter and the reason."""


class InvalidInput(ValueError):
    """Parameters that do not fit the input schema; the message names each field and the reason."""


class InvalidOutput(ValueError):
    """A return value that is not of the declared type, or not JSON; the message names the place and the reason."""


_REQUIRED: Any = object()
_LONG_NUMBER = re.compile(rb"[0-9]{4300}")
"""Python reads no longer ones from text, unless it is told to."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One input field: its name, its type hint, and its default unless it is required."""

    name: str
    hint: Any
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is _REQUIRED


@dataclass(frozen=True, slots=True)
class Signature:
    """The JSON side of one capability.

    `decode` turns a JSON object into keyword arguments and raises InvalidInput; `encode` turns the return value into JSON
    and raises InvalidOutput. `context_parameter` is where the function wants its Context, or None.
    """

    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    decode: Callable[[bytes], dict[str, Any]]
    encode: Callable[[Any], bytes]
    context_parameter: str | None = None


def signature_of(function: Callable[..., Any], name: str) -> Signature:
    """Read a typed function. Raises CapabilityError naming the parameter that has no type, or one that is not JSON."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception as error:  # evaluating annotations runs the user's code
        raise CapabilityError(
            f"{name}: its type hints cannot be evaluated ({error}); types that it names must be defined at module level"
        ) from error
    parameters: list[Parameter] = []
    context_parameter: str | None = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise CapabilityError(
                f"{name}: parameter '{parameter}' has no name that a caller could use; declare each field by itself"
            )
        if parameter.name not in hints:
            raise CapabilityError(f"{name}: parameter '{parameter.name}' has no type hint")
        hint = hints[parameter.name]
        if hint is Context:
            if context_parameter is not None:
                raise CapabilityError(f"{name}: parameter '{parameter.name}': one Context is enough")
            context_parameter = parameter.name
            continue
        default = _REQUIRED if parameter.default is parameter.empty else parameter.default
        parameters.append(Parameter(parameter.name, hint, default))
    return build_signature(name, parameters, hints.get("return", Any), context_parameter)


def build_signature(
    name: str, parameters: Sequence[Parameter], returns: Any, context_parameter: str | None = None
) -> Signature:
    """Make a Signature of declared parameters. Raises CapabilityError as `signature_of` does."""
    if len(parameters) > PARAMETERS_MAX:
        raise CapabilityError(f"{name}: more than {PARAMETERS_MAX} parameters; take one structured parameter instead")
    usable = [Parameter(p.name, _for_pydantic(p.hint), p.default) for p in parameters]
    defaults = {p.name: _checked_default(name, p) for p in usable}
    returned = _for_pydantic(returns)
    output = _adapter(returned, f"{name}: the return type")
    return Signature(
        input_schema=_input_schema(name, usable, defaults),
        output_schema={"$schema": DIALECT, **_json_schema(output, "serialization", f"{name}: the return type")},
        decode=_decoder(usable),
        encode=_encoder(returned, output),
        context_parameter=context_parameter,
    )


# --- schemas ------------------------------------------------------------------------------------------------------------


class _Untitled(GenerateJsonSchema):
    """Leaves out the titles that only repeat the names of fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _adapter(hint: Any, where: str) -> TypeAdapter[Any]:
    # NoneType and the like take no config, nor do classes that have their own.
    try:
        try:
            return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False, ser_json_inf_nan="constants"))
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":
                raise
            return TypeAdapter(hint)
    except (PydanticSchemaGenerationError, PydanticUserError, NameError, TypeError) as error:
        raise CapabilityError(f"{where} cannot be read as JSON: {_first_line(error)}") from error


def _json_schema(adapter: TypeAdapter[Any], mode: Literal["validation", "serialization"], where: str) -> dict[str, Any]:
    try:
        return adapter.json_schema(mode=mode, schema_generator=_Untitled)
    except (PydanticInvalidForJsonSchema, PydanticUserError) as error:
        raise CapabilityError(f"{where} has no JSON Schema: {_first_line(error)}") from error


def _checked_default(name: str, parameter: Parameter) -> Any:
    """Check one parameter by itself, so that an error can name it; returns its default as JSON."""
    where = f"{name}: parameter '{parameter.name}'"
    adapter = _adapter(parameter.hint, where)
    _json_schema(adapter, "validation", where)
    if parameter.required:
        return None
    try:
        adapter.validate_python(parameter.default)
        return adapter.dump_python(parameter.default, mode="json", warnings="error")
    except (ValidationError, pydantic_core.PydanticSerializationError) as error:
        raise CapabilityError(
            f"{where}: its default {_shown(parameter.default)} does not fit its type: {_first_line(error)}"
        ) from error


def _input_schema(name: str, parameters: list[Parameter], defaults: dict[str, Any]) -> dict[str, Any]:
    schema = _json_schema(TypeAdapter(_fields(parameters)), "validation", name)
    schema.pop("title", None)
    schema.setdefault("properties", {})
    for parameter in parameters:
        if not parameter.required:
            schema["properties"][parameter.name]["default"] = defaults[parameter.name]
    return {"$schema": DIALECT, **schema}


def _fields(parameters: list[Parameter]) -> Any:
    """The parameters as a TypedDict: pydantic then gives the keyword arguments themselves, with no object in between."""
    fields = {p.name: p.hint if p.required else NotRequired[p.hint] for p in parameters}
    kind = TypedDict("parameters", fields)  # type: ignore[misc] # the fields are only known at run time
    kind.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined] # pydantic's protocol
    return kind


def _for_pydantic(hint: Any) -> Any:
    """`hint` with typing's TypedDict replaced by one that pydantic takes before Python 3.12, wherever it stands in it."""
    if sys.version_info >= (3, 12):
        return hint
    if typing.is_typeddict(hint) and type(hint).__module__ == "typing":
        fields: dict[str, Any] = {}
        # Read from the hints, because __required_keys__ misses Required and NotRequired under postponed annotations.
        for key, inner in get_type_hints(hint, include_extras=True).items():
            marker = get_origin(inner)
            needed = marker is Required or (marker is not NotRequired and key in hint.__required_keys__)
            bare = _for_pydantic(get_args(inner)[0] if marker in (Required, NotRequired) else inner)
            fields[key] = Required[bare] if needed else NotRequired[bare]
        replaced = TypedDict(hint.__name__, fields)  # type: ignore[misc] # the fields are only known at run time
        replaced.__doc__ = hint.__doc__
        if config := getattr(hint, "__pydantic_config__", None):
            replaced.__pydantic_config__ = config  # type: ignore[attr-defined] # pydantic's protocol
        return replaced
    arguments = get_args(hint)
    origin = get_origin(hint)
    if not arguments or origin is Literal:
        return hint
    if origin is Annotated:
        return Annotated[(_for_pydantic(arguments[0]), *hint.__metadata__)]
    rewritten = tuple(_for_pydantic(a) for a in arguments)
    if rewritten == arguments:
        return hint
    return Union[rewritten] if origin in (Union, UnionType) else origin[rewritten]  # noqa: UP007 — built at run time


# --- decoding -----------------------------------------------------------------------------------------------------------


def _decoder(parameters: list[Parameter]) -> Callable[[bytes], dict[str, Any]]:
    validate = TypeAdapter(_fields(parameters)).validator.validate_json
    is_json = msgspec.json.Decoder(msgspec.Raw).decode

    def judge(raw: bytes) -> dict[str, Any]:
        try:
            is_json(raw)  # refuses NaN and Infinity, which pydantic reads
            found: dict[str, Any] = validate(raw, strict=True)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidInput(f"parameters are not JSON: {_first_line(error)}") from None
        except ValidationError as error:
            raise InvalidInput(_problems(error, "parameters")) from None
        return found

    fields = [_plain_field(p) for p in parameters]
    if None in fields:
        return judge
    record = msgspec.defstruct(
        "Parameters", [f for f in fields if f], kw_only=True, forbid_unknown_fields=True, gc=False
    )
    decode = msgspec.json.Decoder(record).decode
    as_arguments = msgspec.structs.asdict

    def decode_plain(raw: bytes) -> dict[str, Any]:
        try:
            return as_arguments(decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return judge(raw)

    return decode_plain


_SCALARS: tuple[Any, ...] = (str, int, float, bool, NoneType)


def _plain_field(parameter: Parameter) -> tuple[str, Any] | tuple[str, Any, Any] | None:
    """The parameter as a msgspec field, or None if its type is more than msgspec and pydantic are known to agree on."""
    if not _is_plain(parameter.hint):
        return None
    if parameter.required:
        return parameter.name, parameter.hint
    if not isinstance(parameter.default, _SCALARS):  # a mutable default: the function's own rules apply
        return None
    return parameter.name, parameter.hint, parameter.default


def _is_plain(hint: Any) -> bool:
    if hint in _SCALARS:
        return True
    arguments = get_args(hint)
    origin = get_origin(hint)
    if origin is Annotated:  # the mark says nothing of the value
        return hint.__metadata__ == (Searchable,) and _is_plain(arguments[0])
    if origin in (Union, UnionType):
        return len(arguments) == 2 and NoneType in arguments and all(a in _SCALARS for a in arguments)
    if origin is list:
        return _is_plain(arguments[0])
    return origin is dict and arguments[0] is str and _is_plain(arguments[1])


def _problems(error: ValidationError, whole: str) -> str:
    """The fields that do not fit, each with the reason."""
    found = error.errors(include_url=False, include_context=False)
    parts = []
    for problem in found[:PROBLEMS_SHOWN_MAX]:
        place = ".".join(str(step) for step in problem["loc"])
        got = "" if problem["type"] in ("missing", "json_invalid") else f" (got {_shown(problem['input'])})"
        parts.append(f"{place or whole}: {problem['msg']}{got}")
    if len(found) > PROBLEMS_SHOWN_MAX:
        parts.append(f"and {len(found) - PROBLEMS_SHOWN_MAX} more")
    return "; ".join(parts)


# --- encoding -----------------------------------------------------------------------------------------------------------


def _encoder(hint: Any, adapter: TypeAdapter[Any]) -> Callable[[Any], bytes]:
    validate = adapter.validator.validate_python
    dump = adapter.serializer.to_python
    to_json = pydantic_core.to_json
    is_json = msgspec.json.Decoder(msgspec.Raw).decode

    def encode(value: Any) -> bytes:
        try:
            plain = dump(validate(value, strict=True), mode="json", by_alias=True, warnings="error")
            raw = to_json(plain, inf_nan_mode="constants")
            # Only NaN and the infinities are written as words that JSON does not have; inside a string they are harmless.
            if b"NaN" in raw or b"Infinity" in raw:
                is_json(raw)
            if len(raw) <= PAYLOAD_INLINE_BYTES_MAX:
                _check_fits_door(raw)
        except ValidationError as error:
            raise InvalidOutput(f"not of the declared return type: {_problems(error, 'result')}") from None
        except msgspec.DecodeError:
            raise InvalidOutput(
                "the result is not JSON: it holds NaN or an infinity; return None in its place"
            ) from None
        except (pydantic_core.PydanticSerializationError, ValueError, RecursionError) as error:
            raise InvalidOutput(f"the result cannot be written as JSON: {_first_line(error)}") from None
        return raw

    if hint not in (str, int, float, bool, NoneType, None):
        return encode
    write = msgspec.json.Encoder().encode
    exact: Any = NoneType if hint is None else hint
    is_float = exact is float
    finite = math.isfinite

    def encode_plain(value: Any) -> bytes:
        if type(value) is not exact or (is_float and not finite(value)):
            return encode(value)
        try:
            return write(value)
        except (UnicodeEncodeError, ValueError):
            return encode(value)

    return encode_plain


def _check_fits_door(raw: bytes) -> None:
    """Raise ``InvalidOutput`` for what the door would refuse, and end the worker's stream for, each time it is sent."""
    if too_deep(raw):
        raise InvalidOutput(
            f"the result is nested deeper than {JSON_DEPTH_MAX} levels: flatten it, or return it as text"
        )
    if _LONG_NUMBER.search(raw):
        try:
            msgspec.json.decode(raw)
        except msgspec.DecodeError as error:
            raise InvalidOutput(f"the result holds a number that is too long: {error}; return it as text") from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # pydantic's own heading says how many errors there are; the next line says which.
    return bounded_text(" ".join(line.strip() for line in lines[:3]), 400)


def _shown(value: Any) -> str:
    try:
        return bounded_text(repr(value), VALUE_SHOWN_BYTES_MAX)
    except Exception:  # noqa: BLE001 — a user's __repr__ may do anything
        return f"a {type(value).__name__}"
