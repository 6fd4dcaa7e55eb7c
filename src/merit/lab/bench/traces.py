"""Workloads of the real world, as far as a queue sees them: when tasks come, and how much work each is.

Read are the public traces that go by these names, from a directory that whoever measures has; none comes with Merit.
"""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Final

from msgspec import Struct

PREFILL_S: Final = 0.0002
"""What a token that a language model reads is taken to cost …"""
DECODE_S: Final = 0.02
"""… and one that it writes; the traces of such requests tell tokens, not times."""

_SEED: Final = 4
_SPREAD: Final = 1.5
"""Sigma of the synthetic trace's lognormal work: a coefficient of variation of 2.9."""
_ROWS_MAX: Final = 200_000

SYNTHETIC: Final = "synthetic"


class BadTrace(Exception):
    """A directory or a file in it cannot be read as traces; says which, and why."""


class Trace(Struct, frozen=True):
    """Tasks in the order in which they come."""

    name: str
    work_s: tuple[float, ...]
    """How long each takes a worker of speed 1."""
    arrivals_s: tuple[float, ...] = ()
    """When each comes; empty: nobody wrote it down."""

    def first(self, tasks: int) -> Trace:
        """So many of its tasks, or all if there are fewer."""
        return Trace(self.name, self.work_s[:tasks], self.arrivals_s[:tasks])

    def scaled(self, load: float, capacity: float) -> tuple[list[int], list[int]]:
        """Arrivals and work in nanoseconds, as they are when so much comes as to keep workers busy this share of the time.

        The order and, where they are known, the proportions of the times between arrivals stay; where not, tasks come at
        random (a Poisson process, by a seed).

        Args:
            load: above 0.
            capacity: the sum of the workers' speeds.
        """
        span_s = sum(self.work_s) / (load * capacity)
        if self.arrivals_s:
            first, last = self.arrivals_s[0], self.arrivals_s[-1]
            stretch = span_s / (last - first) if last > first else 0.0
            arrivals_s = [(arrival_s - first) * stretch for arrival_s in self.arrivals_s]
        else:
            rng, now_s, gap_s = random.Random(_SEED), 0.0, span_s / len(self.work_s)
            arrivals_s = []
            for _ in self.work_s:
                now_s += rng.expovariate(1.0) * gap_s
                arrivals_s.append(now_s)
        return [round(arrival_s * 1e9) for arrival_s in arrivals_s], [round(work_s * 1e9) for work_s in self.work_s]


def synthetic(tasks: int) -> Trace:
    """Work with a heavy tail (lognormal, a second at the median), coming at random; the same each time."""
    rng = random.Random(_SEED)
    return Trace(SYNTHETIC, tuple(rng.lognormvariate(0.0, _SPREAD) for _ in range(tasks)))


def read_traces(directory: Path, tasks_max: int) -> list[Trace]:
    """The traces that are in a directory, each up to so many tasks.

    Raises:
        BadTrace: there is none, or one cannot be read.
    """
    traces = [_read(name, path, tasks_max) for name in _READERS if (path := _find(directory, name)) is not None]
    if not traces:
        raise BadTrace(f"{directory}: no file there is named like one of {', '.join(_READERS)}")
    return traces


def _find(directory: Path, name: str) -> Path | None:
    try:
        found = sorted(
            path
            for path in directory.iterdir()
            if path.name.startswith(name) and path.name.endswith((".csv", ".csv.gz"))
        )
    except OSError as error:
        raise BadTrace(f"{directory}: {error.strerror}") from error
    return found[0] if found else None


def _read(name: str, path: Path, tasks_max: int) -> Trace:
    open_text = gzip.open if path.suffix == ".gz" else open
    times: list[tuple[float, float]] = []
    try:
        with open_text(path, "rt", encoding="utf-8", newline="") as file:
            for line, row in enumerate(csv.DictReader(file), 2):
                arrival_s, work_s = _READERS[name](row)
                if not (isfinite(arrival_s) and isfinite(work_s)):
                    raise BadTrace(f"{path.name}: line {line}: a time is no number")
                if work_s > 0:  # what was given up before it began is no work
                    times.append((arrival_s, work_s))
                if len(times) == min(tasks_max, _ROWS_MAX):
                    break
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise BadTrace(f"{path.name}: {error}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise BadTrace(f"{path.name}: a row is not as the trace has it: {error!r}") from error
    if not times:
        raise BadTrace(f"{path.name}: there is no task in it")
    if any(arrival_s for arrival_s, _ in times):
        times.sort(key=lambda pair: pair[0])
        return Trace(name, tuple(work_s for _, work_s in times), tuple(arrival_s for arrival_s, _ in times))
    return Trace(name, tuple(work_s for _, work_s in times))


_Row = Mapping[str, str]


def _of_tokens(row: _Row) -> tuple[float, float]:
    return float(row["arrival_s"]), PREFILL_S * float(row["input_tokens"]) + DECODE_S * float(row["output_tokens"])


def _of_images(row: _Row) -> tuple[float, float]:
    return float(row["arrival_s"]), float(row["exec_time_seconds"])


def _of_jobs(row: _Row) -> tuple[float, float]:
    return 0.0, float(row["runtime"])


_READERS: Final[Mapping[str, Callable[[_Row], tuple[float, float]]]] = {
    "azure_llm2023_code": _of_tokens,
    "mooncake_conversation": _of_tokens,
    "alibaba_genai_requests": _of_images,
    "philly_job_runtime": _of_jobs,
}
"""By how the name of the file begins: from a row, when its task came and how much work it is, in seconds."""
