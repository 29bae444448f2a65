from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.cli.agents import read_peer
from overlay.cli.refused import IcmpRefusals
from tests.overlay.cli.fakes import peer_answer

# RFC 792: type, code, checksum, four bytes; the header of the datagram, and eight bytes of UDP
QUOTED = bytes.fromhex("4500007c 00004000 4011 0000 c0000201 c0000202 ca6c ca6c 0068 0000".replace(" ", ""))
OUTER = bytes.fromhex("450000380000000040010000c0000202c0000201")
QUOTED_V6 = bytes.fromhex("60000000 0068 11 40".replace(" ", "")) + (
    ip_address("2001:db8::1").packed + ip_address("2001:db8::2").packed + bytes.fromhex("ca6cca6c00680000")
)


def error(kind, code, quoted=QUOTED):
    return bytes([kind, code, 0, 0, 0, 0, 0, 0]) + quoted


def heard(message, version=4, sender="192.0.2.2", **fields):
    refusals = IcmpRefusals(sockets=[])
    refusals.take(OUTER + message if version == 4 else message, version, sender)
    fields = {"endpoint": "192.0.2.2:51820"} | fields
    return refusals.explain(read_peer("overlay0", peer_answer("tokyo", **fields)))


@pytest.mark.parametrize(
    ("kind", "code", "name", "says"),
    [
        (3, 3, "port_closed", "start the agent of tokyo"),
        (3, 13, "peer_filtered", "let UDP pass in the packet filter of 192.0.2.2"),
        (3, 1, "host_absent", "see whether the host of tokyo is up"),
        (3, 0, "way_lost", "correct the routes of 192.0.2.2"),
        (11, 0, "way_lost", "correct the routes"),
        (3, 5, "peer_filtered", "see the configuration of 192.0.2.2"),
    ],
)
def test_report_of_a_host_about_a_datagram_is_shown_with_the_remedy(kind, code, name, says):
    finding = heard(error(kind, code))

    assert (finding.name, finding.peer) == (name, "tokyo")
    assert "for datagrams to 192.0.2.2:51820" in finding.problem
    assert says in finding.remedy


@pytest.mark.parametrize("code", [0, 1, 3])
def test_where_wg_quick_configures_the_interface_no_remedy_is_in_a_peers_file(code):
    finding = heard(error(3, code), is_bare=True)

    assert "with `wg set`" in finding.remedy
    assert "peers file" not in finding.remedy


def test_of_ipv6_too():
    finding = heard(error(1, 4, QUOTED_V6), 6, "2001:db8::2", endpoint="[2001:db8::2]:51820")

    assert finding.name == "port_closed"
    assert '2001:db8::2 reports "port unreachable"' in finding.problem


def test_of_a_protocol_without_ports_too():
    gre = QUOTED[:9] + bytes([47]) + QUOTED[10:]

    def found(kind, code, **fields):
        fields = {"endpoint": "192.0.2.2", "carried_by": "IP protocol 47", "last_received": None} | fields
        return heard(error(kind, code, gre), **fields)

    for code in (2, 3):  # Linux without any tunnel of the protocol, and with other ones
        assert found(3, code).name == "tunnel_absent"
        assert found(3, code, last_received=60.0).name == "tunnel_one_way"
    assert "set up the tunnel on the host of tokyo, write the encapsulation" in found(3, 2).remedy
    assert "if that differs, or let IP protocol 47 in" in found(3, 2).remedy
    assert "none if tokyo only sends, as a director of LVS does" in found(3, 2, last_received=1.0).remedy
    assert found(3, 13).name == "peer_filtered"
    assert heard(error(3, 2, gre), sender="192.0.2.9", endpoint="192.0.2.2").name == "peer_filtered"


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (error(3, 3), {"endpoint": "192.0.2.3:51820"}),
        (error(3, 3), {"endpoint": "192.0.2.2:51821"}),
        (error(3, 3), {"endpoint": None}),
        (error(3, 4), {}),  # too big: a matter of the path
        (error(8, 0), {}),
    ],
)
def test_what_is_about_others_tells_nothing(message, fields):
    assert heard(message, **fields) is None


@given(st.binary(max_size=80), st.sampled_from([4, 6]))
def test_any_bytes_are_taken(message, version):
    IcmpRefusals(sockets=[]).take(message, version, "192.0.2.9")
