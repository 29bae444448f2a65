from __future__ import annotations

import pytest

from overlay.diagnosis.callers import NAMED, RECENT, check_misdirected, check_strangers
from overlay.diagnosis.finding import Finding

KEY = "sqMBX/3hJacIcMLLrdJo/XQdeYEPiF54spHJIWnN9xI="


def stranger(peer=None, last_call=2.0):
    return {
        "public_key": KEY,
        "endpoint": "192.0.2.2:51820",
        "calls": 7,
        "last_call": last_call,
        "peer": peer,
    }


@pytest.mark.parametrize(
    ("peer", "missed", "name"),
    [("tokyo", (), "unknown_key"), (None, (), "stranger"), (None, ("tokyo",), "unknown_caller")],
)
def test_caller_with_a_key_of_nobody_is_told_with_the_key_and_from_where(peer, missed, name):
    (finding,) = check_strangers([stranger(peer)], missed)

    assert (finding.name, finding.peer) == (name, peer)
    assert (
        f"7 handshakes with the public key {KEY}, which no peer has here, came from 192.0.2.2:51820"
        in finding.problem
    )


def test_caller_of_a_while_ago_is_gone():
    assert not list(check_strangers([stranger(last_call=RECENT)], ()))


def test_a_crowd_is_told_by_few():
    assert len(list(check_strangers([stranger()] * 100, ()))) == NAMED


@pytest.mark.parametrize(
    ("missed", "whose"),
    [
        (["tokyo"], "tokyo"),
        (["tokyo", "rome", "oslo"], "tokyo, rome or oslo"),
        ([str(number) for number in range(9)], "0, 1, 2, 3, 4 or another peer that is silent"),
    ],
)
def test_who_is_missed_may_be_the_caller(missed, whose):
    (finding,) = check_strangers([stranger()], missed)

    assert finding.remedy.startswith(f"see whether {whose} has that key, and correct its public_key here")


def test_handshakes_for_other_keys_are_a_remark_unless_a_peer_is_missed():
    told = Finding("wrong_key_there", "handshakes arrive", "compare the public_key")
    of_peer = Finding("wrong_key_there", "handshakes arrive", "compare the public_key", "tokyo")

    assert [each.name for each in check_misdirected([told, of_peer], [])] == ["misdirected"]
    (finding,) = check_misdirected([told, of_peer], ["rome"])
    assert (finding.name, finding.remedy) == ("wrong_key_there", "compare the public_key, if that is rome")
