"""Auditors that come with Merit keep the contract that those of others have to keep."""

import pytest

from merit.auditing.catalogue import AUDITORS
from merit.auditing.nonempty import NonEmpty
from merit.testing.auditor_contract import AuditorContract


class TestNonEmpty(AuditorContract):
    @pytest.fixture
    def make(self):
        return NonEmpty

    @pytest.fixture
    def right(self):
        return {}, {"text": ""}

    @pytest.fixture
    def wrong(self):
        return {}, " \n"


def test_it_is_known_by_its_name():
    assert AUDITORS["nonempty"] is NonEmpty
