"""Keys that no peer here has."""

from __future__ import annotations

import hashlib

from overlay.troubles.strangers import MOST, Strangers

MISTYPED = b"\x01" * 32
AT = ("192.0.2.2", 51820)


def made_up(number):
    return hashlib.sha256(bytes([number % 256, number // 256])).digest()


def keys(strangers):
    return [row["public_key"] for row in strangers.describe({}, 1000.0)]


def test_caller_is_described_with_where_it_called_from_and_whose_address_that_is():
    strangers = Strangers()
    strangers.note(MISTYPED, ("203.0.113.9", 4500), 10.0)

    strangers.note(MISTYPED, AT, 20.0)

    assert strangers.describe({"192.0.2.2": "tokyo"}, 25.0) == [
        {
            "public_key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
            "endpoint": "192.0.2.2:51820",
            "calls": 2,
            "last_call": 5.0,
            "peer": "tokyo",
        }
    ]


def test_the_last_caller_comes_first():
    strangers = Strangers()
    for at, number in enumerate((1, 2, 3, 1)):
        strangers.note(made_up(number), AT, float(at))

    assert keys(strangers)[0] == keys_of(1)[0]


def keys_of(number):
    alone = Strangers()
    alone.note(made_up(number), AT, 0.0)
    return keys(alone)


def test_flood_of_keys_that_are_made_up_is_bounded_and_does_not_displace_who_calls_again():
    strangers = Strangers()
    strangers.note(MISTYPED, AT, 0.0)
    strangers.note(MISTYPED, AT, 5.0)

    for number in range(1000):
        strangers.note(made_up(number), AT, 6.0 + number)

    assert len(keys(strangers)) == MOST
    assert "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=" in keys(strangers)
    assert keys_of(999)[0] == keys(strangers)[0]


def test_who_became_a_peer_is_no_stranger():
    strangers = Strangers()
    strangers.note(MISTYPED, AT, 0.0)
    strangers.note(made_up(1), AT, 0.0)

    strangers.forget({MISTYPED})

    assert keys(strangers) == keys_of(1)
    strangers.forget({made_up(1)})
    assert not strangers
