"""A bench whose datagrams arrive merged or singly."""

from __future__ import annotations

import pytest

from tests.overlay.forwarding.bulk.bench import Bench


@pytest.fixture(params=[True, False], ids=["merged", "single"])
def bench(request):
    return Bench(has_gro=request.param)
