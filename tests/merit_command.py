"""Runs the `merit` command the way users do: as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WAIT_S = 60.0

CAPABILITIES = '''
import os
import time
from pathlib import Path

from merit import capability


@capability
def hello(input: str) -> str:
    """Greets."""
    return f"hello {input}"


@capability
def add(a: int, b: int) -> int:
    return a + b


@capability
def boom(x: int = 0) -> int:
    raise ValueError("no such luck")


@capability
def slow(name: str, seconds: float) -> str:
    time.sleep(seconds)
    return name


@capability
def gated(name: str) -> str:
    """Leaves a file that says that it has begun, and waits for one that lets it go on."""
    Path(f"begun-{name}").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    return name


@capability
def whoami() -> int:
    return os.getpid()
'''


def environment(**more: str) -> dict[str, str]:
    """Of a process that finds Merit in the source tree, and nothing else of this shell's settings for it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MERIT_")}
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def merit(*words: str, cwd: Path, given: str | None = None, **more: str) -> Ran:
    """Run a command to its end."""
    ended = subprocess.run(
        [sys.executable, "-m", "merit", *words],
        cwd=cwd,
        env=environment(**more),
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return Ran(ended.returncode, ended.stdout, ended.stderr)


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until the condition holds, and return what it gave."""
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"in {WAIT_S:g} s it did not come about that {what}")


class Running:
    """A process that is running, its output in files beside it."""

    def __init__(self, words: Sequence[str], cwd: Path, name: str, **more: str) -> None:
        self.out_path, self.err_path = cwd / f"{name}.out", cwd / f"{name}.err"
        with self.out_path.open("ab") as out, self.err_path.open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, *words],
                cwd=cwd,
                env=environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def out(self) -> str:
        return self.out_path.read_text()

    @property
    def err(self) -> str:
        return self.err_path.read_text()

    def says(self, text: str, where: str = "out") -> None:
        """Wait until the text stands in its output."""

        def said() -> bool:
            assert self.process.poll() is None or text in getattr(self, where), f"it ended: {self.out}\n{self.err}"
            return text in getattr(self, where)

        until(said, f"process {self.pid} says {text!r}")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(WAIT_S)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.send(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """kill -9."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)


class Fleet:
    """A control plane and workers in a directory of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.server = "127.0.0.1:0"
        self.running: list[Running] = []
        (folder / "capabilities.py").write_text(CAPABILITIES)

    def up(self) -> Running:
        """A control plane; started again, on the same port."""
        name = f"up-{len(self.running)}"
        plane = Running(
            ["-m", "merit", "up", "--state", str(self.state), "--grpc", self.server, "--json"], self.folder, name
        )
        self.running.append(plane)
        plane.says("\n")
        self.server = json.loads(plane.out)["grpc"]
        return plane

    def worker(self, name: str, *more: str, module: str = "capabilities") -> Running:
        """A worker that is attached."""
        words = ["-m", "merit", "worker", module, "--server", self.server, "--name", name, *more]
        worker = Running(words, self.folder, name)
        self.running.append(worker)
        worker.says("attached", "err")
        return worker

    def merit(self, *words: str, given: str | None = None) -> Ran:
        """A command that finds this fleet by the environment."""
        return merit(*words, cwd=self.folder, given=given, MERIT_SERVER=self.server, MERIT_STATE=str(self.state))

    def events(self, name: str) -> list[dict[str, Any]]:
        """The fields of all events of that name in the journal, which must be whole."""
        assert self.merit("journal", "verify").code == 0
        found = self.merit("journal", "show", "--json").json["events"]
        return [event["fields"] for event in found if event["event"] == name]


@contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    """A fleet of which nothing is left afterwards."""
    made = Fleet(folder)
    try:
        yield made
    finally:
        for running in made.running:
            running.process.send_signal(signal.SIGCONT)
            running.kill()
