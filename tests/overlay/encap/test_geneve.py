from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.encap.encapsulation import Ends
from overlay.encap.geneve import ENCAPSULATION, find, header
from overlay.errors import PacketError
from tests import packets

VECTORS = tomllib.loads(Path(__file__).parents[2].joinpath("vectors", "geneve.toml").read_text())
TAKEN = {name: each for name, each in VECTORS.items() if "vni" in each}
REFUSED = {name: each for name, each in VECTORS.items() if "refused" in each}
TO, BY = bytes.fromhex("02000000000a"), bytes.fromhex("02000000000b")
KINDS = {4: b"\x08\x00", 6: b"\x86\xdd"}
PLAIN = bytes.fromhex(VECTORS["plain"]["header"])


def outside(vector):
    return bytes.fromhex(vector["header"]) + bytes.fromhex(vector["options"]) * vector.get("repeated", 1)


def payload_of(vector, packet):
    return outside(vector) + TO + BY + KINDS[packet[0] >> 4] + packet


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", TAKEN)
def test_packet_is_found_behind_header_options_and_frame(name, version):
    packet = packets.udp(b"hello", version=version)
    payload = payload_of(VECTORS[name], packet)

    start, end, vni = ENCAPSULATION.clear.strip(payload)

    assert (payload[start:end], vni) == (packet, VECTORS[name]["vni"])
    ENCAPSULATION.clear.frames.admit(payload, Ends(vni, own_mac=TO))
    with pytest.raises(PacketError, match="mac"):
        ENCAPSULATION.clear.frames.admit(payload, Ends(vni, own_mac=BY))


@pytest.mark.parametrize("name", REFUSED)
def test_what_must_not_be_taken_is_refused_by_its_reason(name):
    with pytest.raises(PacketError) as raised:
        ENCAPSULATION.clear.strip(payload_of(VECTORS[name], packets.udp(b"hello")))

    assert raised.value.reason == VECTORS[name]["refused"]


@pytest.mark.parametrize("name", TAKEN)
def test_anything_too_short_for_header_options_and_frame_is_refused(name):
    whole = outside(VECTORS[name]) + TO + BY + b"\x08\x00"

    assert find(whole) == (len(whole) - 14, VECTORS[name]["vni"])
    for size in range(len(whole)):
        with pytest.raises(PacketError) as raised:
            find(whole[:size])
        assert raised.value.reason == "geneve_short"


def test_what_is_sent_is_the_plain_header_and_a_frame():
    ends = Ends(1234567, own_mac=BY, mac=TO)

    assert header(ends) == PLAIN
    assert ENCAPSULATION.clear.prefix(ends) == {
        version: PLAIN + TO + BY + kind for version, kind in KINDS.items()
    }
    assert [ENCAPSULATION.overhead(version, ends) for version in (4, 6)] == [50, 70]


@given(st.binary(max_size=300) | st.builds(lambda rest: b"\2\0\x65\x58" + rest, st.binary(max_size=120)))
def test_any_bytes_hold_a_frame_inside_the_payload_or_are_refused(payload):
    try:
        start, vni = find(payload)
    except PacketError:
        return

    assert start + 14 <= len(payload)
    assert 0 <= vni < 2**24
