from __future__ import annotations

import pytest

from overlay.diagnosis.callers import NAMED, RECENT, check_strangers

KEY = "sqMBX/3hJacIcMLLrdJo/XQdeYEPiF54spHJIWnN9xI="


def stranger(peer=None, last_call=2.0):
    return {
        "public_key": KEY,
        "endpoint": "192.0.2.2:51820",
        "calls": 7,
        "last_call": last_call,
        "peer": peer,
    }


@pytest.mark.parametrize(("peer", "name"), [("tokyo", "unknown_key"), (None, "stranger")])
def test_caller_with_a_key_of_nobody_is_told_with_the_key_and_from_where(peer, name):
    (finding,) = check_strangers([stranger(peer)])

    assert (finding.name, finding.peer) == (name, peer)
    assert (
        f"7 handshakes by the public key {KEY}, which no peer has here, came from 192.0.2.2:51820"
        in finding.problem
    )


def test_caller_of_a_while_ago_is_gone():
    assert not list(check_strangers([stranger(last_call=RECENT)]))


def test_a_crowd_is_told_by_few():
    assert len(list(check_strangers([stranger()] * 100))) == NAMED
