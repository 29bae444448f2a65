"""Nodes whose packets arrive many at once or one by one."""

from __future__ import annotations

import pytest

from tests.sim import World


@pytest.fixture(params=[True, False], ids=["many at once", "one by one"])
def world(request):
    return World(has_gro=request.param)
