"""The same from a program that runs an event loop, with a task that needs another one, and a cancel."""

from __future__ import annotations

import asyncio
import sys

from merit import AsyncClient, MeritError


async def main(server: str = "127.0.0.1:50051") -> None:
    """Submit, depend, cancel."""
    async with AsyncClient(server) as merit:
        first = await merit.submit("greet", {"name": "Ada"})
        second = await merit.submit("greet", {"name": "Grace"}, after=[first])
        print(await second.result(timeout_s=30))
        nobody = await merit.submit("greet_in_klingon", {"name": "Worf"})  # waits for a worker that can
        print((await merit.task(nobody.id))["why"])
        nobody.cancel()
        try:
            await nobody.result(timeout_s=30)
        except MeritError as error:
            print(error)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:2]))
