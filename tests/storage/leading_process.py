"""Leads the journal of a cell and appends without end; says what was acknowledged, and why it ends.

Arguments: cell, lease in seconds. The URL comes in the environment, as the control plane's does.
"""

import asyncio
import os
import sys

from merit.model.record import after, seal
from merit.ports.journal import JournalError
from merit.storage.postgres_database import Database
from merit.storage.postgres_journal import PostgresJournal


async def main():
    cell, lease_s = sys.argv[1], float(sys.argv[2])
    journal = PostgresJournal(Database(os.environ["MERIT_STORE"]), cell, lease_s)
    tail = journal.lead("leading process", 1)

    async def renew():
        while True:
            await asyncio.sleep(lease_s / 3)
            await journal.renew()

    renewing = asyncio.create_task(renew())
    try:
        while True:
            record = seal(cell, tail.next, tail.epoch, "leading process", 1, tail.last_hash, [os.urandom(20_000)])
            await journal.append(record)
            tail = after(record)
            sys.stdout.write(f"acknowledged {record.last}\n")
            sys.stdout.flush()
    except JournalError as error:
        sys.stdout.write(f"ended {type(error).__name__}\n")
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        journal.close()


asyncio.run(main())
