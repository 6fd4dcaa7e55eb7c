"""`merit worker --unary`: a worker that is dialled."""

import json
from pathlib import Path

import pytest

from tests.merit_command import CAPABILITIES, Running, fleet, merit, until


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "agent.py"
    path.write_text(CAPABILITIES)
    return path


def test_it_says_where_it_is_dialled_and_leaves_on_a_signal(tmp_path: Path, module: Path):
    with fleet(tmp_path) as made:
        made.up()
        words = ["-m", "merit", "worker", str(module), "--name", "dialled", "--unary", "127.0.0.1:0"]
        worker = Running([*words, "--registry", made.server, "--json"], tmp_path, "dialled")
        made.running.append(worker)
        said = json.loads(until(lambda: worker.out, "it is up"))
        assert (said["name"], said["registry"], said["pid"]) == ("dialled", made.server, worker.pid)
        assert "hello" in said["capabilities"]
        ran = merit("submit", "hello", "input=you", "--wait", "--json", cwd=tmp_path, MERIT_SERVER=made.server)
        assert (ran.json["result"], ran.json["worker"]) == ("hello you", "dialled")
        shown = merit("worker", "show", "dialled", "--json", cwd=tmp_path, MERIT_SERVER=made.server)
        assert shown.json["address"] == said["address"]
        taken = merit("worker", str(module), "--unary", said["address"], cwd=tmp_path)
        assert taken.code == 1
        assert "is another server there?" in taken.err
        assert worker.stop() == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--registry", "127.0.0.1:1"], "--registry belongs to --unary"),
        (["--unary", "0.0.0.0:1"], "listen: 0.0.0.0:1 is not a loopback address"),
        (["--unary", "here"], "is no HOST:PORT"),
        (["--unary", "127.0.0.1:50052", "--count", "3"], "--count needs --unary HOST:0"),
    ],
)
def test_wrong_usage(tmp_path: Path, module: Path, words: list[str], reason: str):
    ran = merit("worker", str(module), *words, "--json", cwd=tmp_path)
    assert ran.code == 2
    assert reason in ran.err
