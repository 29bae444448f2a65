from __future__ import annotations

import pytest

from overlay.numbers import count


@pytest.mark.parametrize(("number", "text"), [(0, "0 peers"), (1, "1 peer"), (2, "2 peers")])
def test_noun_has_the_number_of_its_things(number, text):
    assert count(number, "peer") == text


@pytest.mark.parametrize(("number", "text"), [(1, "1 route or rule"), (4, "4 routes and rules")])
def test_plural_may_be_written_out(number, text):
    assert count(number, "route or rule", "routes and rules") == text
