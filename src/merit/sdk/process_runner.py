"""The parent's side of child processes: one child per thread of the lane, started when first needed, replaced when it dies."""

from __future__ import annotations

import multiprocessing
import multiprocessing.spawn
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from merit.sdk.execution import canceled, finish
from merit.sdk.lanes import Held, Keeper
from merit.sdk.outcome import AttemptError, Outcome, message_of
from merit.sdk.process_child import Cancel, Ended, Prepare, Run, Said, decode_up, encode_frame

END_WAIT_S = 2.0
FRAME_ROOM_BYTES = 4 * 1024 * 1024  # for what goes beside a result: evidence, error, a log line

# The child gets the parent's path before anything is imported, so that it finds what the parent found.
_BOOT = "import sys; sys.path[:] = sys.argv[2:]; from merit.sdk.process_child import main; main(int(sys.argv[1]))"


class ChildProcess:
    """One child and the connection to it. Raises OSError when no process can be started."""

    def __init__(self, modules: list[str]) -> None:
        self.connection, theirs = multiprocessing.Pipe(duplex=True)
        path = [entry or str(Path.cwd()) for entry in sys.path]
        try:
            self._process = subprocess.Popen(  # noqa: S603 — our own interpreter with our own program
                [_interpreter(), "-c", _BOOT, str(theirs.fileno()), *path],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a group of its own, so that what a function starts can be ended with it
            )
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        try:
            self.connection.send_bytes(encode_frame(_preparation(modules)))
        except BaseException:
            self.kill()
            raise

    @property
    def alive(self) -> bool:
        """Whether the child has not ended."""
        return self._process.poll() is None

    def kill(self) -> int:
        """Kill the child and what it started; returns its exit code (negative: the signal that ended it)."""
        ended = self._process.poll()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # the group is gone already, or (macOS) only zombies are left in it
        self.connection.close()
        return self._process.wait() if ended is None else ended

    def exit_code(self) -> int:
        """How the child ended by itself, its connection being at its end; kills what is left."""
        try:
            self._process.wait(END_WAIT_S)
        except subprocess.TimeoutExpired:
            pass
        return self.kill()


class ChildBody:
    """Runs attempts in a child process, from the thread of a lane that belongs to it."""

    def __init__(self, keeper: Keeper, modules: list[str], cancel_grace_s: float) -> None:
        self._keeper = keeper
        self._modules = modules
        self._cancel_grace_s = cancel_grace_s
        self._child: ChildProcess | None = None
        self._heard, self._bell = multiprocessing.Pipe(duplex=False)

    def run(self, held: Held) -> None:
        """Run one attempt and hand in its outcome; whatever goes wrong is the attempt's."""
        self._keeper.begin(held)
        held.interrupt = self._ring
        started_ns = time.time_ns()
        before_ns = time.perf_counter_ns()
        try:
            ended = self._converse(held)
        except BaseException as raised:  # noqa: BLE001 — no process to be had, a broken frame: the lane must live on
            self._drop()
            ended = AttemptError("crashed", f"its process could not be used: {message_of(raised)}")
        held.interrupt = None
        if isinstance(ended, AttemptError):
            outcome = finish(held, b"", ended, started_ns, time.perf_counter_ns() - before_ns, 0, 0)
        else:
            # The lines came one by one, so that they outlive a crash; what came is the log.
            log, dropped, _ = held.said()
            outcome = msgspec.structs.replace(
                ended, attempt=held.attempt, log=log, log_dropped=ended.log_dropped + dropped
            )
        self._keeper.end(outcome)

    def close(self) -> None:
        """End the child."""
        self._drop()
        self._heard.close()
        self._bell.close()

    def _ring(self) -> None:
        """Called from the loop's thread when the attempt is cancelled; never blocks, because the pipe holds many bells."""
        try:
            self._bell.send_bytes(b"!")
        except OSError:  # the lane has ended meanwhile
            pass

    def _converse(self, held: Held) -> Outcome | AttemptError:
        if self._child is not None and not self._child.alive:  # it died between attempts: nobody's fault
            self._drop()
        if self._child is None:
            self._child = ChildProcess(self._modules)
        child = self._child
        module, qualified_name = held.capability.address
        job = Run(
            module,
            qualified_name,
            held.attempt,
            held.task,
            held.attempt_number,
            held.deadline_ns,
            held.parameters,
            self._keeper.result_bytes_max,
        )
        frame_bytes_max = self._keeper.result_bytes_max + FRAME_ROOM_BYTES
        poll = select.poll()  # multiprocessing's wait() costs ten times as much
        for end in (child.connection, self._heard):
            poll.register(end, select.POLLIN)
        kill_at_s: float | None = None
        try:
            child.connection.send_bytes(encode_frame(job))
            while True:
                if held.cancelled and kill_at_s is None:
                    child.connection.send_bytes(encode_frame(Cancel(held.attempt)))
                    kill_at_s = time.monotonic() + self._cancel_grace_s
                patience_ms = None if kill_at_s is None else max(0.0, kill_at_s - time.monotonic()) * 1e3
                ready = {descriptor for descriptor, _ in poll.poll(patience_ms)}
                if self._heard.fileno() in ready:
                    self._heard.recv_bytes()
                if child.connection.fileno() in ready:
                    outcome = _take(child.connection.recv_bytes(frame_bytes_max), held)
                    if outcome is not None:
                        return outcome
                if kill_at_s is not None and time.monotonic() >= kill_at_s:
                    self._drop()
                    return canceled(f"canceled: its process was killed after {self._cancel_grace_s:g} s of grace")
        except (EOFError, ConnectionError):
            return self._crashed()

    def _crashed(self) -> AttemptError:
        child, self._child = self._child, None
        code = child.exit_code() if child is not None else 0
        how = f"signal {_signal_name(-code)}" if code < 0 else f"exit code {code}"
        return AttemptError("crashed", f"the process that ran it ended by {how}")

    def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()


def _take(frame: bytes, held: Held) -> Outcome | None:
    match decode_up(frame):
        case Ended(outcome):
            return outcome
        case Said(progress, line):
            if progress is not None:
                held.pass_on(progress)
            if line is not None:
                held.add_line(line)
    return None


def _preparation(modules: list[str]) -> Prepare:
    """The script is imported in the child only if a capability stands in it: importing a command line is slow."""
    if "__main__" not in modules:
        return Prepare(None, None, sys.argv, modules)
    data = multiprocessing.spawn.get_preparation_data("merit")
    path, name = data.get("init_main_from_path"), data.get("init_main_from_name")
    others = [module for module in modules if module != "__main__"]
    return Prepare(None if path is None else str(path), None if name is None else str(name), sys.argv, others)


def _interpreter() -> str:
    found = multiprocessing.spawn.get_executable()
    return os.fsdecode(found) if found else sys.executable


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({number})"
    except ValueError:
        return str(number)
