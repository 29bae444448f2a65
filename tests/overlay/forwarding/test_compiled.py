"""The compiled twin does what the Python path does, whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding import native
from tests.both_paths import KINDS, tell
from tests.hypothesis_profiles import examples

pytestmark = pytest.mark.skipif(native.core is None, reason=f"no compiled packet path: {native.missing}")

STEPS = st.lists(
    st.tuples(
        st.sampled_from(KINDS), st.integers(0, 1), st.integers(0, 70_000), st.integers(0, 2**16)
    ),
    min_size=1,
    max_size=40,
)  # fmt: skip


@examples(200)
@given(steps=STEPS, seed=st.integers(0, 2**32), has_gro=st.booleans(), is_bulk=st.booleans())
def test_any_story_ends_the_same_by_either_path(steps, seed, has_gro, is_bulk):
    python, compiled = tell(steps, seed, has_gro=has_gro, is_bulk=is_bulk)

    for name in ("a", "b"):
        for key, value in python[name].items():
            assert compiled[name][key] == value, f"{key} of {name}"
    assert compiled["datagrams"] == python["datagrams"]
