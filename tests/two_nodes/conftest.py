"""Each story of two nodes is told twice: by the Python path, which is the specification, and by its compiled twin.

A story that is also told with datagrams that arrive merged and singly is told once with each, on different paths: half
of the stories merged in Python, half merged in C.  The quick run omits the compiled ones of these, the thorough one
tells all four.
"""

from __future__ import annotations

import zlib

import pytest

from overlay.forwarding import native
from tests.hypothesis_profiles import PROFILE
from tests.sim import World

COMPILED = pytest.param(
    True,
    id="compiled",
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(native.core is None, reason=f"no compiled packet path: {native.missing}"),
    ],
)


@pytest.fixture(autouse=True, params=[pytest.param(False, id="python"), COMPILED])
def packet_path(request, monkeypatch):
    """Make the nodes of a story use one packet path or the other."""
    monkeypatch.setattr(World, "goes_compiled", request.param)


def pytest_collection_modifyitems(config, items):
    if PROFILE in {"thorough", "mutation"} or native.core is None:
        return
    left = [item for item in items if is_left_out(item)]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if not is_left_out(item)]


def is_left_out(item):
    """Return whether another pairing of path and receive stands in for this one."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if not {"packet_path", "world"} <= parameters.keys():
        return False
    return parameters["packet_path"] ^ parameters["world"] ^ (zlib.crc32(item.originalname.encode()) & 1)
