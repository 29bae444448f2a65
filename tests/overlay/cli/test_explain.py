from __future__ import annotations

import pytest

from overlay.cli.agents import read_peer
from overlay.cli.explain import why_silent
from tests.overlay.cli.fakes import peer_answer

AT = {"endpoint": "192.0.2.2:51820"}
UP = AT | {"state": "up", "last_handshake": 12.7}
UNRESOLVED = "tokyo.example.net was not resolved (Name or service not known)"


def why(way="icmp", elapsed=6.0, **fields):
    answer = read_peer("overlay0", peer_answer("tokyo", "10.244.2.0", **fields))
    return why_silent(answer, "tokyo (10.244.2.0)", way, elapsed)


@pytest.mark.parametrize("state", ["silent", "unreachable", "connecting", "unconfirmed"])
def test_no_firewall_inside_is_blamed_where_the_tunnel_is_not_up(state):
    assert why(**UP | {"state": state}) == (
        f"tokyo (10.244.2.0) does not answer; it is {state}, and its last handshake was 12 s ago: see whether its "
        "agent runs, and whether UDP reaches it at 192.0.2.2:51820"
    )


def test_a_peer_heard_meanwhile_has_a_firewall_inside():
    assert why(last_received=2.0, **UP) == (
        "tokyo (10.244.2.0) does not answer, but its tunnel works: its last message came 2 s ago; "
        "see whether its firewall drops echo requests"
    )


@pytest.mark.parametrize("last_received", [6.1, 100.0, None])
def test_of_a_peer_not_heard_meanwhile_both_may_be_true(last_received):
    sentence = why(last_received=last_received, **UP)

    assert "nothing at all came from it meanwhile: see whether its agent runs" in sentence
    assert "does not call it silent within 15 s, its firewall drops echo requests" in sentence


def test_a_name_that_does_not_resolve_is_said():
    assert why(resolve_error=UNRESOLVED) == (
        f"tokyo (10.244.2.0) does not answer: it cannot be called, because its endpoint {UNRESOLVED}"
    )
    assert why(resolve_error=UNRESOLVED, **AT).startswith(
        "there was never a handshake with tokyo: see whether its agent runs, and whether UDP reaches it at "
        f"192.0.2.2:51820, its last known address, because its endpoint {UNRESOLVED}"
    )


def test_two_ends_without_an_endpoint_cannot_meet():
    assert "none can call" in why(is_configured=False, has_own_endpoint=False)
    assert why(is_configured=False).endswith("it has no endpoint, so it must call first")


def test_what_the_agent_notes_of_the_peer_is_the_reason():
    notes = ["the clock of tokyo is 1 d 2 h behind", "do the preshared keys differ?"]

    assert why(notes=notes, **AT) == (
        "tokyo (10.244.2.0) does not answer: the clock of tokyo is 1 d 2 h behind; do the preshared keys differ?"
    )


def test_a_stranger_at_its_address_is_likely_the_peer():
    sentence = why(strangers=["other+key="], **AT)

    assert "calls with the public key other+key=, which no peer has" in sentence
    assert "see whether the public_key of tokyo is right" in sentence


def test_a_peer_never_reached_may_not_know_this_node():
    assert why(**AT).endswith("and whether it knows this node by the public key own+key=")
    assert "public key" not in why(own_public_key=None, **AT)
