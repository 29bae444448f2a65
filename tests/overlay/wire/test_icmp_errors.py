from __future__ import annotations

import pytest

from overlay.wire.icmp_errors import Hint, IcmpError


@pytest.mark.parametrize(
    ("error", "words", "hint"),
    [
        (IcmpError(4, 3, 0), "network unreachable", Hint.NO_ROUTE),
        (IcmpError(4, 3, 1), "host unreachable", Hint.ABSENT),
        (IcmpError(4, 3, 3), "port unreachable", Hint.FILTERED),
        (IcmpError(4, 3, 4, 1400), "packet too big, at most 1400 bytes pass", Hint.TOO_BIG),
        (IcmpError(4, 3, 4), "packet too big", Hint.TOO_BIG),
        (IcmpError(4, 3, 13), "communication administratively prohibited", Hint.FILTERED),
        (IcmpError(4, 11, 0), "time exceeded", Hint.LOOP),
        (IcmpError(4, 12, 0), "parameter problem", Hint.OTHER),
        (IcmpError(6, 1, 0), "no route to destination", Hint.NO_ROUTE),
        (IcmpError(6, 1, 3), "address unreachable", Hint.ABSENT),
        (IcmpError(6, 2, 0, 1280), "packet too big, at most 1280 bytes pass", Hint.TOO_BIG),
        (IcmpError(6, 3, 0), "hop limit exceeded", Hint.LOOP),
        (IcmpError(6, 4, 1), "parameter problem", Hint.OTHER),
    ],
)
def test_error_is_named_in_the_words_of_its_standard(error, words, hint):
    assert (str(error), error.hint) == (words, hint)


@pytest.mark.parametrize("version", [4, 6])
def test_any_numbers_have_words(version):
    for kind in range(256):
        for code in (0, 1, 77, 255):
            error = IcmpError(version, kind, code, 2**32 - 1)

            assert str(error).isprintable()
            assert isinstance(error.hint, Hint)


def test_error_that_no_standard_names_is_shown_by_its_numbers():
    assert str(IcmpError(4, 3, 77)) == "ICMP type 3, code 77"
