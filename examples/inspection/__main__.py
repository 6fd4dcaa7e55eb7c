"""Inspect a source tree with a fleet of worker processes.

    python -m examples.inspection --tree PATH --out out/inspection

Without --tree it is the standard library of the Python that runs this. Exit codes: 0 the report is written, 1 a task has no
result, 2 wrong usage, 3 the fleet could not work, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import sysconfig
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from merit import MeritError
from merit.pools.local_pool import PoolGaveUp

from .display import BarDisplay, LineDisplay
from .driver import InspectionJob
from .findings import places
from .report import InspectionRun, build_report, summary, write_report
from .tree import TreeNotListed, list_tree

STATES = Path(".merit/inspection")
WORKERS_MAX = 64


def main() -> int:
    """Do what the command line says; the exit code."""
    options = _options()
    console = Console()
    try:
        tree = list_tree(options.tree)
    except TreeNotListed as error:
        return _complain(str(error), 2)
    if not tree.files:
        return _complain(f"--tree: there is no Python file below {tree.root}", 2)
    began_s, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    try:
        state = _state(options.state)
    except OSError as error:
        return _complain(f"--state: {error.filename}: {error.strerror}", 2)
    total = len(places(tree))
    display = BarDisplay(console, total) if console.is_terminal else LineDisplay(total)
    job = InspectionJob(tree, state, options.workers, display, kill_drill=options.kill_drill)
    console.print(
        f"{len(tree.files):,} files below {tree.root}, {total:,} tasks, {options.workers} workers and a foreign one",
        highlight=False,
        markup=False,
    )
    try:
        with display:
            inspections = asyncio.run(job.run())
        wall_s = time.monotonic() - began_s
        run = InspectionRun(started, wall_s, tuple(job.incidents), tuple(job.members))
        report = build_report(tree, inspections, run)
        json_path, html_path = write_report(report, options.out)
    except KeyboardInterrupt:
        return _complain("interrupted; nothing was written", 130)
    except (PoolGaveUp, MeritError) as error:
        return _complain(f"{error}. The logs of all processes are in {state / 'logs'}", 3)
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}", 3)
    console.print(summary(report))
    console.print(
        f"\nThe report: {html_path} (for programs: {json_path})", highlight=False, markup=False, soft_wrap=True
    )
    if options.state is None:
        shutil.rmtree(state, ignore_errors=True)  # everything worth keeping is in the report
    return 1 if report["run"]["failed"] or report["run"]["missing_total"] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.inspection", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--tree", default=sysconfig.get_path("stdlib"), help="directory to inspect (default: the standard library)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/inspection"), help="where the report goes (%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=3, help="worker processes, every third of them a slow one (%(default)s)"
    )
    parser.add_argument("--state", type=Path, help=f"directory of the control plane (a fresh one in {STATES})")
    parser.add_argument(
        "--kill-drill",
        action="store_true",
        help="kill -9 a worker, the control plane and the foreign worker, twice, while it runs",
    )
    options = parser.parse_args()
    if not 1 <= options.workers <= WORKERS_MAX:
        parser.error(f"--workers: 1 to {WORKERS_MAX}, not {options.workers}")
    return options


def _state(wanted: Path | None) -> Path:
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        return wanted
    STATES.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="run-", dir=STATES))


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"inspection: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
