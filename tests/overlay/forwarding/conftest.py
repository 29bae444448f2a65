"""A core whose datagrams arrive merged or singly; two running loops, and the ends of a link."""

from __future__ import annotations

import pytest

from overlay.forwarding.loop import LinkEnd
from tests.overlay.forwarding.core_bench import Bench
from tests.overlay.forwarding.loop_bench import Running, connect, socket_pair


@pytest.fixture(params=[True, False], ids=["merged", "single"])
def bench(request):
    return Bench(has_gro=request.param)


@pytest.fixture
def ends():
    """The agent's end of a link, and the forwarder's."""
    agent, forwarder = socket_pair()
    yield agent, LinkEnd(forwarder)
    agent.close()
    forwarder.close()


@pytest.fixture
def running():
    """Two loops with a session between them."""
    pair = Running(), Running()
    connect(*pair)
    yield pair
    for each in pair:
        each.close()
    assert [each.error for each in pair] == [None, None]
