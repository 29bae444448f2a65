from __future__ import annotations

import pytest


@pytest.fixture
def spread():
    from scripts.mutation.trials import spread  # with libcst, for which no collection of tests is to wait

    return spread


@pytest.mark.parametrize(
    ("most", "expected"), [(None, "abcdefg"), (9, "abcdefg"), (7, "abcdefg"), (3, "adg"), (2, "ag"), (1, "a")]
)
def test_few_of_many_are_taken_at_equal_distances(spread, most, expected):
    assert "".join(spread("abcdefg", most)) == expected


def test_of_nothing_nothing_is_taken(spread):
    assert spread([], 3) == []
