"""The smallest example, and what the README shows, as a new user would run them."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.merit_command import Fleet, environment, fleet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def greeting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("hello")) as made:
        made.up()
        made.worker("greeter", module=str(ROOT / "examples" / "hello" / "agent.py"))
        yield made


def run(fleet_: Fleet, *words: str) -> str:
    ran = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment(MERIT_SERVER=fleet_.server),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_one_task_and_thousands(greeting: Fleet):
    assert run(greeting, "-m", "examples.hello.use", greeting.server) == "hello world\n5,000 of 5,000 greeted\n"


def test_dependencies_and_cancel(greeting: Fleet):
    said = run(greeting, "-m", "examples.hello.use_async", greeting.server).splitlines()
    assert said[0] == "hello Grace"
    assert "no connected worker offers greet_in_klingon" in said[1]
    assert said[2].endswith("was canceled")


def test_the_program_in_the_readme(greeting: Fleet):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    assert run(greeting, "-c", blocks[0]) == "hello world\n"


def test_the_program_in_the_how_to(greeting: Fleet):
    text = (ROOT / "docs" / "submit-and-wait.md").read_text()
    _, block = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    said = run(greeting, "-c", block).splitlines()
    assert said[0] == "hello world"
    assert said[-1] == "hello 4999"
