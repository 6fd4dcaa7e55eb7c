"""Kills writers of a journal hundreds of times and checks what they leave; run by test_sqlite_kills.py in a process of its own, since it forks.

`kill_campaign.py steps|moments DIRECTORY KILLS`
"""

import os
import random
import signal
import struct
import sys
import threading
import time
import traceback
from contextlib import closing
from pathlib import Path

from merit.model.record import after
from merit.storage import sqlite_journal
from merit.storage.sqlite_journal import SqliteJournal
from merit.storage.verify import verify_journal
from merit.testing.journal_contract import CELL, batch
from merit.testing.sqlite_faults import WatchedVfs

ACK = struct.Struct("<q32s")


def write(directory, acks, count, vfs=None):
    """Appends and writes down each acknowledged record: its next sequence and its hash."""
    stop = threading.Event()
    with closing(SqliteJournal(directory, CELL, vfs=vfs)) as journal:
        tail = journal.lead(f"process {os.getpid()}", time.time_ns())

        def checkpoint_often():
            while not stop.wait(0.002):
                journal.checkpoint()

        if vfs is None:
            threading.Thread(target=checkpoint_often, daemon=True).start()
        for number in range(count):
            record = batch(tail, [b"x" * (number % 3 * 4000)] * 3, [b"payload"])
            journal.append(record)
            tail = after(record)
            os.write(acks, ACK.pack(tail.next, tail.last_hash))
            if number % 3 == 2:
                journal.compact(tail.next - 12)
            if vfs is not None and number % 4 == 3:
                journal.checkpoint()
        stop.set()


def check(directory, acknowledged):
    """Everything acknowledged is there, but for what was compacted away, at most one record more, and the journal goes on."""
    with closing(SqliteJournal(directory, CELL)) as journal:
        tail = journal.lead("check", time.time_ns())
        verification = verify_journal(journal)
        assert verification.ok, verification.problems
        ends = [(after(record).next, after(record).last_hash) for record in journal.read()]
        ends.append((journal.base().next, journal.base().last_hash))
        missing = [ack for ack in acknowledged if ack not in set(ends) and ack[0] >= ends[-1][0]]
        assert not missing, f"acknowledged and lost: {missing}"
        record = batch(tail)
        journal.append(record)
        assert journal.tail() == after(record)


def kill_one(directory, body, kill=None):
    """Forks a child that runs `body(pipe)`; returns what it acknowledged, and whether it died of it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            body(writing)
            os._exit(0)
        finally:  # an exception was not handled: a forked child must not go on as its parent would
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    if kill is not None:
        kill(child)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, 9, -signal.SIGKILL}, f"the writer failed with {code}"
    whole = len(content) // ACK.size * ACK.size
    return list(ACK.iter_unpack(content[:whole])), code != 0


def kill_at_steps(home, kills):
    """Ends the writer before, or in the middle of, its n-th write, sync, truncation or removal; creation of the journal included."""
    died = 0
    for torn in (False, True):
        for number in range(kills):
            directory = home / f"{torn}-{number}"

            def body(acks, directory=directory, number=number, torn=torn):
                left = number

                def watch(step, perform):
                    nonlocal left
                    if left == 0:
                        if torn and step.kind == "write":
                            perform(step.data[: len(step.data) // 2])
                        os._exit(9)
                    left -= 1
                    perform(step.data)

                vfs = WatchedVfs("killing", watch)  # registered as long as it lives
                write(directory, acks, 10, vfs="killing")
                vfs.unregister()

            acknowledged, killed = kill_one(directory, body)
            check(directory, acknowledged)
            died += killed
            if not killed:
                assert len(acknowledged) == 10
                break
    return died


def kill_at_moments(home, kills):
    """Kills the writer, and its checkpointing thread, after a random time; always on the same journal."""
    chance = random.Random(1)
    died = 0
    acknowledged = []

    def kill(child):
        time.sleep(chance.uniform(0.001, 0.08))
        os.kill(child, signal.SIGKILL)

    for number in range(kills):
        new, killed = kill_one(home, lambda acks: write(home, acks, 10_000), kill)
        acknowledged += new
        died += killed
        if number % 10 == 9 or number == kills - 1:
            check(home, acknowledged)
    assert len(acknowledged) > kills
    return died


if __name__ == "__main__":
    # Each journal begins with a log of this length: the usual 9 MB, hundreds of times, are most of what a campaign takes.
    vars(sqlite_journal)["_LOG_BYTES"] = 512 * 1024
    campaign = {"steps": kill_at_steps, "moments": kill_at_moments}[sys.argv[1]]
    sys.stdout.write(f"{campaign(Path(sys.argv[2]), int(sys.argv[3]))}\n")
