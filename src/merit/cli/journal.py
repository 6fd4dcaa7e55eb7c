"""`merit journal`: is it whole, and what is in it. Both read only, beside a running control plane if there is one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import msgspec

from merit.app.stores import Stores, open_stores
from merit.cli import output
from merit.cli.command import MeritCommand, MeritGroup, json_option, state_option, store_option
from merit.cli.journal_errors import explained, journal_error
from merit.cli.journal_replay import replay
from merit.cli.journal_trail import check, export, key, keys_option
from merit.cli.output import note, write_json, write_lines
from merit.core.codec import UnreadableEvent, decode_event
from merit.core.story import plain
from merit.model.events import WorkerJoined
from merit.model.record import JournalError, Record
from merit.model.workers import Offer
from merit.ports.journal import JournalReader
from merit.ports.signer import SignerUnavailable
from merit.storage.key_file import KeyFile
from merit.storage.verify import Verification, verify_journal


@click.group(cls=MeritGroup, example="merit journal verify --state .merit")
def journal() -> None:
    """Verify the journal, show what is in it, hand out what proves what became of a task."""


for command in (replay, export, check, key):
    journal.add_command(command)


@journal.command(
    "verify",
    cls=MeritCommand,
    example="""
    merit journal verify --state .merit
    merit journal verify --key 3f…a9
    """,
    codes=(output.FAILED,),
)
@state_option
@store_option
@keys_option
@json_option
def verify(state: Path, store: str, keys: tuple[bytes, ...], as_json: bool) -> None:
    """Read the whole journal, and its archive, and prove that nothing was altered, torn, lost or reordered.

    Whoever alters it can compute all its hashes anew. So it is compared with its anchors, too, which are signed, each for
    many records: with the key of this state directory, or with one of those given with --key.
    """
    with explained():
        stores = open_stores(state, store)
        with closing(stores.reader()) as reader, closing(stores.archive()) as archive:
            found = verify_journal(reader, reader.cell, _progress(), archive, (*keys, *_own_key(stores)))
    if as_json:
        write_json(
            {
                "ok": found.ok,
                **msgspec.structs.asdict(found),
                "last_hash": found.last_hash.hex(),
                "problems": [msgspec.structs.asdict(problem) for problem in found.problems],
            }
        )
    else:
        write_lines(_verdict(found))
    if not found.ok:
        note(f"merit: the journal in {state} is damaged")
        raise click.exceptions.Exit(output.FAILED)


@journal.command(
    "show",
    cls=MeritCommand,
    example="""
    merit journal show --state .merit --first 1 --last 20
    merit journal show --task ID --payloads
    """,
    codes=(output.FAILED,),
)
@state_option
@store_option
@click.option("--task", metavar="ID", help="Only events of this task.")
@click.option("--worker", metavar="NAME", help="Only events of this worker.")
@click.option("--first", type=click.IntRange(1, 2**62), help="Sequence to begin with; by default the first there is.")
@click.option("--last", type=click.IntRange(1, 2**62), help="Sequence to end with.")
@click.option("--payloads", is_flag=True, help="Show parameters, results and trails instead of their digests.")
@json_option
def show(
    state: Path,
    store: str,
    task: str | None,
    worker: str | None,
    first: int | None,
    last: int | None,
    payloads: bool,
    as_json: bool,
) -> None:
    """Show events: sequence, time, name and fields. They are verified as they are read."""
    wanted = {name: value for name, value in (("task", task), ("worker", worker)) if value is not None}
    seen = found = 0

    def chosen(reader: JournalReader) -> Iterator[dict[str, Any]]:
        nonlocal seen, found
        for event in _events(reader, first, last, payloads):
            seen = event["sequence"]
            if all(event["fields"].get(name) == value for name, value in wanted.items()):
                found += 1
                yield event

    with explained(), closing(open_stores(state, store).reader()) as reader:
        if as_json:
            _write_array(chosen(reader))
        else:
            write_lines(_line(event) for event in chosen(reader))
    if wanted and not found:
        about = " and ".join(f"{name} {value}" for name, value in wanted.items())
        where = f"in sequences {first or 1:,} to {seen:,}" if seen else f"from sequence {first or 1:,} on"
        note(f"merit: nothing about {about} {where}")
        raise click.exceptions.Exit(output.FAILED)


def _own_key(stores: Stores) -> list[bytes]:
    """The public key of the state directory; a copy of the directory may have been made without it."""
    try:
        return [KeyFile(stores.directory.key, make=False).public_key]
    except SignerUnavailable:
        return []


def _events(
    reader: JournalReader, first: int | None, last: int | None, with_payloads: bool
) -> Iterator[dict[str, Any]]:
    for record in reader.read(first, last):
        payloads = {sha256(one).hexdigest(): one for one in record.payloads} if with_payloads else {}
        yield from _events_of(record, first, last, payloads)


def _events_of(
    record: Record, first: int | None, last: int | None, payloads: dict[str, bytes]
) -> Iterator[dict[str, Any]]:
    time = datetime.fromtimestamp(record.time_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    for sequence, data in enumerate(record.events, record.first):
        if sequence < (first or 1) or (last is not None and sequence > last):
            continue
        event = decode_event(data)
        fields = plain(msgspec.structs.asdict(event))
        if isinstance(event, WorkerJoined):
            fields["offers"] = [_offer_view(offer) for offer in event.offers]
        for name, value in fields.items():
            if isinstance(value, str) and value in payloads:
                fields[name] = msgspec.Raw(payloads[value])
        yield {
            "sequence": sequence,
            "time": time,
            "epoch": record.epoch,
            "event": type(event).__name__,
            "fields": fields,
        }


def _offer_view(offer: Offer) -> dict[str, Any]:
    """An offer with its schemas as what they are: JSON."""
    schemas = {"input_schema": offer.input_schema, "output_schema": offer.output_schema}
    return {**msgspec.structs.asdict(offer), **{name: msgspec.Raw(data or b"null") for name, data in schemas.items()}}


def _line(event: dict[str, Any]) -> str:
    fields = " ".join(
        f"{name}={_short(value)}" for name, value in event["fields"].items() if value not in ("", None, [], 0, False)
    )
    return f"{event['sequence']:>9}  {event['time']}  {event['event']:<18}  {fields}"


def _short(value: Any) -> str:
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, str):
        is_digest = len(value) == 64 and set(value) <= set("0123456789abcdef")
        return f"{value[:12]}…" if is_digest else value if value.isprintable() and " " not in value else repr(value)
    if isinstance(value, dict):  # of a failure or an offer what tells it from others; --json has the rest
        return repr(" ".join(str(value[name]) for name in ("kind", "name", "version", "message") if name in value))
    if isinstance(value, list):
        return ",".join(_short(item) for item in value)
    return str(value)


def _write_array(events: Iterator[dict[str, Any]]) -> None:
    """One document, written as it comes: a journal may be larger than memory."""
    between = ""
    sys.stdout.write('{"events":[')
    try:
        for event in events:
            sys.stdout.write(between + msgspec.json.encode(event).decode())
            between = ","
    except (JournalError, UnreadableEvent) as error:
        sys.stdout.write("]," + msgspec.json.encode(journal_error(error).view()).decode()[1:] + "\n")
        note(f"merit: {error}")
        raise click.exceptions.Exit(output.FAILED) from error
    sys.stdout.write("]}\n")
    sys.stdout.flush()


def _verdict(found: Verification) -> Iterator[str]:
    for problem in found.problems:
        yield f"sequence {problem.sequence}: {problem.reason}"
    if found.problem_count > len(found.problems):
        yield f"and {found.problem_count - len(found.problems):,} more"
    what = f"{found.records:,} records, {found.events:,} events ({found.first:,} to {found.last:,})"
    verdict = "whole" if found.ok else f"DAMAGED, {found.problem_count:,} problems"
    yield f"{found.cell}: {verdict}: {what}, {found.payloads:,} payloads, {found.epochs:,} epochs"
    yield f"last hash {found.last_hash.hex()}"
    if found.anchored:
        yield f"anchored up to {found.anchored:,} by {found.anchors:,} signature{'s' if found.anchors > 1 else ''} of {', '.join(found.keys)}"
    else:
        yield "not anchored: whoever could write the files could have altered all of it, and computed the hashes anew"


def _progress() -> Any:
    """Numbers on stderr that count up, if somebody sees them."""
    if not sys.stderr.isatty():
        return None

    def show(records: int, events: int) -> None:
        sys.stderr.write(f"\r{records:,} records, {events:,} events\x1b[K")
        sys.stderr.flush()

    return show
