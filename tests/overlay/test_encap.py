"""What all encapsulations have in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.encap import ENCAPSULATIONS, wireguard
from overlay.encap.encapsulation import Ends
from overlay.errors import PacketError
from peers.encapsulation import FACTS
from tests import packets

ENDS = st.builds(
    Ends,
    st.none() | st.integers(0, 2**24 - 1),
    st.binary(min_size=6, max_size=6),
    st.binary(min_size=6, max_size=6),
    st.booleans(),
    st.booleans(),
)
CLEAR = [each for each in ENCAPSULATIONS.values() if each.clear]


def test_the_rows_of_the_peers_file_agree_with_what_encapsulations_do():
    assert [*ENCAPSULATIONS] == [*FACTS]
    for name, each in ENCAPSULATIONS.items():
        facts, clear = each.facts, each.clear
        assert each.name == facts.name == name
        assert (each.is_encrypted, each.has_ports) == (facts.is_encrypted, facts.port is not None)
        if clear is None:
            assert facts.carries_frames
            continue
        assert bool(clear.mismatch) == (facts.identifier is not None)
        assert (clear.frames is not None) == facts.has_macs == facts.carries_frames


@pytest.mark.parametrize(
    "encapsulation", [each for each in CLEAR if each.facts.identifier], ids=lambda each: each.name
)
def test_the_largest_identifier_fits_its_header_and_no_larger_one_is_taken(encapsulation):
    largest = encapsulation.facts.identifier.largest
    packet = packets.udp(b"")

    payload = encapsulation.clear.prefix(Ends(largest))[4] + packet

    assert encapsulation.clear.strip(payload).identifier == largest
    assert encapsulation.has_identifier(largest)
    assert not encapsulation.has_identifier(largest + 1)


@pytest.mark.parametrize("name", ["wireguard", "udp", "ipip"])
def test_an_encapsulation_without_identifiers_has_none(name):
    assert ENCAPSULATIONS[name].has_identifier(None)
    assert not ENCAPSULATIONS[name].has_identifier(7)


def test_one_encapsulation_is_encrypted():
    assert [each for each in ENCAPSULATIONS.values() if each.is_encrypted] == [wireguard.ENCAPSULATION]


@pytest.mark.parametrize("encapsulation", ENCAPSULATIONS.values(), ids=ENCAPSULATIONS)
def test_overhead_holds_the_outer_ip_header(encapsulation):
    assert encapsulation.overhead(4, Ends()) >= 20
    assert encapsulation.overhead(6, Ends()) >= 40


@pytest.mark.parametrize("encapsulation", CLEAR, ids=lambda each: each.name)
@pytest.mark.parametrize("version", [4, 6])
@given(data=st.data())
def test_strip_gives_back_what_the_prefix_stands_before_and_no_padding(encapsulation, version, data):
    clear = encapsulation.clear
    packet = packets.udp(data.draw(st.binary(max_size=100)), version=version)
    padding = data.draw(st.binary(max_size=20))
    ends = data.draw(ENDS)
    prefix = clear.prefix(ends)
    payload = prefix[version] + packet
    finish = clear.finisher(ends)
    if finish is not None:
        payload = bytearray(payload)
        finish(memoryview(payload), 0)
    payload += b"" if finish is not None else padding

    start, end, identifier = clear.strip(payload)

    assert payload[start:end] == packet
    assert identifier in {None, ends.identifier} or (ends.identifier is None and not identifier)
    assert len(prefix[4]) == len(prefix[6])
    assert len(prefix[4]) % 2 == 0


@pytest.mark.parametrize("encapsulation", CLEAR, ids=lambda each: each.name)
@given(payload=st.binary(max_size=100))
def test_any_bytes_are_a_packet_inside_the_payload_or_refused(encapsulation, payload):
    try:
        start, end, _ = encapsulation.clear.strip(payload)
    except PacketError:
        return

    assert 0 <= start < end <= len(payload)
