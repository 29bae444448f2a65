"""The progress of the replacement of a key, in words."""

from pathlib import Path

import pytest

from overlay.keys.rotation import KeyProgress


@pytest.mark.parametrize(
    ("standing", "sentence"),
    [
        (
            KeyProgress((), ("tokyo", "rome"), ()),
            (
                "the key of this host is being replaced: 0 of 2 peers used the new one, tokyo, rome still use the old "
                "one; `overlay rotate-key` shows what to do"
            ),
        ),
        (
            KeyProgress(("rome",), ("tokyo",), ("oslo",)),
            (
                "the key of this host is being replaced: 1 of 3 peers used the new one, tokyo still uses the old one, "
                "oslo was not heard since this agent started; `overlay rotate-key` shows what to do"
            ),
        ),
        (
            KeyProgress(("tokyo",), (), ()),
            (
                "the key of this host is being replaced: 1 of 1 peer used the new one; withdraw the old one with "
                "`overlay rotate-key --finish`"
            ),
        ),
        (
            KeyProgress((), tuple("abcdefg"), ()),
            (
                "the key of this host is being replaced: 0 of 7 peers used the new one, a, b, c, d, e and 2 more "
                "still use the old one; `overlay rotate-key` shows what to do"
            ),
        ),
    ],
)
def test_standing_says_who_has_not_used_the_new_key(standing, sentence):
    assert standing.describe(Path("/etc/overlay/private.key"), "overlay0") == sentence


def test_command_in_a_sentence_can_be_run_as_it_is():
    done = KeyProgress(("tokyo",), (), ())

    assert done.describe(Path("/keys/my host"), "office").endswith(
        "withdraw the old one with `overlay rotate-key --finish --key '/keys/my host' --interface office`"
    )
