"""The two nodes of a story with units, whose datagrams arrive merged or singly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim import World
from tests.two_nodes.units.streams import BOTH

HERE = f"{Path(__file__).parent}/"


def pytest_collection_modifyitems(items):
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=[True, False], ids=["merged", "single"])
def world(request):
    world = World(has_gro=request.param, ciphers=BOTH)
    yield world
    print(world.trace)  # noqa: T201  pytest shows it for a test that failed


@pytest.fixture
def pair(world):
    return world.pair()
