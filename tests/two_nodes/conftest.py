"""Each story of two nodes is told twice: by the Python path, which is the specification, and by its compiled twin.

Where it is also told with datagrams that come merged and with ones that come singly, it is told once with either, by a
path each: half of the stories merged in Python, half merged in C.  The quick run leaves the compiled ones of these out,
the thorough one tells all four.
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
    """Make the nodes of a story send packets by one path or the other."""
    monkeypatch.setattr(World, "goes_compiled", request.param)


def pytest_collection_modifyitems(config, items):
    if PROFILE in {"thorough", "mutation"} or native.core is None:
        return
    left = [item for item in items if is_left_out(item)]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if not is_left_out(item)]


def is_left_out(item):
    """Return whether another pairing of path and receive stands for this one."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if not {"packet_path", "world"} <= parameters.keys():
        return False
    return parameters["packet_path"] ^ parameters["world"] ^ (zlib.crc32(item.originalname.encode()) & 1)
