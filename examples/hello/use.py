"""A client: one task, then thousands. Start it with ``python -m examples.hello.use`` beside a control plane and a worker."""

from __future__ import annotations

import sys

from merit import Client


def main(server: str = "127.0.0.1:50051", count: int = 5_000) -> None:
    """Submit, wait, map."""
    with Client(server) as merit:
        task = merit.submit("greet", {"name": "world"}, priority="HIGH")
        print(task.result(timeout_s=30))
        inputs = [{"name": f"number {place}", "times": 2} for place in range(count)]
        good = sum(result.ok for result in merit.map("greet", inputs))
        print(f"{good:,} of {count:,} greeted")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051")
