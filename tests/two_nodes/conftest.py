"""Each story of two nodes is told twice: by the Python path, which is the specification, and by its compiled twin."""

from __future__ import annotations

import pytest

from overlay.forwarding import native
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
    """Have the nodes of a story send their packets by one path or the other."""
    monkeypatch.setattr(World, "goes_compiled", request.param)
