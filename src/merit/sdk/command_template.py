"""How a command's arguments and parameters are declared: templates with placeholders, and types given as JSON Schema."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from merit.sdk.schema import CapabilityError, InvalidInput, Parameter

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "busybox"})


@dataclass(frozen=True, slots=True)
class Template:
    """Text with placeholders: literals and names in turn, a name being None after the last literal."""

    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, command: str, text: str) -> Template:
        """Read a template of `command`. Raises CapabilityError for a placeholder that is not a plain name."""
        if not isinstance(text, str):
            raise CapabilityError(f"{command}: {text!r} must be a string")
        if "\0" in text:
            raise CapabilityError(f"{command}: {text!r} holds a NUL character")
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise CapabilityError(
                f"{command}: {text!r}: {error}; write braces that are meant as {{{{ and }}}}"
            ) from None
        for _, name, form, conversion in parsed:
            if name is not None and (not name.isidentifier() or form or conversion):
                raise CapabilityError(f"{command}: {text!r}: a placeholder is {{name}} with the name of a parameter")
        return cls(tuple((literal, name) for literal, name, _, _ in parsed))

    @property
    def names(self) -> list[str]:
        """The parameters that it names."""
        return [name for _, name in self.pieces if name is not None]

    @property
    def opens_with(self) -> str | None:
        """The parameter with which the text begins, if it begins with one."""
        return self.pieces[0][1] if self.pieces and not self.pieces[0][0] else None

    def fill(self, texts: Mapping[str, str]) -> str:
        """The text with the parameters' texts put in."""
        return "".join(literal + (texts[name] if name is not None else "") for literal, name in self.pieces)


def argv_templates(name: str, argv: Sequence[str]) -> tuple[Template, ...]:
    """The program and its arguments. Raises CapabilityError where a parameter would choose the program or become code."""
    if isinstance(argv, str) or not argv or not argv[0]:
        raise CapabilityError(f"{name}: argv must be a list: the program, then one string per argument")
    templates = tuple(Template.parse(name, part) for part in argv)
    if templates[0].names:
        raise CapabilityError(f"{name}: argv[0], the program, cannot come from a parameter")
    for script in _scripts(argv, templates):
        if script.names:
            raise CapabilityError(
                f"{name}: {{{script.names[0]}}} stands inside a shell script, where its value would be run as code; "
                'put it after the script, as an argument of its own, and write "$1" in the script'
            )
    return templates


def _scripts(argv: Sequence[str], templates: Sequence[Template]) -> list[Template]:
    """The arguments that a shell would run as its script: what follows its option -c, also behind a wrapper like env."""
    if not any(Path(part).name in _SHELLS for part in argv):
        return []
    following = zip(argv, templates[1:], strict=False)
    return [t for part, t in following if part.startswith("-") and not part.startswith("--") and part.endswith("c")]


def text_of(name: str, value: Any) -> str:
    """A scalar as text. Raises InvalidInput for anything else."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise InvalidInput(f"{name}: only text, numbers and booleans can be put into a text")
    return str(value)


# --- parameters ---------------------------------------------------------------------------------------------------------


def parameters_of(name: str, parameters: Mapping[str, Any]) -> list[Parameter]:
    """Read types, pairs of type and default, JSON Schemas by name, or one of an object. Raises CapabilityError."""
    fields = parameters
    required: frozenset[str] | None = None
    if parameters.get("type") == "object" and isinstance(parameters.get("properties"), Mapping):
        unknown = set(parameters) - {
            "type",
            "properties",
            "required",
            "additionalProperties",
            "description",
            "title",
            "$schema",
        }
        if unknown or parameters.get("additionalProperties", False) is not False:
            raise CapabilityError(
                f"{name}: parameters: {', '.join(sorted(unknown)) or 'additionalProperties other than false'} is not supported"
            )
        fields, required = parameters["properties"], frozenset(parameters.get("required", ()))
    declared = [_parameter_of(name, key, given) for key, given in fields.items()]
    if required is not None:
        for parameter in declared:
            if parameter.required and parameter.name not in required:
                raise CapabilityError(f"{name}: parameter '{parameter.name}' must be required or have a default")
        declared = [Parameter(p.name, p.hint) if p.name in required else p for p in declared]
    return declared


def _parameter_of(command: str, name: str, given: Any) -> Parameter:
    if not isinstance(name, str) or not name.isidentifier():
        raise CapabilityError(f"{command}: parameter {name!r} is not a name of letters, digits and '_'")
    if isinstance(given, Mapping):
        hint = _hint_of(f"{command}: parameter '{name}'", given)
        return Parameter(name, hint, given["default"]) if "default" in given else Parameter(name, hint)
    if isinstance(given, tuple) and len(given) == 2:
        return Parameter(name, *given)
    return Parameter(name, given)


_TYPES: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "object": dict[str, Any]}
_CONSTRAINTS = {
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "minItems": "min_length",
    "maxItems": "max_length",
    "description": "description",
}


def _hint_of(where: str, schema: Mapping[str, Any]) -> Any:
    """The Python type of a field's JSON Schema: one type or an enumeration, with the usual constraints."""
    unknown = set(schema) - {"type", "enum", "items", "default", "title", *_CONSTRAINTS}
    if unknown:
        raise CapabilityError(f"{where}: JSON Schema keyword {', '.join(sorted(unknown))} is not supported here")
    kind = schema.get("type")
    if "enum" in schema:
        values = schema["enum"]
        if not isinstance(values, list) or not values or not all(isinstance(v, str | int | bool) for v in values):
            raise CapabilityError(f"{where}: enum must be a list of strings, integers or booleans")
        hint: Any = Literal[tuple(values)]
    elif kind == "array":
        items = schema.get("items", {})
        hint = list[_hint_of(f"{where}: items", items)] if items else list[Any]  # type: ignore[misc] # made at run time
    elif isinstance(kind, str) and kind in _TYPES:
        hint = _TYPES[kind]
    else:
        raise CapabilityError(f"{where}: type must be one of {', '.join([*_TYPES, 'array'])}, not {kind!r}")
    constraints = {_CONSTRAINTS[key]: value for key, value in schema.items() if key in _CONSTRAINTS}
    return Annotated[hint, Field(**constraints)] if constraints else hint
