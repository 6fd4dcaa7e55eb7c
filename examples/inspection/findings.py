"""What the results of all tasks say about the tree: the part of the report that is the same on every run.

Nothing here knows times, workers or the order in which results came in, so that a run in which half of the fleet was
killed ends in the same bytes as one in which nothing happened.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from .duplicates import Duplicates, find_duplicates, identical_files
from .metrics import COMPLEXITY_BANDS
from .suspicious import RULES
from .text_form import TextForms, text_forms
from .tree import SourceTree, is_test, paths_in, portions_of

METRICS = "syntax_metrics"
DOCUMENTATION = "documentation_coverage"
SUSPICIOUS = "suspicious_constructs"
SECRETS = "secrets"
FINGERPRINTS = "duplicate_fingerprints"
CHECKSUM = "checksum"
CAPABILITIES = (METRICS, DOCUMENTATION, SUSPICIOUS, SECRETS, FINGERPRINTS, CHECKSUM)
"""Each is asked about every file."""
CPU_BOUND = (METRICS, DOCUMENTATION, SUSPICIOUS)
TEXT_FORM = "text_form"
"""Is asked about all files of a directory at once, portion by portion."""

FUNCTIONS_MAX = 100
PLACES_PER_RULE_MAX = 50
SECRETS_MAX = 500
IMPORTED_MAX = 50


@dataclass(frozen=True, slots=True)
class Inspection:
    """How one task ended: the file (or the label of a portion of files) and the capability, and either its result or its error.

    `worker` did the last of `attempts` attempts in `duration_s` seconds of wall time and `cpu_s` of processor time (None
    if that is not known), and was done `finished_s` seconds after the run began.
    """

    path: str
    capability: str
    result: Mapping[str, Any] | None
    error: str | None = None
    worker: str = ""
    attempts: int = 1
    finished_s: float = 0.0
    duration_s: float = 0.0
    cpu_s: float | None = None


class ModuleFindings(TypedDict):
    """The figures of one file. `documented` of `public` names have a docstring; `annotated` of `annotatable` parameters
    and returns have a type. `reason` says why it was not parsed."""

    path: str
    test: bool
    parsed: bool
    reason: str
    size_bytes: int
    checksum: int | None
    lines: int
    code_lines: int
    comment_lines: int
    blank_lines: int
    functions: int
    classes: int
    nesting_max: int
    complexity_total: int
    complexity_max: int
    maintainability: float
    public: int
    documented: int
    annotatable: int
    annotated: int
    suspicious: int
    secrets: int


class Findings(TypedDict):
    """Everything that was found out, in an order that depends on the tree alone."""

    python: str
    totals: dict[str, int]
    modules: list[ModuleFindings]
    functions: list[dict[str, Any]]
    complexity_bands: list[dict[str, int]]
    documentation: dict[str, dict[str, int]]
    suspicious: list[dict[str, Any]]
    secrets: list[dict[str, Any]]
    duplicates: Duplicates
    identical: list[list[str]]
    text_forms: TextForms
    imported: list[dict[str, Any]]
    skipped: list[dict[str, str]]


def places(tree: SourceTree) -> list[tuple[str, str]]:
    """Path (or label of a portion) and capability of each task of an inspection, in the order in which they are submitted:
    file by file, so that who parses a file for one capability has it at hand for the next; a portion with its first file."""
    portions = {paths_in(portion)[0]: portion.label for portion in portions_of(tree)}
    found: list[tuple[str, str]] = []
    for file in tree.files:
        if file.path in portions:
            found.append((portions[file.path], TEXT_FORM))
        found += ((file.path, name) for name in CAPABILITIES)
    return found


def collect(inspections: Iterable[Inspection]) -> dict[str, dict[str, Inspection]]:
    """The outcomes by capability and path. Raises ValueError if one is there twice: each task has one final state."""
    collected: dict[str, dict[str, Inspection]] = {name: {} for name in (*CAPABILITIES, TEXT_FORM)}
    for one in inspections:
        if one.capability not in collected:
            raise ValueError(f"capability: {one.capability!r} is none of this inspection ({', '.join(collected)})")
        if collected[one.capability].setdefault(one.path, one) is not one:
            raise ValueError(f"{one.path}: two outcomes of {one.capability}")
    return collected


def find(tree: SourceTree, collected: Mapping[str, Mapping[str, Inspection]]) -> Findings:
    """The findings of a tree from its outcomes, as `collect` gives them.

    A file that has no outcome, or whose task failed, keeps its row with zeros and the reason 'not inspected'. Raises
    ValueError for an outcome of a file or portion that is not in the tree.
    """
    known = set(places(tree))
    strange = sorted(path for name, outcomes in collected.items() for path in outcomes if (path, name) not in known)
    if strange:
        raise ValueError(f"{strange[0]}: an outcome of a file that is not in the tree ({len(strange)} such)")
    results = {
        name: {path: one.result for path, one in sorted(outcomes.items()) if one.result is not None}
        for name, outcomes in collected.items()
    }
    checksums = {path: parsed for path, result in results[CHECKSUM].items() if (parsed := _checksum(result))}
    modules = [_module(file.path, file.size_bytes, results, checksums) for file in tree.files]
    duplicates = find_duplicates(
        {path: result["fingerprints"] for path, result in results[FINGERPRINTS].items() if result["parsed"]}
    )
    suspicious = _suspicious(results[SUSPICIOUS])
    secrets = [{"path": path, **match} for path, result in results[SECRETS].items() for match in result["secrets"]]
    identical = identical_files(checksums)
    return Findings(
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        totals=_totals(modules, duplicates, identical),
        modules=modules,
        functions=_functions(results[METRICS]),
        complexity_bands=_complexity_bands(results[METRICS]),
        documentation=_documentation(results[DOCUMENTATION]),
        suspicious=suspicious,
        secrets=secrets[:SECRETS_MAX],
        duplicates=duplicates,
        identical=identical,
        text_forms=_text_forms(tree, results[TEXT_FORM]),
        imported=_imported(results[METRICS]),
        skipped=[asdict(one) for one in tree.skipped],
    )


def _module(
    path: str,
    size_bytes: int,
    results: Mapping[str, Mapping[str, Mapping[str, Any]]],
    checksums: Mapping[str, tuple[int, int]],
) -> ModuleFindings:
    metrics = results[METRICS].get(path, {"parsed": False, "reason": "not inspected"})
    documentation = results[DOCUMENTATION].get(path, {})
    checksum, size_measured = checksums.get(path, (None, size_bytes))
    kinds = ("modules", "classes", "functions")
    return ModuleFindings(
        path=path,
        test=is_test(path),
        parsed=metrics["parsed"],
        reason=metrics["reason"],
        size_bytes=size_measured,
        checksum=checksum,
        lines=metrics.get("lines", 0),
        code_lines=metrics.get("code_lines", 0),
        comment_lines=metrics.get("comment_lines", 0),
        blank_lines=metrics.get("blank_lines", 0),
        functions=metrics.get("functions", 0),
        classes=metrics.get("classes", 0),
        nesting_max=metrics.get("nesting_max", 0),
        complexity_total=metrics.get("complexity_total", 0),
        complexity_max=metrics.get("complexity_max", 0),
        maintainability=metrics.get("maintainability", 0.0),
        public=sum(documentation.get(kind, 0) for kind in kinds),
        documented=sum(documentation.get(f"{kind}_documented", 0) for kind in kinds),
        annotatable=documentation.get("parameters", 0) + documentation.get("returns", 0),
        annotated=documentation.get("parameters_annotated", 0) + documentation.get("returns_annotated", 0),
        suspicious=sum(results[SUSPICIOUS].get(path, {}).get("counts", {}).values()),
        secrets=results[SECRETS].get(path, {}).get("total", 0),
    )


def _totals(modules: list[ModuleFindings], duplicates: Duplicates, identical: list[list[str]]) -> dict[str, int]:
    summed = (
        "size_bytes",
        "lines",
        "code_lines",
        "comment_lines",
        "blank_lines",
        "functions",
        "classes",
        "public",
        "documented",
        "annotatable",
        "annotated",
        "suspicious",
        "secrets",
    )
    rows: list[Mapping[str, Any]] = [dict(module) for module in modules]
    return {
        "files": len(rows),
        "files_parsed": sum(row["parsed"] for row in rows),
        "files_unparsed": sum(not row["parsed"] for row in rows),
        "files_test": sum(row["test"] for row in rows),
        **{name: sum(row[name] for row in rows) for name in summed},
        "duplicate_groups": duplicates["groups_total"],
        "duplicate_lines": duplicates["lines_saved"],
        "identical_groups": len(identical),
    }


def _functions(metrics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The most complex functions of the tree, most first."""
    functions = [
        {"path": path, "test": is_test(path), **function}
        for path, result in metrics.items()
        for function in result["most_complex"]
    ]
    functions.sort(key=lambda one: (-one["complexity"], one["path"], one["line"], one["name"]))
    return functions[:FUNCTIONS_MAX]


def _complexity_bands(metrics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, int]]:
    counts = [0] * len(COMPLEXITY_BANDS)
    for result in metrics.values():
        for index, count in enumerate(result["complexity_bands"]):
            counts[index] += count
    return [{"least": least, "functions": count} for least, count in zip(COMPLEXITY_BANDS, counts, strict=True)]


def _documentation(coverage: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Of what there is in tests and outside of them: how many modules, classes and so on, and how many documented."""
    parts = {"modules": "documented", "classes": "documented", "functions": "documented", "parameters": "annotated"}
    parts["returns"] = "annotated"
    totals: dict[str, dict[str, int]] = {}
    for group in ("code", "tests"):
        rows = [result for path, result in coverage.items() if is_test(path) == (group == "tests")]
        totals[group] = {part: sum(row[part] for row in rows) for part in parts}
        totals[group] |= {f"{part}_{done}": sum(row[f"{part}_{done}"] for row in rows) for part, done in parts.items()}
    return totals


def _suspicious(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each rule that was broken, the gravest first; its places outside of tests come first."""
    counts: Counter[str] = Counter()
    counts_in_tests: Counter[str] = Counter()
    files: Counter[str] = Counter()
    places: dict[str, list[dict[str, Any]]] = {}
    for path, result in sorted(results.items(), key=lambda item: (is_test(item[0]), item[0])):
        counts.update(result["counts"])
        files.update(result["counts"].keys())
        if is_test(path):
            counts_in_tests.update(result["counts"])
        for one in result["constructs"]:
            places.setdefault(one["rule"], []).append({"path": path, "line": one["line"], "test": is_test(path)})
    gravity = {"high": 0, "medium": 1, "low": 2}
    return [
        {
            "rule": name,
            "severity": RULES[name].severity,
            "explanation": RULES[name].explanation,
            "count": count,
            "count_in_tests": counts_in_tests[name],
            "files": files[name],
            "places": places.get(name, [])[:PLACES_PER_RULE_MAX],
        }
        for name, count in sorted(
            counts.items(), key=lambda item: (gravity[RULES[item[0]].severity], -item[1], item[0])
        )
    ]


def _imported(metrics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The packages that most files outside of tests import."""
    counts: Counter[str] = Counter()
    for path, result in metrics.items():
        if not is_test(path):
            counts.update({name.partition(".")[0] for name in result["imports"] if not name.startswith(".")})
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"module": name, "files": count} for name, count in ranked[:IMPORTED_MAX]]


def _text_forms(tree: SourceTree, results: Mapping[str, Mapping[str, Any]]) -> TextForms:
    """The forms of all files, whose names the results have without the directories."""
    return text_forms(
        (path, form)
        for portion in portions_of(tree)
        if portion.label in results
        for path, form in zip(paths_in(portion), results[portion.label]["files"], strict=True)
    )


def _checksum(result: Mapping[str, Any]) -> tuple[int, int] | None:
    """Checksum and size in bytes from what `cksum` printed (POSIX: both in decimal, then the name); None if it is not that."""
    match str(result.get("stdout", "")).split(maxsplit=2):
        case [checksum, size_bytes, *_] if checksum.isdecimal() and size_bytes.isdecimal():
            return int(checksum), int(size_bytes)
    return None
