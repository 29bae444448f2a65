from __future__ import annotations

import pytest

from overlay.host.netlink.path_mtu_exceptions import LearntMtu
from overlay.roster import Remote
from overlay.session.peer import HandshakeStatus
from overlay.troubles.peers import (
    AHEAD,
    CLOCK_TIME,
    ROUNDING,
    SHOWN,
    clock_ahead,
    narrow_path,
    notes_of,
    severity,
    told_too_little,
    troubles_of,
    unreached,
)
from tests.peers.examples import peer

NOW = 1000.0
TOKYO = Remote(1, peer("tokyo"), None)


def test_peer_that_is_heard_from_two_places_in_turn_is_a_trouble():
    tokyo = Remote(1, peer("tokyo"), None)
    tokyo.whereabouts.moved(("192.0.2.1", 1), ("192.0.2.1", 2), 100, NOW)

    (sentence,) = map(str, troubles_of(tokyo, None, NOW, 180))

    assert sentence.startswith("tokyo is heard from 192.0.2.1:1 and 192.0.2.1:2 in turn, 100 times")


def test_peer_in_order_has_no_troubles():
    assert troubles_of(TOKYO, HandshakeStatus(False, 0, False, None), NOW, 180) == []


def test_answers_that_are_never_confirmed_ask_for_the_preshared_keys():
    handshakes = HandshakeStatus(False, 0, False, None, unconfirmed=7, doubted_at=NOW)

    (sentence,) = map(str, troubles_of(TOKYO, handshakes, NOW + 179, 180))
    assert sentence == (
        "handshakes with tokyo fail because it used none of the 7 that this node answered, so the preshared keys "
        "differ, or the answers do not reach it: compare the preshared keys"
    )
    assert troubles_of(TOKYO, handshakes, NOW + 180, 180) == []


def test_answers_that_cannot_be_opened_ask_for_the_preshared_keys():
    handshakes = HandshakeStatus(True, 2, False, None, refused=2, doubted_at=NOW)

    assert list(map(str, troubles_of(TOKYO, handshakes, NOW, 180, "compare these"))) == [
        (
            "handshakes with tokyo fail because its answers cannot be opened (2 so far), probably because the "
            "preshared keys differ: compare these"
        )
    ]


def test_clock_that_was_set_back_is_a_trouble_with_the_time():
    handshakes = HandshakeStatus(False, 0, False, None, outdated=1, behind=26 * 3600 + 5, outdated_at=NOW)

    (sentence,) = map(str, troubles_of(TOKYO, handshakes, NOW + CLOCK_TIME - 1, 180))

    assert sentence.startswith("the clock of tokyo was set back by 1 d 2 h, so this node refuses")
    assert troubles_of(TOKYO, handshakes, NOW + CLOCK_TIME, 180) == []


@pytest.mark.parametrize("ahead", [None, -1e9, 0.0, AHEAD - 1])
def test_clock_that_is_not_ahead_is_no_trouble(ahead):
    assert clock_ahead("tokyo", ahead) is None


def test_clock_that_is_ahead_may_be_right():
    assert str(clock_ahead("tokyo", 26 * 3600 + 5)).startswith(
        "the clock of tokyo is 1 d 2 h ahead of this host's: see which is wrong"
    )


def test_one_late_initiation_is_no_trouble():
    assert (
        troubles_of(
            TOKYO, HandshakeStatus(False, 0, False, None, outdated=1, behind=20, outdated_at=NOW), NOW, 180
        )
        == []
    )


def test_notes_tell_of_few_peers_and_how_many_more_there_are():
    rows = [{"notes": []}, *({"notes": [f"note {number}"]} for number in range(SHOWN + 3))]

    notes = notes_of(rows)

    assert notes[:SHOWN] == [f"note {number}" for number in range(SHOWN)]
    assert notes[SHOWN:] == ["3 more peers have notes: `overlay status --json` shows them"]


@pytest.mark.parametrize(
    ("mtu", "path_mtu", "is_told"),
    [
        (552, 0, True),
        (552, 496, True),
        (1279, 1232, True),
        (1280, 0, False),
        (1400, 1344, False),
        (552, 1420, False),
    ],
)
def test_what_the_kernel_was_told_is_a_trouble_where_it_is_unlikely_and_no_probe_knows_more(
    mtu, path_mtu, is_told
):
    assert (told_too_little("tokyo", LearntMtu(mtu, 60.0), path_mtu) is not None) == is_told


def test_the_worse_a_state_the_more_it_calls_for_somebody():
    states = ["unreachable", "unresolved", "unconfirmed", "silent"]
    rows = [*((state, []) for state in states), ("up", ["a note"]), ("connecting", []), ("up", [])]

    assert [severity(*row) for row in rows] == [6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("state", [None, "up", "idle", "unencrypted"])
def test_peer_in_order_calls_for_nobody(state):
    assert severity(state, []) == 0


ROW = {
    "name": "tokyo",
    "state": "unreachable",
    "endpoint": "192.0.2.2:51820",
    "public_key": "key=",
    "last_handshake": None,
    "notes": [],
}


def test_peer_that_never_answered_has_a_note_with_what_to_look_at():
    assert str(unreached(ROW, "UDP")) == (
        "tokyo at 192.0.2.2:51820 has not answered a handshake for 90 s: see whether its agent runs, whether `overlay "
        "pubkey` at tokyo prints key=, whether it listens on that port, and whether firewalls on the way let UDP pass; "
        "`overlay ping tokyo` tells more"
    )


def test_peer_that_has_fallen_silent_has_the_right_keys():
    assert str(unreached(ROW | {"state": "silent", "last_handshake": 20.0}, "UDP")) == (
        "tokyo at 192.0.2.2:51820 has not answered for 15 s: see whether its agent runs, whether it listens on "
        "that port, and whether firewalls on the way let UDP pass; `overlay ping tokyo` tells more"
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"notes": ["its clock"]},
        {"endpoint": None},
        *({"state": state} for state in ("up", "idle", "connecting", None)),
    ],
)
def test_peer_that_answers_or_that_another_note_is_about_has_no_such_note(changed):
    assert unreached(ROW | changed, "UDP") is None


def test_path_that_takes_less_than_the_interface_promises_is_told_with_what_fits():
    finding = narrow_path("tokyo", 1380, 8921)

    assert (finding.name, finding.peer) == ("path_narrow", "tokyo")
    assert (
        "carries packets of at most 1380 bytes, while the interfaces of this host allow 8921"
        in finding.problem
    )
    assert "mtu = 1380" in finding.remedy


@pytest.mark.parametrize("path_mtu", [0, 1420, 1420 - ROUNDING, 9000])
def test_path_that_takes_as_much_or_is_not_known_is_not_told(path_mtu):
    assert narrow_path("tokyo", path_mtu, 1420) is None


@pytest.mark.parametrize(("refused", "kind"), [(0, "unconfirmed"), (2, "preshared_key")])
def test_preshared_keys_are_known_to_differ_only_where_an_answer_could_not_be_opened(refused, kind):
    handshakes = HandshakeStatus(False, 0, False, None, unconfirmed=7, refused=refused, doubted_at=NOW)

    assert [each.name for each in troubles_of(TOKYO, handshakes, NOW, 180)] == [kind]
