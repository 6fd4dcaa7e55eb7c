"""One control plane with a worker for all tests of this folder that only ask it something."""

from collections.abc import Iterator

import pytest

from tests.merit_command import Fleet, fleet


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("fleet")) as made:
        made.up()
        made.worker("w1")
        yield made
