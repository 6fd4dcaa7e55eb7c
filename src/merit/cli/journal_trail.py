"""`merit journal export`, `check` and `key`: what proves, to anybody and offline, what became of a task."""

from __future__ import annotations

import contextlib
import sys
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from merit.app.stores import Stores, open_stores
from merit.app.trail_export import export_trail
from merit.cli import output
from merit.cli.command import Function, MeritCommand, json_option, state_option, store_option
from merit.cli.journal_errors import explained
from merit.cli.output import CliError, note, write_json, write_lines
from merit.core.trails import CheckedTrail, TrailInvalid, check_trail
from merit.model.ids import is_task_id
from merit.model.trail import encode_trail
from merit.ports.read_model import ReadModelReader, ReadModelUnavailable
from merit.storage.durable_files import write_durably
from merit.storage.key_file import KeyFile, read_public_key

TRAIL_BYTES_MAX: Final = 256 * 1024 * 1024
"""A larger file is not looked at."""
_KEY_CHARACTERS_MAX: Final = 64 * 1024


class PublicKey(click.ParamType):  # type: ignore[type-arg]  # older versions of click cannot be subscripted
    """64 hexadecimal digits, or a file with them or with the key as PEM."""

    name = "HEX|FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        if isinstance(value, bytes):
            return value
        try:
            return read_public_key(str(value))
        except ValueError:
            pass
        try:
            with Path(value).open(encoding="utf-8") as file:
                return read_public_key(file.read(_KEY_CHARACTERS_MAX))
        except UnicodeDecodeError:
            self.fail(f"{value} is no text: a key is 64 hexadecimal digits, or a file with them or in PEM", param, ctx)
        except OSError as error:
            self.fail(f"{value!r} is neither a key of 64 hexadecimal digits nor a file: {error.strerror}", param, ctx)
        except ValueError as error:
            self.fail(f"{value}: {error}", param, ctx)


def keys_option(function: Function) -> Function:
    """``--key``, any number of times."""
    return click.option(
        "--key", "keys", type=PublicKey(), multiple=True, help="Public key of the control plane; several are possible."
    )(function)


@click.command(
    "export",
    cls=MeritCommand,
    example="""
    merit journal export --task ID
    merit journal export --task ID -o - | gzip > trail.json.gz
    """,
    codes=(output.FAILED,),
)
@state_option
@store_option
@click.option("--task", "task_id", metavar="ID", required=True, help="The task.")
@click.option("-o", "--output", "file", metavar="FILE", help="By default trail-ID.json; - is stdout.")
@json_option
def export(state: Path, store: str, task_id: str, file: str | None, as_json: bool) -> None:
    """Write what proves what became of a task into one file, which `merit journal check` verifies without anything else.

    It has the task's events and contents, and of all others nothing but hashes. What is not signed yet is signed for it,
    with the key of this state directory. It may be run beside a control plane.
    """
    if not is_task_id(task_id):
        raise CliError("usage", f"--task: {task_id[:80]!r} is no id of a task", output.USAGE)
    with explained():
        # On a machine of its own a key made now would be nobody's.
        document = _exported(open_stores(state, store), task_id, make_key=not store)
        found = check_trail(document)
    if file == "-":
        sys.stdout.buffer.write(document + b"\n")
        sys.stdout.buffer.flush()
        return
    path = Path(file or f"trail-{task_id}.json")
    try:
        write_durably(path, document + b"\n", path.parent)
    except OSError as error:
        raise CliError(
            "not_written", f"{path}: {error.strerror}; check permissions and space", output.FAILED
        ) from error
    if as_json:
        write_json({"file": str(path), "bytes": len(document) + 1, **_view(found)})
    else:
        write_lines([str(path)])
        note(f"merit: signed with {', '.join(one.hex() for one in found.keys)}")


def _exported(stores: Stores, task_id: str, make_key: bool) -> bytes:
    with ExitStack() as opened:
        journal = opened.enter_context(closing(stores.reader()))
        archive = opened.enter_context(closing(stores.archive()))
        read_model: ReadModelReader | None = None
        with contextlib.suppress(ReadModelUnavailable):  # without it the search takes longer, no more
            read_model = opened.enter_context(closing(stores.read_model_reader()))
        signer = KeyFile(stores.directory.key, make=make_key)
        try:
            trail = export_trail(task_id, journal, archive, signer, read_model)
        except ReadModelUnavailable:
            trail = export_trail(task_id, journal, archive, signer, None)
    return msgspec.json.format(encode_trail(trail), indent=1)


@click.command(
    "check",
    cls=MeritCommand,
    example="""
    merit journal check trail-ID.json
    merit journal check trail-ID.json --key 3f…a9
    """,
    codes=(output.FAILED,),
)
@click.argument("file", type=click.File("rb"))
@keys_option
@json_option
def check(file: Any, keys: tuple[bytes, ...], as_json: bool) -> None:
    """Verify the trail in FILE with nothing else: every hash and signature, and that the events are a legal life.

    Without --key it says with which key it is signed: compare that with what the control plane's operator has told you.
    """
    document = file.read(TRAIL_BYTES_MAX + 1)
    try:
        if len(document) > TRAIL_BYTES_MAX:
            raise TrailInvalid(f"it is larger than {TRAIL_BYTES_MAX:,} bytes")
        found = check_trail(document, keys)
    except TrailInvalid as error:
        raise CliError("trail_invalid", f"{file.name}: {error}", output.FAILED) from error
    if as_json:
        write_json({"ok": True, **_view(found), "key_known": bool(keys), "story": found.story})
        return
    first, last = _moment(found.first_ns), _moment(found.last_ns)
    task = found.task
    write_lines(
        [
            f"task {task.id} of tenant {task.tenant}, cell {found.cell}: {task.state.name}",
            f"{first} to {last}, {len(found.events):,} event{'s' if len(found.events) > 1 else ''}",
            *(f"signed with {one.hex()}" for one in found.keys),
            *(
                []
                if keys
                else ["whose key that is, was not asked: compare it, or give the one that it must be with --key"]
            ),
            "",
            *found.story,
        ]
    )


@click.command("key", cls=MeritCommand, example="merit journal key --state .merit")
@state_option
@json_option
def key(state: Path, as_json: bool) -> None:
    """Show the public key of the control plane: what those need who check trails."""
    directory = open_stores(state).directory
    with explained():
        found = KeyFile(directory.key, make=directory.journal.is_dir()).public_key.hex()
    if as_json:
        write_json({"key": found})
    else:
        write_lines([found])


def _view(found: CheckedTrail) -> dict[str, Any]:
    return {
        "task": found.task.id,
        "tenant": found.task.tenant,
        "cell": found.cell,
        "state": found.task.state.name.lower(),
        "events": len(found.events),
        "first": _moment(found.first_ns),
        "last": _moment(found.last_ns),
        "keys": [one.hex() for one in found.keys],
    }


def _moment(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
