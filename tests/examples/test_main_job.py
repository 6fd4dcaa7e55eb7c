"""The main job on a small tree: what is killed while it runs, the foreign worker too, changes nothing in what it finds."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.merit_command import WAIT_S, Running, environment, until

FILES = 60
FOLDERS = 20
TASKS = 6 * (FILES + 2) + FOLDERS + 1
"""One per file and capability, and one per folder, of which the root is one."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with something to find in each; two that do not parse."""
    root = tmp_path_factory.mktemp("tree")
    block = "".join(f"    value_{n} = {n} * scale + offset\n" for n in range(12))
    for number in range(FILES):
        folder = root / f"package_{number % FOLDERS}"
        folder.mkdir(exist_ok=True)
        (folder / f"module_{number}.py").write_text(
            f'"""Module {number}."""\n\nimport os\n\n\ndef function_{number}(scale, offset=[]):\n'
            f"    if scale > {number}:\n        return eval(offset)\n{block}"
            f"    return value_{number % 12}\n\n\n# {'x' * number * 40}\n"
        )
    (root / "broken.py").write_text("def f(:\n")
    (root / "binary.py").write_bytes(b"\xff\xfe\x00")
    return root


def inspect(tree: Path, folder: Path, *more: str) -> tuple[dict[str, Any], str]:
    """Run the job; its report and what it printed."""
    ran = subprocess.run(
        [sys.executable, "-m", "examples.inspection", "--tree", str(tree), "--out", str(folder / "out"), *more],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    assert (folder / "out" / "report.html").stat().st_size > 10_000
    report: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
    return report, ran.stdout


def test_kills_change_nothing_in_what_is_found(tree: Path, tmp_path: Path):
    (tmp_path / "calm").mkdir()
    (tmp_path / "drill").mkdir()
    calm, said = inspect(tree, tmp_path / "calm")
    assert f"{TASKS}/{TASKS} tasks" in said
    assert str(tmp_path / "calm" / "out" / "report.html") in said.replace("\n", "")
    assert calm["run"]["tasks"] == TASKS
    assert (calm["run"]["failed"], calm["run"]["missing_total"]) == (0, 0)
    assert calm["run"]["incidents"] == []
    speeds = {row["worker"]: row["speed"] for row in calm["run"]["workers"]}
    assert (
        speeds.items()
        <= {"foreign-agent": "foreign", "inspector-1": "fast", "inspector-2": "fast", "inspector-3": "slow"}.items()
    )
    foreign = {row["worker"]: row for row in calm["run"]["workers"]}["foreign-agent"]
    assert [(time["capability"], time["tasks"]) for time in foreign["times"]] == [("text_form", FOLDERS + 1)]
    assert calm["findings"]["text_forms"]["files"] == FILES + 2
    assert calm["findings"]["text_forms"]["remarkable"][0]["path"] == "binary.py"
    assert not list((tmp_path / "calm" / ".merit" / "inspection").iterdir())

    drill, _ = inspect(tree, tmp_path / "drill", "--kill-drill")
    told = [one["what"] for one in drill["run"]["incidents"]]
    assert sum(what.startswith("control plane was ended by SIGKILL") for what in told) == 2
    assert sum(what.startswith("worker") and "SIGKILL" in what for what in told) == 2
    assert sum(what.startswith("foreign worker was ended by SIGKILL") for what in told) == 2
    assert sum(what.startswith("foreign worker started again") for what in told) == 2
    tried_again = {row["capability"]: row["tried_again"] for row in drill["run"]["capabilities"]}
    assert tried_again["text_form"] >= 1  # it had tasks each time that it was killed
    assert drill["run"]["tasks"] == calm["run"]["tasks"]
    assert (drill["run"]["failed"], drill["run"]["missing_total"]) == (0, 0)
    assert json.dumps(drill["findings"], sort_keys=True) == json.dumps(calm["findings"], sort_keys=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_it_is_stopped(tree: Path, tmp_path: Path, number: int):
    job = Running(["-m", "examples.inspection", "--tree", str(tree), "--state", "state"], tmp_path, "job")
    try:
        until(lambda: _attached(tmp_path / "state" / "logs"), "all workers are there")
        pids = [child.pid for child in psutil.Process(job.pid).children(recursive=True)]
        assert len(pids) >= 5
        job.send(number)
        code = job.ended()
    finally:
        job.kill()
    assert code == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in job.err
    until(lambda: not any(_lives(pid) for pid in pids), "all of its processes are gone")


def test_wrong_usage_is_said(tmp_path: Path):
    for words, text in (
        (["--tree", str(tmp_path / "nowhere")], "is not a directory"),
        (["--tree", str(tmp_path)], "no Python file"),
        (["--workers", "0"], "--workers"),
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "examples.inspection", *words],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 2
        assert text in ran.stderr
        assert "Traceback" not in ran.stderr


def _attached(logs: Path) -> bool:
    said = {logs / "workers" / f"{slot}.log": "attached" for slot in range(3)} | {
        logs / "foreign" / "0.log": "registered"
    }
    return all(log.exists() and text in log.read_text() for log, text in said.items())


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
