import dataclasses
import io
import json
import random
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from examples.inspection import credentials, documentation, duplicates, metrics, suspicious
from examples.inspection.charts import DotValue, StripValue, histogram, nice_ceiling, scatter, strips, timeline
from examples.inspection.findings import (
    CAPABILITIES,
    CHECKSUM,
    DOCUMENTATION,
    FINGERPRINTS,
    METRICS,
    SECRETS,
    SUSPICIOUS,
    TEXT_FORM,
    Inspection,
    places,
)
from examples.inspection.foreign_agent import forms
from examples.inspection.report import InspectionRun, build_report, printable, render_html, summary, write_report
from examples.inspection.tree import list_tree, portions_of
from examples.inspection.workload import FleetMember, member_of

ANALYSES = {
    METRICS: metrics.measure,
    DOCUMENTATION: documentation.cover,
    SUSPICIOUS: suspicious.suspect,
    SECRETS: credentials.look_for_secrets,
    FINGERPRINTS: duplicates.fingerprint,
}
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    (root / "tests").mkdir()
    block = "".join(
        f"def function_{n}(one, two=[]):\n    return eval(one) + two if one else None\n\n" for n in range(30)
    )
    for path, text in {
        "one.py": '"""Says."""\nimport os\n' + block,
        "two.py": block,
        "same.py": block,
        "tests/test_one.py": "import os\nassert os\n",
        "old.py": "print 'x'\n",
        "leak.py": "key = 'AKIA" + "QYLPMN5HHHFPZAM2'\n",
        f"{HOSTILE.replace('/', '')}\x1b[2J\u202e.py": "x = 1\n",
        "empty.py": "",
    }.items():
        (root / path).write_text(text)
    (root / "bytes.py").write_bytes(b"\xff")
    (root / ".venv").mkdir()
    tree = list_tree(root)
    inspections = []
    for number, file in enumerate(tree.files):
        for name, analyse in ANALYSES.items():
            result = json.loads(json.dumps(analyse(file.path, tree.root)))  # as it comes back from a worker
            inspections.append(_inspection(file.path, name, result, number))
        checksum = (root / file.path).read_bytes()
        result = {"exit_code": 0, "stdout": f"{sum(checksum)} {len(checksum)} {file.path}\n", "stderr": ""}
        inspections.append(_inspection(file.path, CHECKSUM, result, number))
    for portion in portions_of(tree):
        result = {"files": forms(tree.root, portion.directory, portion.names)}
        inspections.append(_inspection(portion.label, TEXT_FORM, result, 0))
    return tree, inspections


def _inspection(path, name, result, number):
    return Inspection(
        path, name, result, worker=f"worker-{number % 2}", attempts=1 + number % 2, finished_s=number / 10, cpu_s=0.001
    )


def _dumped(findings):
    return json.dumps(findings, sort_keys=True)


def test_findings_depend_on_the_tree_alone(inspected):
    tree, inspections = inspected
    first = build_report(tree, inspections, InspectionRun("2026-01-01T00:00:00Z", 2.0))
    rng = random.Random(7)
    for _ in range(3):
        other = [
            Inspection(
                one.path, one.capability, one.result, None, f"w{rng.random()}", rng.randrange(1, 5), rng.random(), 1.0
            )
            for one in rng.sample(inspections, len(inspections))
        ]
        again = build_report(tree, other, InspectionRun("later", 9.0, ((1.0, "worker killed"),)))
        assert _dumped(again["findings"]) == _dumped(first["findings"])
        assert again["run"] != first["run"]


def test_the_findings_are_those_of_the_files(inspected):
    tree, inspections = inspected
    findings = build_report(tree, inspections, InspectionRun("now", 1.0))["findings"]
    modules = {module["path"]: module for module in findings["modules"]}
    assert list(modules) == [file.path for file in tree.files]
    assert modules["one.py"]["functions"] == 30
    assert (modules["one.py"]["public"], modules["one.py"]["documented"]) == (31, 1)
    assert modules["one.py"]["suspicious"] == 60
    assert modules["old.py"]["reason"].startswith("line 1: Missing parentheses")
    assert modules["bytes.py"]["reason"].startswith("encoding")
    assert findings["totals"]["files_unparsed"] == 2
    assert findings["totals"]["secrets"] == 1
    assert [(one["path"], one["line"], one["redacted"]) for one in findings["secrets"]] == [
        ("leak.py", 1, "AKIA… (20 characters)")
    ]
    assert findings["identical"] == [["same.py", "two.py"]]
    assert findings["duplicates"]["groups"][0]["copies"] == 3
    assert [(rule["rule"], rule["count"]) for rule in findings["suspicious"]] == [
        ("dynamic-code", 90),
        ("mutable-default", 90),
    ]
    assert findings["imported"] == [{"module": "os", "files": 1}]
    assert [one["path"] for one in findings["skipped"]] == [".venv"]
    assert sum(band["functions"] for band in findings["complexity_bands"]) == 90
    written = findings["text_forms"]
    assert (written["files"], written["encodings"]["other"]) == (len(tree.files), 1)
    assert written["remarkable"] == [
        {"path": "bytes.py", "reasons": ["neither ASCII nor UTF-8", "last line without an end"]}
    ]


def test_the_run_tells_who_did_what(inspected):
    tree, inspections = inspected
    run = build_report(tree, inspections, InspectionRun("now", 2.0, ((0.5, "worker-1 was killed"),)))["run"]
    assert run["tasks"] == len(tree.files) * len(CAPABILITIES) + 2 == len(places(tree))
    assert run["tasks_per_s"] == run["tasks"] / 2
    assert sum(row["tasks"] for row in run["workers"]) == run["tasks"]
    assert [row["capability"] for row in run["capabilities"]] == sorted((*CAPABILITIES, TEXT_FORM))
    assert sum(run["throughput"]["tasks"]) == run["tasks"]
    assert run["attempts"] == run["tasks"] + run["tried_again"]
    assert run["incidents"] == [{"at_s": 0.5, "what": "worker-1 was killed"}]
    assert (run["failed"], run["missing_total"]) == (0, 0)


def test_the_run_tells_how_fast_each_worker_was(inspected):
    tree, inspections = inspected
    members = (FleetMember("worker-0", "slow", {METRICS: 0.25}), FleetMember("worker-1", "fast"))
    timed = [
        dataclasses.replace(one, duration_s=0.3 if one.worker == "worker-0" else 0.02 * one.attempts)
        for one in inspections
    ]
    report = build_report(tree, timed, InspectionRun("now", 2.0, members=members))
    slow, fast = report["run"]["workers"]
    assert [(row["worker"], row["speed"]) for row in (slow, fast)] == [("worker-0", "slow"), ("worker-1", "fast")]
    assert slow["share"] + fast["share"] == pytest.approx(1, abs=0.001)
    for row, mean_ms in ((slow, 300.0), (fast, 40.0)):
        assert sum(time["tasks"] for time in row["times"]) == row["tasks"]
        assert {time["mean_ms"] for time in row["times"]} == {mean_ms}
    learned = {time["capability"]: time["learned_ms"] for time in slow["times"]}
    assert (learned[METRICS], learned[SECRETS]) == (250.0, None)
    assert "worker-0 (slow), syntax_metrics: " in render_html(report)


def test_a_worker_is_told_by_its_tag_and_its_contract():
    offers = [{"name": METRICS, "took_s": 0.5}, {"name": SECRETS, "took_s": None}]
    view = {"id": "w", "contract": "SESSION", "tags": ["gpu", "speed=slow"], "capabilities": offers}
    assert member_of(view) == FleetMember("w", "slow", {METRICS: 0.5})
    assert member_of(view | {"contract": "UNARY", "tags": []}).speed == "foreign"
    assert member_of(view | {"tags": []}).speed == "unknown"


def test_failed_and_missing_tasks_are_shown_not_hidden(inspected):
    tree, inspections = inspected
    path = tree.files[0].path
    portion = portions_of(tree)[0].label
    lost = Inspection(path, METRICS, None, error=f"worker lost {HOSTILE}", attempts=4)
    kept = [one for one in inspections if (one.path, one.capability) not in {(path, METRICS), (path, SECRETS)}]
    kept = [one for one in kept if (one.path, one.capability) != (portion, TEXT_FORM)]
    report = build_report(tree, [*kept, lost], InspectionRun("now", 1.0))
    assert report["run"]["failures"] == [{"path": path, "capability": METRICS, "error": lost.error, "attempts": 4}]
    assert report["run"]["missing"] == [
        {"path": portion, "capability": TEXT_FORM},
        {"path": path, "capability": SECRETS},
    ]
    assert report["findings"]["text_forms"]["files"] == len(tree.files) - len(portions_of(tree)[0].names)
    assert report["findings"]["modules"][0]["reason"] == "not inspected"
    page = render_html(report)
    assert "This report is not complete" in page
    assert "worker lost &lt;script&gt;" in page


def test_two_outcomes_of_one_task_are_refused(inspected):
    tree, inspections = inspected
    run = InspectionRun("now", 1.0)
    with pytest.raises(ValueError, match="two outcomes of"):
        build_report(tree, [*inspections, Inspection(inspections[0].path, inspections[0].capability, {})], run)
    with pytest.raises(ValueError, match="not in the tree"):
        build_report(tree, [*inspections, Inspection("gone.py", METRICS, {})], run)
    with pytest.raises(ValueError, match="not in the tree"):
        build_report(tree, [*inspections, Inspection("one.py", TEXT_FORM, {})], run)
    with pytest.raises(ValueError, match="capability: 'other'"):
        build_report(tree, [*inspections, Inspection("one.py", "other", {})], run)


class _Page(HTMLParser):
    """Collects what a browser would act upon."""

    def __init__(self):
        super().__init__()
        self.scripts = 0
        self.outside = []
        self.ids = []
        self.links = []
        self.unsafe = []
        self.policy = ""

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.scripts += tag == "script"
        self.unsafe += [name for name in attributes if name == "style" or name.startswith("on")]
        self.outside += [attributes[name] for name in ("src", "data", "action") if name in attributes]
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if "href" in attributes:
            self.links.append(attributes["href"])
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]


def test_the_page_runs_nothing_and_fetches_nothing_but_its_own(inspected):
    tree, inspections = inspected
    html = render_html(build_report(tree, inspections, InspectionRun("now", 1.0, ((0.2, HOSTILE),))))
    page = _Page()
    page.feed(html)
    assert page.scripts == 1
    assert page.outside == page.unsafe == []
    assert all(link.removeprefix("#") in page.ids for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/]+='; script-src 'sha256-[\w+/]+='; "
        r"base-uri 'none'; form-action 'none'",
        page.policy,
    )
    assert "<script>alert" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "QYLPMN5HHHFPZAM2" not in html


def test_an_empty_tree_has_a_report(tmp_path):
    report = build_report(list_tree(tmp_path), [], InspectionRun("now", 0.0))
    assert report["findings"]["totals"]["files"] == 0
    assert "There are no functions." in render_html(report)
    Console(file=io.StringIO()).print(summary(report))


def test_both_files_are_written_whole(inspected, tmp_path):
    tree, inspections = inspected
    report = build_report(tree, inspections, InspectionRun("now", 1.0))
    paths = write_report(report, tmp_path / "out" / "inspection")
    assert [path.name for path in paths] == ["report.json", "report.html"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["report.html", "report.json"]
    assert json.loads(paths[0].read_text()) == json.loads(json.dumps(report))
    assert paths[1].read_text().startswith("<!doctype html>")


def test_the_terminal_shows_names_as_they_are(inspected):
    tree, inspections = inspected
    out = io.StringIO()
    Console(file=out, width=150, force_terminal=True, color_system=None).print(
        summary(build_report(tree, inspections, InspectionRun("[bold]now", 1.0)))
    )
    shown = out.getvalue()
    assert "\x1b[2J" not in shown
    assert "function_0" in shown
    assert "dynamic-code" in shown


@given(st.text())
def test_what_is_printed_steers_nothing(text):
    assert all(one.isprintable() or one in "\n\t" for one in printable(text))


@given(st.floats(0, 1e12))
def test_axes_end_at_round_numbers_above_the_values(value):
    assert nice_ceiling(value) >= value


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=60), st.floats(0.001, 1000))
def test_everything_drawn_is_inside_the_drawing(counts, bucket_s):
    dots = scatter([DotValue(count, count, "t", False, "n") for count in counts]).dots
    bars = histogram(counts, ["x"] * len(counts), [0] * len(counts)).bars
    line = timeline(counts, bucket_s, [(1e9, "late"), (-1.0, "early")])
    stripped = strips([StripValue(f"n{count % 7}", count / 100, "t", count % 3) for count in counts])
    assert all(0 <= dot.x <= 560 and 0 <= dot.y <= 300 for dot in (*dots, *stripped.dots))
    assert all(0 <= tick.at <= 560 for tick in (*stripped.strips, *stripped.x_ticks))
    assert all(bar.height >= 0 and bar.y >= 0 and bar.x + bar.width <= 560 for bar in bars)
    assert all(0 <= tick.at <= 560 for tick in (*line.marks, *line.x_ticks, *line.y_ticks))
    assert len({dot.label for dot in dots if dot.label}) <= 6
