"""The six phantoms as cases."""

import pytest

from catnet.data.store import open_cases


@pytest.fixture
def cases(tiny):
    return open_cases(tiny().card)
