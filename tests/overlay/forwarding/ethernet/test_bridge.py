from __future__ import annotations

import struct
import time
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import PacketError
from overlay.forwarding.ethernet.bridge import AGEING_TIME, FRESH_TIME, HOLD_TIME, Bridge, _Learnt
from overlay.link.messages import OWN
from tests.hypothesis_profiles import examples
from tests.models import SlowBridge
from tests.overlay.wire.test_frames import HOP_BY_HOP, advertisement, behind, solicitation

EVERYBODY = b"\xff" * 6
START = 1000.0
MOMENT = 2.0**-20  # between two frames: no two have been silent for the same time
ONE, TWO = 1, 2  # peers


def mac(number):
    return bytes([2, 0, 0, 0, 0, number])


def v4(text):
    return ip_address(text).packed


def frame(source, destination=EVERYBODY):
    return destination + source + b"\x88\xb5" + bytes(46)


def arp(source, address, target, *, destination=EVERYBODY, operation=1, sender=None, target_mac=bytes(6)):
    header = struct.pack("!6s6sHHHBBH", destination, source, 0x0806, 1, 0x0800, 6, 4, operation)
    return header + (sender or source) + v4(address) + target_mac + v4(target)


@pytest.fixture
def owners():
    """Whose an address is, according to the peers file; a test adds entries."""
    return {v4("10.0.0.1"): ONE, v4("10.0.0.2"): TWO, v4("10.0.0.9"): OWN}


@pytest.fixture
def bridge(owners):
    return Bridge(owners.get)


def refusal(call, *arguments):
    try:
        call(*arguments)
    except PacketError as error:
        return error.reason
    return None


# Where addresses are

macs = st.integers(1, 6).map(mac)
sources = macs | st.sampled_from([EVERYBODY, b"\x01" + bytes(5)])
events = st.one_of(
    st.tuples(st.just("tap"), sources, sources),
    st.tuples(st.just("peer"), st.sampled_from([ONE, TWO]), sources),
    st.tuples(st.just("static"), st.sampled_from([OWN, ONE, TWO]), st.lists(macs, max_size=2)),
    st.tuples(st.just("forget"), st.sampled_from([ONE, TWO])),
    st.tuples(st.just("wait"), st.sampled_from([0.5, HOLD_TIME, 100.0, AGEING_TIME])),
)


@examples(400)
@given(st.lists(events, max_size=30), st.integers(1, 3))
def test_a_bridge_does_what_its_twin_does(happened, most):
    bridge, twin, now = Bridge(lambda _: None, most), SlowBridge(most), START
    for kind, *what in happened:
        now += MOMENT
        match kind:
            case "tap":
                destination, source = what
                expected = twin.from_tap(destination, source, now)
                try:
                    assert bridge.from_tap(frame(source, destination), now) == expected
                except PacketError as error:
                    assert error.reason == expected  # noqa: PT017  either may come
            case "peer":
                owner, source = what
                assert refusal(bridge.from_peer, owner, frame(source), now) == twin.from_peer(
                    owner, source, now
                )
            case "static":
                bridge.set_static(*what, ())
                twin.set_static(*what)
            case "forget":
                bridge.forget(*what)
                twin.forget(*what)
            case "wait":
                now += what[0]
        for each in range(1, 7):
            assert bridge.locate(mac(each), now) == twin.locate(mac(each), now)
        assert [bridge.learnt(each, now) for each in (OWN, ONE, TWO)] == [
            twin.learnt(each, now) for each in (OWN, ONE, TWO)
        ]


@pytest.fixture
def crowded():
    """Return a bridge with room for three stations per port, and the owners of those that it had to forget."""
    owners = []
    return Bridge(lambda _: None, most=3, crowded=owners.append), owners


def test_one_station_too_many_costs_the_longest_silent_and_is_counted(crowded):
    bridge, owners = crowded
    for turn, number in enumerate((1, 2, 3, 1, 4)):
        bridge.from_peer(ONE, frame(mac(number)), START + turn)

    assert [bridge.locate(mac(number), START) for number in (1, 2, 3, 4)] == [ONE, None, ONE, ONE]
    assert owners == [ONE]


def test_a_station_that_was_silent_too_long_goes_without_being_counted(crowded):
    bridge, owners = crowded
    for number in (1, 2, 3):
        bridge.from_peer(ONE, frame(mac(number)), START)

    bridge.from_peer(ONE, frame(mac(4)), START + AGEING_TIME)

    assert owners == []


def test_what_is_remembered_of_others_outlives_a_station_that_comes_or_goes(crowded):
    bridge, _ = crowded
    bridge.from_peer(TWO, frame(mac(9)), START)
    bridge.from_tap(frame(mac(8), mac(9)), START)
    before = dict(bridge._of_tap), dict(bridge._of_peers)

    for number in range(1, 7):
        bridge.from_peer(ONE, frame(mac(number)), START)

    assert bridge._of_tap == before[0]
    assert bridge._of_peers.items() >= before[1].items()


def test_a_station_that_was_unknown_is_found_as_soon_as_it_speaks(bridge):
    assert bridge.from_tap(frame(mac(9), mac(1)), START) is None
    bridge.from_peer(ONE, frame(mac(1)), START)

    assert bridge.from_tap(frame(mac(9), mac(1)), START) == ONE


def test_a_smaller_bound_is_reached_by_and_by(crowded):
    bridge, owners = crowded
    for number in (1, 2, 3):
        bridge.from_peer(ONE, frame(mac(number)), START)

    bridge.set_most(1)
    bridge.from_peer(ONE, frame(mac(4)), START)
    bridge.from_peer(ONE, frame(mac(5)), START)

    assert [bridge.locate(mac(number), START) for number in (1, 2, 3, 4, 5)] == [None] * 4 + [ONE]
    assert owners == [ONE] * 4


@pytest.mark.parametrize("how", ["another took its place", "it was seen elsewhere", "its owner is gone"])
def test_who_still_holds_what_was_forgotten_finds_out_by_its_time(how):
    learnt = _Learnt(1)
    learnt.see(mac(1), ONE, None, START)
    held = learnt.find(mac(1), START)

    if how == "another took its place":
        learnt.see(mac(2), ONE, None, START)
    elif how == "it was seen elsewhere":
        learnt.see(mac(1), TWO, None, START)
    else:
        learnt.forget_all_of(ONE)

    assert START - held.seen_at >= AGEING_TIME
    assert held is not learnt.find(mac(1), START)


def test_to_forget_what_nobody_knows_is_no_matter(bridge):
    bridge.forget(TWO)
    bridge.set_static(ONE, [mac(1)], [])

    assert bridge.locate(mac(1), START) == ONE


def test_a_larger_bound_holds_at_once(crowded):
    bridge, owners = crowded
    bridge.set_most(6)

    for number in range(1, 7):
        bridge.from_peer(ONE, frame(mac(number)), START)

    assert bridge.learnt(ONE, START) == 6
    assert owners == []


def test_a_frame_for_one_station_goes_where_that_was_seen(bridge):
    bridge.from_peer(ONE, frame(mac(1)), START)

    assert bridge.from_tap(frame(mac(9), mac(1)), START) == ONE
    assert bridge.from_tap(frame(mac(9), mac(2)), START) is None
    assert bridge.from_tap(frame(mac(9), EVERYBODY), START) is None


def test_a_silent_station_is_forgotten(bridge):
    bridge.from_peer(ONE, frame(mac(1)), START)

    assert bridge.locate(mac(1), START + AGEING_TIME - 1) == ONE
    assert bridge.locate(mac(1), START + AGEING_TIME) is None


def test_a_station_that_speaks_again_after_a_long_silence_is_known_again(bridge):
    bridge.from_peer(ONE, frame(mac(1)), START)
    later = START + AGEING_TIME
    assert bridge.from_tap(frame(mac(9), mac(1)), later) is None

    bridge.from_peer(ONE, frame(mac(1)), later)

    assert bridge.from_tap(frame(mac(9), mac(1)), later) == ONE


def test_a_station_of_the_tap_is_not_sent_for(bridge):
    bridge.from_tap(frame(mac(1)), START)

    assert bridge.from_tap(frame(mac(2), mac(1)), START) == OWN


def test_a_station_that_is_seen_on_the_tap_is_there(bridge):
    bridge.from_peer(ONE, frame(mac(1)), START)
    bridge.from_tap(frame(mac(1)), START)

    assert bridge.locate(mac(1), START) == OWN


def test_a_frame_that_came_back_moves_nobody(bridge):
    bridge.from_tap(frame(mac(1)), START)

    assert refusal(bridge.from_peer, ONE, frame(mac(1)), START + HOLD_TIME * 0.9) == "frame_loop"
    assert bridge.locate(mac(1), START) == OWN
    assert refusal(bridge.from_peer, ONE, frame(mac(1)), START + HOLD_TIME) is None
    assert bridge.locate(mac(1), START + HOLD_TIME) == ONE


def test_a_static_address_never_moves(bridge):
    bridge.set_static(ONE, [mac(1)], [])

    assert refusal(bridge.from_peer, TWO, frame(mac(1)), START) == "mac"
    assert refusal(bridge.from_tap, frame(mac(1)), START) == "mac"
    assert refusal(bridge.from_peer, ONE, frame(mac(1)), START) is None
    assert bridge.locate(mac(1), START + 10 * AGEING_TIME) == ONE


def test_a_peer_cannot_crowd_out_what_is_known_of_another():
    bridge = Bridge(lambda _: None, most=3)
    bridge.from_peer(ONE, frame(mac(1)), START)
    for number in range(10, 20):
        bridge.from_peer(TWO, frame(mac(number)), START)

    assert bridge.locate(mac(1), START) == ONE
    assert bridge.learnt(TWO, START) == 3


# Reports about stations


def test_where_a_station_was_heard_and_when_is_told(bridge):
    bridge.set_static(TWO, [mac(2)], [])
    bridge.from_peer(ONE, frame(mac(1)), START)
    bridge.from_tap(frame(mac(9)), START + 5)

    later = START + 10
    assert bridge.sighted(mac(1), later) == (ONE, START)
    assert bridge.sighted(mac(9), later) == (OWN, START + 5)
    assert bridge.sighted(mac(2), later) == (TWO, None)
    assert bridge.sighted(mac(3), later) == (None, None)
    assert bridge.sighted(mac(1), START + AGEING_TIME) == (None, None)


def test_who_has_an_ip_address_is_told_as_it_said_before_the_peers_file(bridge):
    bridge.set_static(ONE, [mac(1)], [v4("10.0.0.1"), v4("10.0.0.3")])
    bridge.from_peer(ONE, arp(mac(3), "10.0.0.3", "10.0.0.9"), START)

    assert bridge.holder(v4("10.0.0.3"), START) == mac(3)
    assert bridge.holder(v4("10.0.0.1"), START) == mac(1)
    assert bridge.holder(v4("10.0.0.7"), START) is None


# Answers on behalf of a peer


def asking(target="10.0.0.1", **more):
    return arp(mac(9), "10.0.0.9", target, **more)


def test_a_request_for_an_address_of_the_peers_file_is_answered(bridge):
    bridge.set_static(ONE, [mac(1), mac(3)], [v4("10.0.0.1")])

    answer = bridge.answer(asking(), START)

    assert answer == arp(mac(1), "10.0.0.1", "10.0.0.9", destination=mac(9), operation=2, target_mac=mac(9))


def test_a_request_for_an_address_that_was_heard_is_answered_until_it_is_old(bridge):
    bridge.from_peer(ONE, arp(mac(5), "10.0.0.50", "10.0.0.77"), START)
    for seconds in (0, AGEING_TIME - 1):
        bridge.from_peer(ONE, frame(mac(5)), START + seconds)

    assert bridge.answer(asking("10.0.0.50"), START + AGEING_TIME - 1)[6:12] == mac(5)
    assert bridge.answer(asking("10.0.0.50"), START + AGEING_TIME) is None


def test_nothing_is_answered_for_a_station_that_has_been_silent(bridge):
    bridge.from_peer(ONE, arp(mac(5), "10.0.0.50", "10.0.0.77"), START)

    assert bridge.answer(asking("10.0.0.50"), START + FRESH_TIME - 1)[6:12] == mac(5)
    assert bridge.answer(asking("10.0.0.50"), START + FRESH_TIME) is None


def test_nothing_is_answered_for_a_station_that_was_heard_at_two_places(bridge):
    bridge.from_peer(ONE, arp(mac(5), "10.0.0.50", "10.0.0.77"), START)
    moved = START + 100
    bridge.from_peer(TWO, arp(mac(5), "10.0.0.50", "10.0.0.77"), moved)
    assert bridge.answer(asking("10.0.0.50"), moved) is None

    for seconds in (AGEING_TIME - 1, AGEING_TIME):
        bridge.from_peer(TWO, arp(mac(5), "10.0.0.50", "10.0.0.77"), moved + seconds)

    assert bridge.answer(asking("10.0.0.50"), moved + AGEING_TIME - 1) is None
    assert bridge.answer(asking("10.0.0.50"), moved + AGEING_TIME)[6:12] == mac(5)


def test_a_station_that_comes_back_elsewhere_after_it_was_forgotten_is_answered_for(bridge):
    bridge.from_peer(ONE, arp(mac(5), "10.0.0.50", "10.0.0.77"), START)
    later = START + AGEING_TIME
    bridge.from_peer(TWO, arp(mac(5), "10.0.0.50", "10.0.0.77"), later)

    assert bridge.answer(asking("10.0.0.50"), later)[6:12] == mac(5)


def test_an_ipv6_solicitation_is_answered_after_an_advertisement(bridge):
    bridge.from_peer(ONE, advertisement(mac=mac(5), flags=0xE0), START)

    answer = bridge.answer(solicitation(), START)

    assert answer[6:12] == mac(5)
    assert answer[14 + 40 + 4] == 0xC0, "router, solicited, no override"


UNANSWERED = {
    "nobody knows": asking("10.0.0.77"),
    "a probe": arp(mac(9), "0.0.0.0", "10.0.0.1"),
    "gratuitous": arp(mac(9), "10.0.0.1", "10.0.0.1"),
    "for one station": asking(destination=mac(1)),
    "for another": asking(sender=mac(7)),
    "an answer": asking(operation=2),
    "an own address": asking("10.0.0.9"),
    "an IPv6 probe": solicitation(source="::"),
    "no ARP": frame(mac(9)),
}


@pytest.mark.parametrize("asked", UNANSWERED.values(), ids=UNANSWERED.keys())
def test_what_must_go_its_way_is_not_answered(bridge, asked):
    bridge.set_static(ONE, [mac(1)], [v4("10.0.0.1"), v4("fd00::2")])
    bridge.set_static(OWN, [mac(9)], [v4("10.0.0.9")])

    assert bridge.answer(asked, START) is None


def test_nothing_is_answered_for_a_station_that_has_moved_or_is_silent(bridge):
    bridge.from_peer(ONE, arp(mac(5), "10.0.0.50", "10.0.0.77"), START)
    bridge.from_peer(TWO, frame(mac(5)), START)

    assert bridge.answer(asking("10.0.0.50"), START) is None


def test_who_claims_the_address_of_another_is_refused_and_nothing_is_learnt(bridge):
    bridge.set_static(ONE, [mac(1)], [v4("10.0.0.1")])
    for operation in (1, 2):
        claim = arp(mac(6), "10.0.0.1", "10.0.0.9", operation=operation)
        assert refusal(bridge.from_peer, TWO, claim, START) == "neighbour"

    assert bridge.answer(asking(), START)[6:12] == mac(1)
    assert bridge.locate(mac(6), START) is None


def test_who_claims_an_address_of_this_node_is_refused(bridge):
    assert refusal(bridge.from_peer, TWO, arp(mac(6), "10.0.0.9", "10.0.0.1"), START) == "neighbour"


def test_an_advertisement_for_an_address_of_another_is_refused(bridge, owners):
    owners[v4("fd00::2")] = ONE

    assert refusal(bridge.from_peer, TWO, advertisement(), START) == "neighbour"
    assert refusal(bridge.from_peer, ONE, advertisement(), START) is None


CLAIM = arp(mac(6), "10.0.0.1", "10.0.0.9", operation=2)
UNUSUAL = {
    "hardware type 6": CLAIM[:15] + b"\6" + CLAIM[16:],
    "a tag of VLAN 0": CLAIM[:12] + b"\x81\0\0\0" + CLAIM[12:],
    "four tags": CLAIM[:12] + b"\x81\0\0\0" * 4 + CLAIM[12:],
    "behind an extension header": behind(advertisement(mac=mac(6)), (0, HOP_BY_HOP)),
    "a solicitation that names its sender": solicitation(source="fd00::2", options=b"\1\1" + mac(6)),
}


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("claim", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_an_unusual_claim_to_the_address_of_another_is_refused_too(bridge, owners, claim, is_known):
    owners[v4("fd00::2")] = ONE
    if is_known:
        bridge.from_peer(TWO, frame(claim[6:12]), START)

    assert refusal(bridge.from_peer, TWO, claim, START) == "neighbour"


def test_who_speaks_for_another_station_is_not_believed(bridge):
    for number in (5, 6):
        bridge.from_peer(ONE, frame(mac(number)), START)
    bridge.from_peer(ONE, arp(mac(5), "10.0.0.50", "10.0.0.77", sender=mac(6)), START)

    assert bridge.answer(asking("10.0.0.50"), START) is None


def test_what_a_station_of_the_tap_claims_of_a_peer_is_not_believed(bridge):
    bridge.set_static(ONE, [mac(1)], [v4("10.0.0.1")])
    bridge.from_tap(arp(mac(8), "10.0.0.1", "10.0.0.77"), START)

    assert bridge.answer(asking(), START)[6:12] == mac(1)


def test_the_longest_silent_is_forgotten_first():
    bridge = Bridge(lambda _: None, most=2)
    for turn, number in enumerate((1, 2, 1, 3)):
        bridge.from_peer(ONE, frame(mac(number)), START + turn)

    assert [bridge.locate(mac(number), START) for number in (1, 2, 3)] == [ONE, None, ONE]


def test_an_address_that_went_to_the_tap_is_not_answered_for(bridge):
    bridge.from_peer(ONE, arp(mac(5), "10.0.0.50", "10.0.0.77"), START)
    bridge.from_tap(arp(mac(8), "10.0.0.50", "10.0.0.77"), START)

    assert bridge.answer(asking("10.0.0.50"), START) is None


def test_a_removed_peer_is_forgotten(bridge):
    bridge.set_static(ONE, [mac(1)], [v4("10.0.0.1")])
    bridge.from_peer(ONE, arp(mac(5), "10.0.0.50", "10.0.0.77"), START)

    bridge.forget(ONE)

    assert [bridge.answer(asking(each), START) for each in ("10.0.0.1", "10.0.0.50")] == [None, None]
    assert [bridge.locate(mac(each), START) for each in (1, 5)] == [None, None]


def test_an_address_that_goes_from_peer_to_peer_is_the_last_one_s_until_that_loses_it(bridge):
    for owner, number in ((ONE, 1), (TWO, 2)):
        bridge.set_static(owner, [mac(number)], [v4("10.0.0.1")])
    bridge.set_static(ONE, [mac(1)], [])
    answer = bridge.answer(asking(), START)
    bridge.set_static(TWO, [mac(2)], [])
    bridge.forget(ONE)

    assert answer[6:12] == mac(2)
    assert bridge.answer(asking(), START) is None


def test_ten_thousand_peers_are_told_in_a_moment():
    bridge, begin = Bridge(lambda _: None), time.process_time()
    for _ in range(2):
        for number in range(1, 10_001):
            bridge.set_static(
                number, [bytes([2, 0]) + number.to_bytes(4, "big")], [number.to_bytes(4, "big")]
            )

    assert time.process_time() - begin < 2


def test_what_two_peers_give_up_one_after_the_other_is_nobody_s(bridge):
    for owner in (ONE, TWO):
        bridge.set_static(owner, [mac(1)], [v4("10.0.0.1")])
    bridge.forget(TWO)
    bridge.forget(ONE)

    assert bridge.locate(mac(1), START) is None


def test_what_the_peers_file_and_a_station_say_differently_is_asked_of_the_station(bridge):
    """Before, an address that a reload gave to another device, and that was not there yet, was answered wrongly for
    minutes.
    """
    bridge.set_static(ONE, [mac(1)], [v4("10.0.0.1")])
    bridge.from_peer(ONE, arp(mac(1), "10.0.0.1", "10.0.0.9", operation=2), START)
    asked = arp(mac(9), "10.0.0.9", "10.0.0.1")
    bridge.from_tap(asked, START)
    assert bridge.answer(asked, START) is not None

    bridge.set_static(ONE, [mac(2)], [v4("10.0.0.1")])
    bridge.from_peer(ONE, frame(mac(1), mac(9)), START + 1)

    assert bridge.answer(asked, START + 2) is None
