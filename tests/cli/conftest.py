"""One control plane with a worker for all tests of this folder that only ask it something."""

from collections.abc import Iterator

import pytest

from tests.merit_command import Fleet, fleet

SPEAKS = """
import time
from pathlib import Path

from merit import Context, capability


@capability
def speaks(context: Context) -> str:
    heard = Path("heard")
    heard.unlink(missing_ok=True)  # left by whoever has heard what it says: then it ends
    context.progress(0.5, message="half of it")
    context.log("warning", "line one")
    while not heard.exists():
        time.sleep(0.01)
    return "done"
"""


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("fleet")) as made:
        with (made.folder / "capabilities.py").open("a") as capabilities:
            capabilities.write(SPEAKS)
        made.up()
        made.worker("w1")
        yield made
