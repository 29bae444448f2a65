from __future__ import annotations

from ipaddress import ip_address

import pytest

from overlay.cli.agents import read_peer
from overlay.cli.echo import EchoError
from overlay.cli.unanswered import Unanswered, silence, why_no_echo
from overlay.wire.icmp_errors import IcmpError
from tests.overlay.cli.fakes import peer_answer

AT = {"endpoint": "192.0.2.2:51820"}
UP = AT | {"state": "up", "last_handshake": 12.7}
IN_THE_CLEAR = {"endpoint": "192.0.2.2", "state": "unencrypted", "carried_by": "IP protocol 47"}
UNRESOLVED = "tokyo.example.net was not resolved (Name or service not known)"


def why(way="icmp", elapsed=6.0, error=None, proof=None, is_peer_asked=False, **fields):
    answer = read_peer("overlay0", peer_answer("tokyo", "10.244.2.0", **fields))
    name = "tokyo (10.244.2.0)" if answer.asked_behind is None else f"{answer.asked_behind} behind tokyo"
    return str(silence(answer, Unanswered(name, way, elapsed, error, proof, is_peer_asked)))


def says(sender, *numbers):
    return EchoError(1, ip_address(sender), IcmpError(*numbers))


@pytest.mark.parametrize("state", ["silent", "unreachable", "connecting", "unconfirmed"])
def test_no_firewall_inside_is_blamed_where_the_tunnel_is_not_up(state):
    assert why(**UP | {"state": state}) == (
        f"tokyo (10.244.2.0) does not answer; tokyo is {state}, and its last handshake was 12 s ago: see whether its "
        "agent runs, and whether UDP reaches it at 192.0.2.2:51820, and whether the public keys are right: `overlay "
        "pubkey` at tokyo must print tokyo+key=, and its peers file must have own+key= for paris"
    )


def test_a_peer_heard_meanwhile_has_a_firewall_inside():
    assert why(last_received=2.0, **UP) == (
        "tokyo (10.244.2.0) does not answer, but its tunnel works: the last message of tokyo came 2 s ago; "
        "see whether its firewall drops echo requests, and whether it really has that address"
    )


def test_an_address_that_no_route_leads_to_is_not_to_be_written_again():
    """Before, the remedy for ``overlay ping 10.9.0.2`` was to write an address."""
    bare = {"is_bare": True, "own": []}
    by_name = why_no_echo(read_peer("wg0", peer_answer("tokyo", **bare)), is_asked_for=False)
    asked = read_peer("wg0", peer_answer("tokyo", **bare, asked_address="10.9.0.2"))
    by_address = why_no_echo(asked, is_asked_for=False)

    assert by_name.endswith("write an address in place of its name, such as `overlay ping 10.7.0.1`")
    assert by_address.startswith("no route of this host leads to 10.9.0.2 by this interface")
    assert "write an address" not in by_address


SERVER = {"service": "web", "server": "tokyo", "addresses": ["192.0.2.100"]}


def test_a_server_without_an_agent_need_not_answer_at_its_own_address():
    server = SERVER | {"state": "up", "reason": "", "is_checked": False}

    assert why(is_agent=False, services=[server], **IN_THE_CLEAR).startswith(
        "tokyo (10.244.2.0) does not answer, as is usual for a server without an agent"
    )


def test_a_server_without_an_agent_whose_checks_fail_may_lack_the_virtual_address():
    server = SERVER | {"state": "down", "reason": "no answer within 3 s", "is_checked": True}

    sentence = why(is_agent=False, services=[server], **IN_THE_CLEAR)

    assert sentence.startswith(
        "tokyo does not take packets for 192.0.2.100 of services.web through its tunnel; the last check found: no answer "
        "within 3 s: see whether tokyo is up, has 192.0.2.100 on a device (`ip address show to 192.0.2.100`)"
    )
    assert "a route leads back to 10.244.1.0" in sentence


def test_a_server_without_an_agent_that_refuses_has_the_virtual_address():
    server = SERVER | {"state": "down", "reason": "Connection refused", "is_checked": True}

    assert why(is_agent=False, services=[server], **IN_THE_CLEAR).endswith(
        "tokyo has that address, but nothing listens there: start the program, or have it listen at 192.0.2.100"
    )


def test_where_wg_configures_the_interface_no_peers_file_is_blamed():
    bare = {"is_bare": True, "has_own_endpoint": False}

    assert why(is_configured=False, **bare) == (
        "tokyo (10.244.2.0) does not answer: it has no endpoint, so it has to connect first, or to be given one by "
        "`wg set`"
    )
    assert why(**AT, **bare).endswith("must print tokyo+key= as its own public key, and own+key= as a peer's")


def test_a_peer_whose_packets_have_foreign_sources_has_another_peers_file():
    assert why(last_received=2.0, foreign=3, **UP) == (
        "tokyo (10.244.2.0) does not answer, but its tunnel works; 3 packets of it were dropped so far, with sources that "
        "are not in its subnets in the peers file here (source): compare address, subnets and public_key of tokyo in the "
        "peers files of both hosts, and see whether a host behind it has another address: `overlay capture tokyo "
        "--dropped source` shows the packets"
    )


@pytest.mark.parametrize("state", ["up", "idle", "unencrypted"])
def test_a_forwarder_that_hangs_is_named_and_the_peer_is_not_blamed(state):
    sentence = why(
        **UP | {"state": state}, forwarder_note="the forwarder (process 7) did not report its counters"
    )

    assert sentence == (
        "tokyo (10.244.2.0) does not answer, and it may not have been asked: the forwarder (process 7) did not report "
        "its counters"
    )


def test_a_peer_that_answers_otherwise_has_its_say_whatever_the_forwarder_counts():
    assert "its tunnel works" in why(proof="tokyo answers in-band pings", forwarder_note="hung", **UP)


HANDSHAKE = "tokyo (10.244.2.0) does not answer; the last handshake of tokyo was 12 s ago"


@pytest.mark.parametrize(
    ("last_received", "heard"),
    [(15.0, "its last message came 15 s ago"), (None, "no message has come from it")],
)
def test_of_a_peer_not_heard_for_long_the_way_is_to_be_looked_at_first(last_received, heard):
    assert why(last_received=last_received, **UP) == (
        f"{HANDSHAKE}, and {heard}: see whether its agent runs, and whether UDP reaches it at 192.0.2.2:51820, or, if "
        "`overlay status` does not call tokyo silent after 15 s, whether its firewall drops echo requests"
    )


def test_of_a_peer_heard_just_before_the_firewall_inside_is_to_be_looked_at_first():
    assert why(last_received=8.0, **UP) == (
        f"{HANDSHAKE}, and its last message came 8 s ago, before these requests: see whether its firewall drops echo "
        "requests, and, if `overlay status` calls tokyo silent after 15 s, whether its agent runs, and whether UDP "
        "reaches it at 192.0.2.2:51820"
    )


def test_a_peer_that_answers_otherwise_has_a_firewall_inside():
    assert why(proof="tokyo answers in-band pings", **UP) == (
        "tokyo (10.244.2.0) does not answer, but its tunnel works: tokyo answers in-band pings; see whether its "
        "firewall drops echo requests, and whether it really has that address"
    )


# Behind a peer

BEHIND = {"asked_address": "10.244.2.77"}
LOOK_BEHIND = "see whether 10.244.2.77 is up, accepts echo requests, and has a route to 10.244.1.0 by tokyo, and whether tokyo forwards to it"


@pytest.mark.parametrize("proof", ["tokyo answers in-band pings", "tokyo itself answers at 10.244.2.0"])
def test_an_address_behind_a_peer_that_answers_is_what_to_look_at(proof):
    assert why(proof=proof, is_peer_asked=True, last_received=8.0, **UP, **BEHIND) == (
        f"10.244.2.77 behind tokyo does not answer, but the tunnel to tokyo works: {proof}; {LOOK_BEHIND}"
    )


def test_an_address_behind_a_peer_that_was_heard_meanwhile_is_what_to_look_at():
    assert why(last_received=2.0, **UP, **BEHIND) == (
        "10.244.2.77 behind tokyo does not answer, but the tunnel to tokyo works: the last message of tokyo came 2 s "
        f"ago; {LOOK_BEHIND}"
    )


@pytest.mark.parametrize("last_received", [8.0, 100.0])
def test_if_the_peer_does_not_answer_either_that_is_reported(last_received):
    sentence = why(is_peer_asked=True, last_received=last_received, **UP, **BEHIND)

    assert sentence.startswith(
        "10.244.2.77 behind tokyo does not answer, nor does tokyo itself; the last handshake of"
    )
    assert "firewall" not in sentence


# ICMP errors


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            says("10.244.2.0", 4, 3, 1),
            'tokyo (10.244.2.0) says "host unreachable"; see whether 10.244.2.77 is up and attached to the link on which that host looks for it',
        ),
        (
            says("10.9.0.1", 4, 3, 0),
            '10.9.0.1 says "network unreachable"; check the routes of that host',
        ),
        (
            says("10.244.2.77", 4, 3, 3),
            '10.244.2.77 says "port unreachable"; see whether a packet filter or a route of that host is meant to reject echo requests',
        ),
        (
            says("10.9.0.1", 4, 3, 4, 576),
            '10.9.0.1 says "packet too big, at most 576 bytes pass"; see the MTU of the links behind it',
        ),
        (
            says("10.9.0.1", 4, 11, 0),
            '10.9.0.1 says "time exceeded"; see with `traceroute` whether routers send it in a circle',
        ),
        (
            says("10.9.0.1", 4, 12, 0),
            '10.9.0.1 says "parameter problem"; check the configuration of that host',
        ),
    ],
)
def test_an_error_that_came_back_is_the_reason_and_no_firewall_is_blamed(error, words):
    assert why(error=error, **UP, **BEHIND) == f"10.244.2.77 behind tokyo does not answer: {words}"


@pytest.mark.parametrize("state", [UP, IN_THE_CLEAR])
def test_an_error_from_inside_the_tunnel_shows_that_it_works(state):
    answer = read_peer(
        "overlay0", peer_answer("tokyo", "10.244.2.0", last_received=2.0, is_agent=False, **state)
    )
    error = says("10.244.2.1", 4, 3, 1)

    heard = silence(answer, Unanswered("tokyo", "icmp", 6.0, error))
    not_heard_since = silence(answer, Unanswered("tokyo", "icmp", 1.0, error))

    assert (heard.name, heard.problem) == ("echo_ignored", "tokyo does not answer, but its tunnel works")
    assert heard.remedy.startswith(
        '10.244.2.1 says "host unreachable" through it; write an address that tokyo has'
    )
    assert not_heard_since.name == "silent"


def test_an_agent_s_host_that_refuses_its_own_address_is_looked_at():
    sentence = why(error=says("10.244.2.1", 4, 3, 1), last_received=2.0, **UP)

    assert sentence.startswith("tokyo (10.244.2.0) does not answer, but its tunnel works: 10.244.2.1 says")
    assert "see whether 10.244.2.0 is up" not in sentence


# What is unknown


def test_a_name_that_does_not_resolve_is_reported():
    assert why(resolve_error=UNRESOLVED) == (
        f"tokyo (10.244.2.0) does not answer: it cannot be reached, because its endpoint {UNRESOLVED}"
    )
    assert why(resolve_error=UNRESOLVED, **AT).startswith(
        "no handshake with tokyo yet: see whether its agent runs, and whether UDP reaches it at "
        f"192.0.2.2:51820, its last known address, because its endpoint {UNRESOLVED}"
    )


def test_two_ends_without_an_endpoint_cannot_meet():
    assert "neither can connect" in why(is_configured=False, has_own_endpoint=False)
    assert why(is_configured=False).endswith("it has no endpoint, so it has to connect first")


def test_what_the_agent_notes_of_the_peer_is_the_reason():
    notes = ["the clock of tokyo is 1 d 2 h behind", "do the preshared keys differ?"]

    assert why(notes=notes, **AT) == (
        "tokyo (10.244.2.0) does not answer: the clock of tokyo is 1 d 2 h behind; do the preshared keys differ?"
    )


def test_a_stranger_at_its_address_is_likely_the_peer():
    sentence = why(strangers=["other+key="], **AT)

    assert "use the public key other+key=, which no peer has" in sentence
    assert (
        "see whether `overlay pubkey` at tokyo prints that key; the peers file here has tokyo+key="
        in sentence
    )


def test_for_a_peer_never_reached_the_keys_of_both_ends_are_named():
    assert why(**AT) == (
        "no handshake with tokyo yet: see whether its agent runs, and whether UDP reaches it at "
        "192.0.2.2:51820, and whether the public keys are right: `overlay pubkey` at tokyo must print tokyo+key=, and "
        "its peers file must have own+key= for paris"
    )
    assert "public key" not in why(own_public_key=None, **AT)


# Unencrypted


def test_what_has_to_pass_is_named_and_the_number_that_both_ends_share():
    assert why(identified_by="the GRE key 7", **IN_THE_CLEAR) == (
        "tokyo (10.244.2.0) does not answer; the tunnel is not encrypted, so there are no handshakes to judge by, and no "
        "packet has come from it: see whether its end of the tunnel is up, and whether IP protocol 47 reaches it at "
        "192.0.2.2 with the GRE key 7"
    )


def test_packets_of_another_tunnel_are_the_reason_to_compare_the_number():
    assert why(identified_by="the GRE key 7", mismatched=3, **IN_THE_CLEAR) == (
        "tokyo (10.244.2.0) does not answer; 3 packets from its endpoint did not have the GRE key 7: configure "
        "the same at both ends of the tunnel"
    )


def test_a_tunnel_in_the_clear_by_which_packets_come_may_be_one_way():
    sentence = why(last_received=2.0, **IN_THE_CLEAR)

    assert "does not answer, though its last packet came 2 s ago: none if tokyo only sends" in sentence
    assert "its last packet came 1 min 40 s ago: see whether" in why(last_received=100.0, **IN_THE_CLEAR)
