"""`merit journal replay`: folds the journal, and says what comes of it."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from merit.app.comparing import compare_snapshots
from merit.app.past import Instant, fold_until, instant_after, instant_at, local_time
from merit.app.stores import open_stores
from merit.cli import output
from merit.cli.at import FoldNews
from merit.cli.command import MeritCommand, json_option, state_option, store_option
from merit.cli.journal_errors import explained
from merit.cli.output import CliError, note, write_json, write_lines
from merit.cli.past_time import PastTime
from merit.core.codec import state_digest
from merit.core.state import State
from merit.model.tasks import TaskState
from merit.ports.journal import JournalReader
from merit.ports.snapshots import SnapshotStore
from merit.sdk.options import time_ns_of
from merit.storage.memory_snapshots import MemorySnapshots


@click.command(
    "replay",
    cls=MeritCommand,
    example="""
    merit journal replay --state .merit
    merit journal replay --to 14:03
    merit journal replay --to '#123456' --from-beginning --json
    merit journal replay --compare
    """,
    codes=(output.FAILED,),
)
@state_option
@store_option
@click.option(
    "--to", "when", type=PastTime(), help="Until then: a moment as of merit at, or '#SEQUENCE'.  [default: the end]"
)
@click.option("--from-beginning", is_flag=True, help="Use no snapshot.")
@click.option(
    "--compare", is_flag=True, help="Prove that every snapshot is what the journal gives; exit code 1 if one is not."
)
@json_option
def replay(
    state: Path, store: str, when: datetime | int | None, from_beginning: bool, compare: bool, as_json: bool
) -> None:
    """Fold the journal, from the latest snapshot, and show the state in a few numbers.

    Equal digests mean equal states. It reads only, and may be run beside a control plane.
    """
    with explained():
        stores = open_stores(state, store)
        with closing(stores.reader()) as reader:
            kept = stores.snapshots()
            instant = _instant(reader, kept, when)
            if from_beginning and reader.base().next > 1:
                raise CliError(
                    "compacted",
                    f"--from-beginning: the journal begins with event {reader.base().next:,}, since older ones have been "
                    "compacted away; leave it out to begin with a snapshot",
                    output.USAGE,
                )
            found = _replayed(reader, MemorySnapshots() if from_beginning else kept, instant)
            compared = _compared(reader, kept, instant.sequence) if compare else None
    failed = [one for one in compared or () if one["problem"]]
    if as_json:
        write_json({**found, **({} if compared is None else {"ok": not failed, "compared": compared})})
    else:
        _show(found, compared)
    if failed:
        note(
            f"merit: {len(failed)} of {len(compared or ())} comparisons failed: remove these snapshots, and look at the disk"
        )
        raise click.exceptions.Exit(output.FAILED)


def _instant(reader: JournalReader, snapshots: SnapshotStore, when: datetime | int | None) -> Instant:
    if isinstance(when, datetime):
        return instant_at(reader, snapshots, time_ns_of("--to", when))
    return instant_after(reader, snapshots, reader.tail().next - 1 if when is None else when)


def _replayed(reader: JournalReader, snapshots: SnapshotStore, instant: Instant) -> dict[str, Any]:
    news, began_s = FoldNews(instant.sequence), time.perf_counter()
    state = fold_until(reader, snapshots, instant.sequence, news)
    news.end()
    return {
        "sequence": instant.sequence,
        "time": local_time(instant.time_ns),
        "snapshot": news.first or None,
        "replayed_s": round(time.perf_counter() - began_s, 3),
        **_numbers(state),
        "digest": state_digest(state),
    }


def _numbers(state: State) -> dict[str, Any]:
    """Of the tasks that a cell with this state would have at hand, and of those that it would have forgotten."""
    counts = Counter(task.state for task in state.tasks.values())
    tasks = {one.name.lower(): counts[one] for one in TaskState if not one.final}
    totals = {"completed": state.completed, "dead": state.dead, "canceled": state.canceled}
    return {"epoch": state.epoch, **tasks, **totals, "forgotten": state.forgotten, "workers": len(state.workers)}


def _compared(reader: JournalReader, snapshots: SnapshotStore, until: int) -> list[dict[str, Any]]:
    news = FoldNews(until)
    found = [
        {"sequence": one.sequence, "what": one.what, "digest": one.digest, "problem": one.problem}
        for one in compare_snapshots(reader, snapshots, until, news)
    ]
    news.end()
    return found


def _show(found: dict[str, Any], compared: list[dict[str, Any]] | None) -> None:
    width = max(map(len, found))
    write_lines(
        f"{name.replace('_', ' '):{width}}  {f'{value:,}' if isinstance(value, int) else value if value is not None else '-'}"
        for name, value in found.items()
    )
    if compared is not None:
        write_lines(["", *(f"{one['problem'] or 'the same'}: {one['what']}" for one in compared)])
        if not compared:
            write_lines(["there is no snapshot up to there to be compared"])
