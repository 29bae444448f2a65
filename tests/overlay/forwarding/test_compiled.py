"""The compiled twin does what the Python path does, whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding import native
from tests.both_paths import CLEAR_KINDS, KINDS, SERVICE_KINDS, tell
from tests.hypothesis_profiles import examples

pytestmark = pytest.mark.skipif(native.core is None, reason=f"no compiled packet path: {native.missing}")


def steps_of(kinds):
    """Return a strategy for what happens in a story."""
    step = st.tuples(st.sampled_from(kinds), st.integers(0, 1), st.integers(0, 70_000), st.integers(0, 2**16))
    return st.lists(step, min_size=1, max_size=40)


@examples(200)
@given(steps=steps_of(KINDS), seed=st.integers(0, 2**32), has_gro=st.booleans(), is_bulk=st.booleans())
def test_any_story_ends_the_same_by_either_path(steps, seed, has_gro, is_bulk):
    assert_equal(*tell(steps, seed, has_gro=has_gro, is_bulk=is_bulk))


@examples(200)
@given(
    steps=steps_of(CLEAR_KINDS),
    seed=st.integers(0, 2**32),
    has_gro=st.booleans(),
    by=st.sampled_from(["udp", "vxlan", "geneve"]),
)
def test_any_story_in_the_clear_ends_the_same_by_either_path(steps, seed, has_gro, by):
    assert_equal(*tell(steps, seed, has_gro=has_gro, by=by))


@examples(100)
@given(steps=steps_of(SERVICE_KINDS), seed=st.integers(0, 2**32), is_bulk=st.booleans())
def test_any_story_of_a_virtual_service_ends_the_same_by_either_path(steps, seed, is_bulk):
    assert_equal(*tell(steps, seed, is_bulk=is_bulk, by="services"))


def assert_equal(python, compiled):
    """Fail unless the two outcomes of a story are the same."""
    for name in ("a", "b"):
        for key, value in python[name].items():
            assert compiled[name][key] == value, f"{key} of {name}"
    for key in ("datagrams", "flows"):
        assert compiled[key] == python[key]
