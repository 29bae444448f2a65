"""The two nodes of a story, whose datagrams arrive merged or singly."""

from __future__ import annotations

import pytest

from tests.sim import World


@pytest.fixture(params=[True, False], ids=["merged", "single"])
def world(request):
    world = World(has_gro=request.param)
    yield world
    print(world.trace)  # noqa: T201  pytest shows it for a test that failed


@pytest.fixture
def pair(world):
    return world.pair()
