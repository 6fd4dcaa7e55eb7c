"""Files in which people write settings: YAML, as far as everybody reads it alike, and JSON, which is a part of that."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import yaml

from merit.cli import output
from merit.cli.output import CliError

Settings = TypeVar("Settings")

_FILE_BYTES_MAX: Final = 1024 * 1024


class _Loader(yaml.SafeLoader):
    """The core schema of YAML 1.2: ``no`` is a text and ``1:30`` is no number; and neither anchors, which can make a few
    lines as large as one likes, nor names that stand twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as the base class has it

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave the parser out
        if getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(None, None, "anchors and aliases cannot be used", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(None, None, "a name has to be a text; put it in quotes", key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"{key.value} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"null|~|", ["n", "~", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: float(node.value))


def read_settings(file: Path, kind: type[Settings], command: str) -> Settings:
    """What the file says.

    Args:
        file: YAML or JSON.
        kind: what it should be.
        command: of which the help says more.

    Raises:
        CliError: it cannot be read, or says something else; with the place.
    """
    try:
        if file.stat().st_size > _FILE_BYTES_MAX:
            raise CliError("invalid", f"{file}: is larger than {_FILE_BYTES_MAX:,} bytes", output.USAGE)
        text = file.read_bytes()
    except OSError as error:
        raise CliError("invalid", f"{file}: {error.strerror}", output.USAGE) from error
    try:
        if file.suffix == ".json":
            return msgspec.json.decode(text, type=kind)
        return msgspec.convert(yaml.load(text, Loader=_Loader), kind)  # noqa: S506 - it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        raise CliError("invalid", f"{file}{where}: {error.problem}", output.USAGE) from error
    except (yaml.YAMLError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CliError("invalid", f"{file}: {error}; see {command} --help", output.USAGE) from error
