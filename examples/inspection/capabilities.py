"""The inspection as Merit's own workers offer it: six capabilities, each a thin cover over a module of its own.

    merit worker examples.inspection.capabilities

Parsing holds the interpreter, so what parses runs in processes (`cpu=True`) and leaves the worker's own free for its
session; it needs a processor of those that the worker says it has. The seventh capability, `text_form`, is that of an agent
which was not made with Merit (`foreign_agent`). Each capability takes a file as `path` relative to `root` (or an absolute `path` alone) and refuses to leave it.
"""

import asyncio
from pathlib import Path
from typing import Any

from merit import capability, command_line

from . import credentials, documentation, duplicates, findings, metrics, priority, suspicious

priority.keep_behind()  # here, since the worker imports this, and so does each of its child processes


@capability(cpu=True, version="1.0.0", resources={"cpu": 1})
def syntax_metrics(path: str, root: str = "") -> metrics.SyntaxMetrics:
    """Lines, functions, classes, nesting, complexity, maintainability and imports of a Python file."""
    return metrics.measure(path, root)


@capability(cpu=True, version="1.0.0", resources={"cpu": 1})
def documentation_coverage(path: str, root: str = "") -> documentation.DocumentationCoverage:
    """Which public names of a Python file have docstrings and annotations."""
    return documentation.cover(path, root)


@capability(cpu=True, version="1.0.0", resources={"cpu": 1})
def suspicious_constructs(path: str, root: str = "") -> suspicious.SuspiciousConstructs:
    """Constructs of a Python file that are often mistakes or dangers, each with line, rule, severity and reason."""
    return suspicious.suspect(path, root)


@capability(version="1.0.0")
def secrets(path: str, root: str = "") -> credentials.SecretMatches:
    """Keys, tokens and passwords that were left in a file, redacted."""
    return credentials.look_for_secrets(path, root)


@capability(version="1.0.0")
async def duplicate_fingerprints(path: str, root: str = "") -> duplicates.DuplicateFingerprints:
    """What of a file has to be known to find blocks that it shares with others."""
    # In a thread: a large file takes tens of milliseconds, and the loop belongs to the worker's session as well.
    return await asyncio.to_thread(duplicates.fingerprint, path, root)


checksum = command_line(name=findings.CHECKSUM, argv=["cksum", "--", "{path}"], parameters={"path": str}, output="text")
"""Checksum and size of a file, by the tool that POSIX has for it."""


def parameters_of(name: str, root: str, path: str) -> dict[str, Any]:
    """What to submit to have the capability `name` look at the file `path` below `root`."""
    if name == findings.CHECKSUM:
        return {"path": str(Path(root, path))}
    return {"path": path, "root": root}
