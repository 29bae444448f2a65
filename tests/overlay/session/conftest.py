from __future__ import annotations

import pytest

from tests.overlay.session.pair import Pair


@pytest.fixture
def pair():
    return Pair()
