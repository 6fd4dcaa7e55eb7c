"""One document of everything that came back: for programs (JSON), for people (HTML) and for the terminal."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from . import charts
from .findings import Findings, Inspection, ModuleFindings, collect, find, places
from .tree import SourceTree
from .workload import FOREIGN, FleetMember, by_worker, figures

ROWS_MAX = 40
FAILURES_MAX = 500
SUMMARY_ROWS = 8
DOCUMENTABLE_MIN = 5


@dataclass(frozen=True, slots=True)
class InspectionRun:
    """The circumstances of a run: when it began (ISO 8601), how long it took, what befell it at which second, and the
    workers of its fleet."""

    started: str
    wall_s: float
    incidents: tuple[tuple[float, str], ...] = ()
    members: tuple[FleetMember, ...] = ()


class InspectionReport(TypedDict):
    """`findings` depends on the tree alone and is the same on every run; `run` is about this one."""

    findings: Findings
    run: dict[str, Any]


def build_report(tree: SourceTree, inspections: Iterable[Inspection], run: InspectionRun) -> InspectionReport:
    """The report of a run. Tasks without an outcome are named in `run["missing"]`.

    Raises ValueError for two outcomes of one task, or for one of a file or a capability that is none of this inspection.
    """
    collected = collect(inspections)
    findings = find(tree, collected)
    outcomes = [one for by_path in collected.values() for one in by_path.values()]
    failed = sorted((one for one in outcomes if one.result is None), key=lambda one: (one.path, one.capability))
    missing = [{"path": path, "capability": name} for path, name in places(tree) if path not in collected[name]]
    return InspectionReport(
        findings=findings,
        run={
            "root": tree.root,
            "started": run.started,
            "wall_s": round(run.wall_s, 3),
            "tasks": len(outcomes),
            "tasks_per_s": round(len(outcomes) / run.wall_s, 1) if run.wall_s > 0 else 0.0,
            "succeeded": len(outcomes) - len(failed),
            "failed": len(failed),
            "attempts": sum(one.attempts for one in outcomes),
            "tried_again": sum(one.attempts > 1 for one in outcomes),
            "capabilities": _by_capability(outcomes),
            "workers": by_worker(outcomes, run.members),
            "incidents": [{"at_s": round(at_s, 3), "what": what} for at_s, what in sorted(run.incidents)],
            "throughput": _throughput([one.finished_s for one in outcomes], run.wall_s),
            "missing": missing[:FAILURES_MAX],
            "missing_total": len(missing),
            "failures": [
                {"path": one.path, "capability": one.capability, "error": one.error or "", "attempts": one.attempts}
                for one in failed[:FAILURES_MAX]
            ],
        },
    )


def write_report(report: InspectionReport, directory: str | Path) -> tuple[Path, Path]:
    """Write `report.json` and `report.html` into `directory`, which is made if needed; returns their paths.

    Each is replaced as a whole, so that a reader never sees half of one. Raises OSError if that is not possible.
    """
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    json_path, html_path = place / "report.json", place / "report.html"
    _replace(json_path, json.dumps(report, indent=1, sort_keys=True, allow_nan=False) + "\n")
    _replace(html_path, render_html(report))
    return json_path, html_path


def render_html(report: InspectionReport) -> str:
    """The report as one HTML page that needs nothing from outside and runs no script but its own.

    What is shown comes from files that may be hostile: everything is escaped, and the page's content security policy
    allows the one style and the one script by their hashes.
    """
    here = Path(__file__).parent
    style, script = (here / "report.css").read_text("utf-8"), (here / "report.js").read_text("utf-8")
    environment = Environment(
        loader=FileSystemLoader(here),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters["thousands"] = lambda value: f"{value:,}"
    findings, run = report["findings"], report["run"]
    modules = findings["modules"]
    return environment.get_template(
        "report.html.j2"
    ).render(
        findings=findings,
        run=run,
        totals=findings["totals"],
        rows_max=ROWS_MAX,
        style=Markup(style),  # noqa: S704  # our own file
        script=Markup(script),  # noqa: S704  # our own file
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
        largest=largest(modules)[:ROWS_MAX],
        documented_worst=documented_worst(modules)[:ROWS_MAX],
        unparsed=[module for module in modules if not module["parsed"]],
        secrets_shown=findings["secrets"][: 5 * ROWS_MAX],
        histogram=_complexity_chart(findings),
        scatter=_size_chart(modules),
        speeds=_speed_chart(run["workers"]),
        timeline=charts.timeline(
            run["throughput"]["tasks"],
            run["throughput"]["bucket_s"],
            [(one["at_s"], one["what"]) for one in run["incidents"]],
        ),
        chart=charts,
        percent=percent,
        public_names=public_names(findings),
    )


def largest(modules: Sequence[ModuleFindings]) -> list[ModuleFindings]:
    """The modules by lines of code, most first; tests only if there is nothing else."""
    candidates = [one for one in modules if not one["test"]] or modules
    return sorted(candidates, key=lambda one: (-one["code_lines"], one["path"]))


def documented_worst(modules: Sequence[ModuleFindings]) -> list[ModuleFindings]:
    """The modules with most public names undocumented, most first; without tests and those of few public names."""
    candidates = [one for one in modules if not one["test"] and one["public"] >= DOCUMENTABLE_MIN]
    candidates = [one for one in candidates if one["documented"] < one["public"]]
    return sorted(candidates, key=lambda one: (one["documented"] - one["public"], one["path"]))


def summary(report: InspectionReport) -> RenderableType:
    """The report in short, for `rich` to print on a terminal."""
    findings, run = report["findings"], report["run"]
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    for label, value in _headline(findings, run):
        facts.add_row(label, Text(value))
    modules = findings["modules"]
    parts: list[RenderableType] = [
        Text(f"Inspection of {printable(run['root'])}", style="bold"),
        facts,
        _table(
            "Largest modules",
            ("module", "code lines", "functions", "complexity", "maintainability"),
            [
                (one["path"], one["code_lines"], one["functions"], one["complexity_total"], one["maintainability"])
                for one in largest(modules)[:SUMMARY_ROWS]
            ],
        ),
        _table(
            "Most complex functions",
            ("function", "complexity", "nesting", "line"),
            [
                (f"{one['path']}: {one['name']}", one["complexity"], one["nesting"], one["line"])
                for one in findings["functions"][:SUMMARY_ROWS]
            ],
        ),
        _table(
            "Suspicious constructs",
            ("rule", "places", "in tests", "files", "severity"),
            [
                (one["rule"], one["count"], one["count_in_tests"], one["files"], one["severity"])
                for one in findings["suspicious"][:SUMMARY_ROWS]
            ],
        ),
        _table(
            "Could not be parsed",
            ("module", "reason"),
            [(one["path"], one["reason"]) for one in modules if not one["parsed"]][:SUMMARY_ROWS],
        ),
        _table(
            f"Workers{'' if len(run['workers']) <= SUMMARY_ROWS else f' (the first {SUMMARY_ROWS})'}",
            ("worker", "speed", "tasks", "share", "mean time of a task, ms"),
            [
                (one["worker"], one["speed"], one["tasks"], percent(one["tasks"], run["tasks"]), _means(one["times"]))
                for one in run["workers"][:SUMMARY_ROWS]
            ],
        ),
    ]
    if run["failures"]:
        parts.append(
            _table(
                "Tasks that failed",
                ("module", "capability", "error"),
                [(one["path"], one["capability"], one["error"]) for one in run["failures"][:SUMMARY_ROWS]],
            )
        )
    return Group(*parts)


def public_names(findings: Findings) -> tuple[int, int]:
    """How many public names there are outside of tests, and how many of them are documented."""
    row = findings["documentation"]["code"]
    kinds = ("modules", "classes", "functions")
    return sum(row[kind] for kind in kinds), sum(row[f"{kind}_documented"] for kind in kinds)


def percent(part: int, whole: int) -> str:
    """A share for display; a dash if there is nothing to have a share of."""
    return f"{100 * part / whole:.0f} %" if whole else "–"


def printable(text: str) -> str:
    """`text` with control characters, and those that turn the direction of writing, shown by their codes.

    Names of files and functions come from the tree: they must not steer a terminal, or look like what they are not.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode("ascii") for one in text
    )


def _headline(findings: Findings, run: Mapping[str, Any]) -> list[tuple[str, str]]:
    totals = findings["totals"]
    public, documented = public_names(findings)
    rows = [
        ("files", f"{totals['files']:,} ({totals['files_unparsed']} could not be parsed)"),
        ("lines", f"{totals['lines']:,} ({totals['code_lines']:,} of code, {totals['comment_lines']:,} of comments)"),
        ("functions, classes", f"{totals['functions']:,}, {totals['classes']:,}"),
        ("documented", f"{percent(documented, public)} of {public:,} public names outside of tests"),
        ("suspicious, secrets", f"{totals['suspicious']:,}, {totals['secrets']:,}"),
        ("duplicates", f"{totals['duplicate_groups']:,} blocks, {totals['duplicate_lines']:,} lines to be saved"),
        ("text form", _text_form_in_short(findings)),
        ("tasks", f"{run['tasks']:,} in {run['wall_s']:.1f} s, {run['tasks_per_s']:,.0f} per second"),
        ("failed, tried again", f"{run['failed']:,}, {run['tried_again']:,}"),
    ]
    if run["missing_total"]:
        rows.append(("missing", f"{run['missing_total']:,} tasks have no outcome"))
    return rows


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold", header_style="dim")
    for index, column in enumerate(columns):
        numeric = bool(rows) and isinstance(rows[0][index], int | float)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:  # as Text: square brackets in a name are not markup
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int | float) else printable(str(cell))) for cell in row))
    if not rows:
        table.add_row(*(["none", *[""] * (len(columns) - 1)]))
    return table


def _text_form_in_short(findings: Findings) -> str:
    forms = findings["text_forms"]
    endings = forms["line_endings"]
    other = forms["files"] - endings["lf"] - endings["none"]
    encodings = f"{forms['encodings']['other']:,} files neither ASCII nor UTF-8"
    return f"{encodings}, {other:,} with other line ends than LF, {forms['with_tabs']:,} with tabs"


def _means(times: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{one['capability']} {one['mean_ms']:.3g}" for one in times)


def _by_capability(outcomes: Sequence[Inspection]) -> list[dict[str, Any]]:
    groups: defaultdict[str, list[Inspection]] = defaultdict(list)
    for one in outcomes:
        groups[one.capability].append(one)
    return [{"capability": name, **figures(done)} for name, done in sorted(groups.items())]


def _throughput(finished_s: Sequence[float], wall_s: float) -> dict[str, Any]:
    """How many tasks were finished in each of at most 60 equal parts of the run."""
    end_s = max(wall_s, max(finished_s, default=0.0), 0.001)
    buckets = max(1, min(60, math.ceil(end_s * 2)))
    counts = [0] * buckets
    for at_s in finished_s:
        counts[min(buckets - 1, max(0, int(at_s / end_s * buckets)))] += 1
    return {"bucket_s": round(end_s / buckets, 4), "tasks": counts}


def _complexity_chart(findings: Findings) -> charts.Chart:
    bands = findings["complexity_bands"]
    leasts = [band["least"] for band in bands]
    labels = []
    for least, following in zip(leasts, [*leasts[1:], None], strict=True):
        if following is None:
            labels.append(f"{least}+")
        else:
            labels.append(f"{least}" if following == least + 1 else f"{least}–{following - 1}")
    levels = [2 if least >= 21 else 1 if least >= 11 else 0 for least in leasts]
    return charts.histogram([band["functions"] for band in bands], labels, levels)


def _size_chart(modules: Sequence[ModuleFindings]) -> charts.Chart:
    return charts.scatter(
        [
            charts.DotValue(
                x=one["code_lines"],
                y=one["complexity_total"],
                title=f"{one['path']}: {one['code_lines']:,} lines of code, complexity {one['complexity_total']:,}",
                marked=one["test"],
                name=one["path"].rpartition("/")[2],
            )
            for one in modules
            if one["parsed"] and one["code_lines"]
        ]
    )


def _speed_chart(workers: Sequence[Mapping[str, Any]]) -> charts.Chart:
    """A dot for each worker and capability."""
    levels = {"fast": 0, FOREIGN: 2}
    return charts.strips(
        [
            charts.StripValue(
                strip=time["capability"],
                x=time["mean_ms"],
                title=f"{one['worker']} ({one['speed']}), {time['capability']}: {time['tasks']:,} tasks, "
                f"{time['mean_ms']:.3g} ms on the mean",
                level=levels.get(one["speed"], 1),
            )
            for one in workers
            for time in one["times"]
        ]
    )


def _csp_hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode("ascii")


def _replace(path: Path, content: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(content, encoding="utf-8", errors="backslashreplace")
    partial.replace(path)
