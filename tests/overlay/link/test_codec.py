from __future__ import annotations

import dataclasses
import tracemalloc

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overlay.encap.encapsulation import Ends
from overlay.errors import PacketError
from overlay.forwarding.counters import PEERS_PER_MESSAGE
from overlay.link import codec
from overlay.link import messages as link
from overlay.link import service_messages as sm
from overlay.reasons import REASONS
from overlay.session.outputs import Forget, GiveUp, InstallKeypair, Transmit, Wipe
from overlay.wire.bounds import ROWS
from tests.hypothesis_profiles import examples
from tests.refusals import refused

number = st.integers(0, 2**63 - 1)
small = st.integers(0, 2**31)
text = st.text(max_size=20)
port = st.integers(0, 65535)
u32 = st.integers(0, 2**32 - 1)
seconds = st.floats(0, 2**40, exclude_max=True)
some_bytes = st.binary(max_size=40)
datagram = st.sampled_from([148, 92, 64]).flatmap(lambda size: st.binary(min_size=size, max_size=size))
v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6)
endpoint = st.tuples(v4.map(str), port) | st.tuples(v6.map(str), port, u32, u32)
prefix = st.tuples(v4.map(lambda a: a.packed), st.integers(0, 32)) | st.tuples(
    v6.map(lambda a: a.packed), st.integers(0, 128)
)
address = (v4 | v6).map(lambda a: a.packed)
counts = st.dictionaries(st.sampled_from(sorted(REASONS)), number, max_size=4)
notes = st.lists(text.filter(str.isprintable), max_size=4)
key = st.binary(min_size=32, max_size=32)
mac = st.binary(min_size=6, max_size=6)
peer_counters = st.builds(
    link.PeerCounters, number, st.none() | endpoint, number, number, number, number, seconds, counts
)

flow_key = st.sampled_from([12, 13, 36, 37]).flatmap(lambda size: st.binary(min_size=size, max_size=size))
u8, u16 = st.integers(0, 255), st.integers(0, 65535)
name = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
ports = st.lists(st.tuples(u16, u16), max_size=3)
server_row = st.builds(sm.ServerRow, number, name, number, u16, u8, u8, number, number)
MESSAGES = {
    link.Start: st.builds(
        link.Start,
        key,
        st.integers(576, 65535),
        st.booleans(),
        st.booleans(),
        st.lists(seconds, min_size=10, max_size=10),
    ),
    link.Sockets: st.builds(
        link.Sockets,
        text,
        st.lists(
            st.builds(link.SocketRow, st.sampled_from([2, 10]), port, st.integers(0, 4), st.integers(0, 255))
        ),
    ),
    link.SetNode: st.builds(
        link.SetNode, st.integers(576, 65535), st.booleans(), st.lists(address, max_size=4)
    ),
    link.SetPeer: st.builds(
        link.SetPeer,
        number,
        seconds,
        text,
        st.lists(prefix, max_size=3),
        st.builds(Ends, st.none() | u32, mac, mac, st.booleans(), st.booleans()),
        st.lists(mac, max_size=3),
        st.lists(address, max_size=3),
    ),
    link.RemovePeer: st.builds(link.RemovePeer, number),
    link.SetEndpoint: st.builds(link.SetEndpoint, number, endpoint, text),
    link.Routes: st.builds(
        link.Routes,
        st.lists(st.tuples(prefix, number).map(lambda row: (*row[0], row[1])), max_size=5),
        st.lists(prefix, max_size=5),
        st.booleans(),
    ),
    link.Begin: st.builds(link.Begin),
    link.Handled: st.builds(link.Handled, number),
    link.RenewSources: st.builds(link.RenewSources, st.booleans()),
    link.AskCounters: st.builds(link.AskCounters, number, st.lists(number, max_size=5)),
    link.PingPeer: st.builds(link.PingPeer, number, number),
    link.AskStation: st.builds(link.AskStation, number, st.none() | mac, st.none() | address),
    link.SetIdentity: st.builds(link.SetIdentity, st.binary(min_size=32, max_size=32)),
    link.BeginCapture: st.builds(link.BeginCapture, number, st.integers(1, 1 << 18)),
    link.EndCapture: st.builds(link.EndCapture, number),
    link.TellSender: st.builds(link.TellSender, st.binary(min_size=28, max_size=576)),
    link.SendControl: st.builds(
        link.SendControl, st.lists(number, max_size=5), st.binary(min_size=1, max_size=1200)
    ),
    sm.SetService: st.builds(
        sm.SetService,
        number,
        name,
        st.lists(address, max_size=3),
        st.lists(u8, max_size=3),
        ports,
        name,
        seconds,
        st.integers(0, 32),
        st.integers(0, 128),
        st.booleans(),
        st.tuples(*[seconds] * 3).map(list),
        st.tuples(*[number] * 3).map(list),
    ),
    sm.SetServers: st.builds(
        sm.SetServers,
        number,
        st.lists(server_row, max_size=3),
        st.lists(server_row, max_size=1),
        st.booleans(),
        st.lists(st.tuples(number, st.lists(u16, max_size=3)), max_size=4),
    ),
    sm.RemoveService: st.builds(sm.RemoveService, number),
    sm.SetPermits: st.builds(
        sm.SetPermits,
        st.lists(
            st.builds(
                sm.PermitRow,
                address,
                st.booleans(),
                st.lists(number, max_size=3),
                st.lists(u8, max_size=3),
                ports,
                st.booleans(),
            ),
            max_size=3,
        ),
    ),
    sm.Pin: st.builds(
        sm.Pin,
        number,
        st.lists(st.tuples(flow_key, number, number), max_size=4),
        st.lists(flow_key, max_size=4),
    ),
    sm.AskServices: st.builds(sm.AskServices, number),
    sm.AskFlows: st.builds(
        sm.AskFlows,
        number,
        number,
        number,
        number,
        st.builds(
            sm.FlowFilter,
            st.none() | address,
            u8,
            st.none() | number,
            st.none() | u8,
            st.none() | u16,
            st.lists(u8, max_size=3),
        ),
    ),
    sm.Pinned: st.builds(sm.Pinned, number, st.lists(number, max_size=4)),
    sm.ServiceCounters: st.builds(
        sm.ServiceCounters,
        number,
        seconds,
        st.lists(st.builds(sm.ServerCounters, *[number] * 7), max_size=3),
        st.lists(st.builds(sm.ServiceTotals, *[number] * 4, counts), max_size=3),
        counts,
        st.booleans(),
    ),
    sm.Flows: st.builds(
        sm.Flows,
        number,
        st.lists(
            st.builds(sm.FlowRow, u8, address, u16, address, u16, u8, st.none() | number, seconds, seconds),
            max_size=3,
        ),
        st.booleans(),
        st.none() | number,
    ),
    Transmit: st.builds(Transmit, number, datagram, st.none() | endpoint, st.booleans()),
    InstallKeypair: st.builds(
        InstallKeypair, number, u32, u32, key, key, st.booleans(), seconds, seconds, endpoint
    ),
    Wipe: st.builds(Wipe, number),
    Forget: st.builds(Forget, number, st.lists(u32, max_size=16)),
    GiveUp: st.builds(GiveUp, number),
    link.Ready: st.builds(link.Ready, notes),
    link.Handshake: st.builds(link.Handshake, datagram, endpoint),
    link.SessionWanted: st.builds(link.SessionWanted, number, st.booleans()),
    link.Confirmed: st.builds(link.Confirmed, number, u32),
    link.Retired: st.builds(link.Retired, u32),
    link.Moved: st.builds(link.Moved, number, endpoint, number, st.none() | endpoint),
    link.Silence: st.builds(link.Silence, number, st.booleans()),
    link.Ponged: st.builds(link.Ponged, number, number, st.none() | seconds),
    link.Station: st.builds(link.Station, number, st.none() | mac, st.none() | number, st.none() | seconds),
    link.ControlReceived: st.builds(link.ControlReceived, number, st.binary(min_size=1, max_size=1200)),
    link.Counters: st.builds(
        link.Counters, number, st.lists(peer_counters, max_size=3), counts, st.booleans()
    ),
}
anything = st.one_of(*MESSAGES.values())


def test_every_message_is_tested():
    assert set(MESSAGES) == set(codec.MESSAGES)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_a_message_reads_back_equal(kind):
    @examples(40)
    @given(MESSAGES[kind])
    def check(message):
        assert codec.decode(codec.encode(message)) == message

    check()


@examples(300)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\x81\x90\xc0")  # a map whose key is a list
@example(b"\x92\x01" + b"\x91" * 2000 + b"\xc0")
@example(b"\xc7\x00\x05")
@example(msgpack.packb(msgpack.Timestamp(1)))
def test_any_bytes_give_a_message_or_the_one_error(data):
    read(data)


def read(data):
    """Return the message in *data* or None; any error but PacketError fails the test."""
    try:
        return codec.decode(data)
    except PacketError as error:
        if error.reason != "link":
            raise
        return None


@examples(300)
@given(anything, st.data())
def test_a_damaged_message_gives_a_message_or_the_one_error(message, data):
    damaged = bytearray(codec.encode(message))
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] ^= data.draw(st.integers(1, 255))

    read(bytes(damaged))
    read(bytes(damaged[:at]))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | text | some_bytes,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@examples(1000)
@given(st.integers(-1, len(codec.MESSAGES)), st.lists(values, max_size=9))
def test_any_fields_give_a_message_that_can_be_sent_on_or_the_one_error(kind, fields):
    message = read(msgpack.packb([kind, *fields]))

    assert message is None or read(codec.encode(message)) is not None


@examples(1000)
@given(anything, st.data())
def test_a_field_of_another_type_is_refused(message, data):
    parts = msgpack.unpackb(codec.encode(message), strict_map_key=False)
    if len(parts) == 1:
        return
    first = 2 if type(message) in {link.Start, link.Ready} else 1  # their version stands before the fields
    at = data.draw(st.integers(first, len(parts) - 1))
    parts[at] = data.draw(values)

    changed = read(msgpack.packb(parts))

    if changed is not None:
        name = dataclasses.fields(message)[at - first].name
        assert is_alike(getattr(changed, name), getattr(message, name))


def is_alike(value, other):
    if value is None or other is None:
        return True
    numbers = {int, float}
    return type(value) is type(other) or {type(value), type(other)} == numbers


WRONG = {
    "a short public key": link.Start(b"k" * 31, 1420, True, True, [1.0] * 10),
    "a time too few": link.Start(b"k" * 32, 1420, True, True, [1.0] * 6),
    "no real time": link.Start(b"k" * 32, 1420, True, True, [float("nan")] * 10),
    "a short key": InstallKeypair(1, 1, 1, b"k" * 31, b"k" * 32, True, 1.0, 1.0, ("192.0.2.1", 1)),
    "a long key": InstallKeypair(1, 1, 1, b"k" * 32, b"k" * 33, True, 1.0, 1.0, ("192.0.2.1", 1)),
    "an index over 32 bits": InstallKeypair(
        1, 1, 2**32, b"k" * 32, b"k" * 32, True, 1.0, 1.0, ("192.0.2.1", 1)
    ),
    "a name as host": link.SetEndpoint(1, ("example.net", 1), "dns"),
    "a host with a newline": link.Moved(1, ("192.0.2.1\nup", 1)),
    "no host": link.Moved(1, ("", 1)),
    "a port over 16 bits": link.Moved(1, ("192.0.2.1", 65536)),
    "an IPv6 host in an IPv4 address": link.Moved(1, ("2001:db8::1", 1)),
    "an IPv4 host in an IPv6 address": link.Moved(1, ("192.0.2.1", 1, 0, 0)),
    "an IPv4 prefix of 33 bits": link.Routes([(bytes(4), 33, 1)], [], is_last=True),
    "an IPv6 prefix of 129 bits": link.Routes([], [(bytes(16), 129)], is_last=True),
    "a prefix of 5 bytes": link.Routes([(bytes(5), 8, 1)], [], is_last=True),
    "an overlay address of 5 bytes": link.SetNode(1420, False, [bytes(5)]),
    "an Ethernet address of 5 bytes in a tunnel": link.SetPeer(1, 0.0, "vxlan", [], Ends(1, bytes(5))),
    "an Ethernet address of 7 bytes": link.SetPeer(1, 0.0, macs=[bytes(6), bytes(7)]),
    "an own Ethernet address of 5 bytes": link.SetNode(1420, False, [], [bytes(5)]),
    "no MTU": link.SetNode(0, False, []),
    "no stations": link.SetNode(1420, False, [], stations=0),
    "a jumbo MTU": link.SetNode(65536, False, []),
    "a negative number": link.Handled(-1),
    "an identifier over 32 bits": link.SetPeer(1, 0.0, "gre", [], Ends(2**32)),
    "a keepalive in the past": link.SetPeer(1, -1.0),
    "a control message of nothing": link.ControlReceived(1, b""),
    "a packet too short to tell its sender": link.TellSender(bytes(27)),
    "a control message too long": link.SendControl([1], bytes(1201)),
    "a round trip into the past": link.Ponged(1, 1, -1.0),
    "a round trip of a million years": link.Ponged(1, 1, 3e13),
    "a peer that is heard in a million years": link.Counters(
        1, [link.PeerCounters(1, None, 0, 0, 0, 0, 3e13, {})], {}, is_last=True
    ),
    "a handshake message of a byte more": link.Handshake(bytes(149), ("192.0.2.1", 1)),
    "a handshake message as large as the link takes": link.Handshake(bytes(130_000), ("192.0.2.1", 1)),
    "no handshake message": link.Handshake(b"", ("192.0.2.1", 1)),
    "a handshake message to send of a byte less": Transmit(1, bytes(147)),
    "a keepalive without end": link.SetPeer(1, float("inf")),
    "a listening port over 16 bits": link.Sockets("wireguard", [link.SocketRow(2, 65536)]),
    "a reason with an escape sequence": link.Counters(1, [], {"\x1b[2J": 1}, is_last=True),
    "a reason of two lines": link.Counters(1, [], {"loop\nERROR": 1}, is_last=True),
    "a reason that is none": link.Counters(1, [], {"replayed": 1}, is_last=True),
    "an empty reason": link.Counters(1, [], {"": 1}, is_last=True),
    "a negative count": link.Counters(1, [], {"loop": -1}, is_last=True),
    "a count without end": link.Counters(1, [], {"loop": 2**63}, is_last=True),
    "too many reasons": link.Counters(1, [], {**dict.fromkeys(REASONS, 1), "one more": 1}, is_last=True),
    "a negative count of a peer": link.Counters(
        1, [link.PeerCounters(1, None, 0, 0, 0, 0, 0.0, {"loop": -1})], {}, is_last=True
    ),
    "too many peers": link.Counters(
        1, [link.PeerCounters(1, None, 0, 0, 0, 0, 0.0, {})] * (ROWS + 1), {}, is_last=True
    ),
    "a note with an escape sequence": link.Ready(["\x1b]0;root\x07"]),
    "a long note": link.Ready(["x" * 501]),
    "too many notes": link.Ready(["x"] * 33),
    "a sender's port over 16 bits": link.Sockets(
        "wireguard", [link.SocketRow(2, 1), link.SocketRow(2, 65536, 3)]
    ),
    "a role over 8 bits": link.Sockets("wireguard", [link.SocketRow(2, 1, 256)]),
    "a protocol over 8 bits": link.Sockets("wireguard", [link.SocketRow(2, 1, 0, 256)]),
}


@pytest.mark.parametrize("message", WRONG.values(), ids=WRONG)
def test_what_the_reader_could_not_carry_out_is_refused(message):
    with refused("link"):
        codec.decode(codec.encode(message))


def test_lists_longer_than_those_of_a_report_are_refused_where_reports_are_read():
    routes = link.Routes([(bytes(4), 8, 1)] * (ROWS + 1), [], is_last=True)

    assert codec.decode(codec.encode(routes)) == routes
    with refused("link"):
        codec.decode(codec.encode(routes), ROWS)


def test_no_room_is_made_for_lists_that_only_say_how_long_they_are():
    lists_in_lists = (b"\xdd\x00\x01\xff\xff" * 1000).ljust(131_072, b"\x90")
    tracemalloc.start()
    try:
        with refused("link"):
            codec.decode(lists_in_lists, ROWS)

        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("greeting", [link.Start, link.Ready])
def test_a_greeting_of_another_version_is_told_apart_whatever_else_it_has(greeting):
    data = msgpack.packb([codec.MESSAGES.index(greeting), codec.VERSION + 1, {"a": 1}, None])

    with pytest.raises(codec.OtherVersionError) as refusal:
        codec.decode(data)

    assert refusal.value.version == codec.VERSION + 1


def test_greetings_keep_their_numbers_and_the_place_of_their_version():
    start = link.Start(b"k" * 32, 1420, True, True, [1.0] * 10)

    assert msgpack.unpackb(codec.encode(start))[:2] == [0, codec.VERSION]
    assert msgpack.unpackb(codec.encode(link.Ready([]))) == [1, codec.VERSION, [], False, 1, ""]


@pytest.mark.parametrize("rest", [[], [None], [-1], [True], [1.0], [[1]], ["1"], [2**63]])
def test_a_greeting_without_a_version_is_refused(rest):
    with refused("link"):
        codec.decode(msgpack.packb([0, *rest]))


def test_a_scoped_endpoint_is_kept():
    message = link.Moved(1, ("fe80::1%eth0", 1, 0, 2))

    assert codec.decode(codec.encode(message)) == message


def test_the_largest_messages_fit_the_link():
    routes = [(b"\xff" * 16, 128, 2**31)] * link.ROUTES_PER_MESSAGE
    drops = dict.fromkeys(sorted(REASONS, key=len)[-15:], 2**60)
    row = link.PeerCounters(
        2**31, ("2001:db8::ffff:ffff:ffff:ffff", 65535, 0, 2**31), *[2**62] * 4, 1e9, drops
    )

    for message in (
        link.Routes(routes, [row[:2] for row in routes], is_last=True),
        link.Counters(2**31, [row] * PEERS_PER_MESSAGE, drops, is_last=True),
    ):
        assert len(codec.encode(message)) <= codec.MESSAGE_BYTES


def test_keys_do_not_show_in_a_message():
    message = InstallKeypair(1, 1, 1, b"k" * 32, b"k" * 32, True, 1.0, 1.0, ("192.0.2.1", 1))

    assert "kkk" not in repr(codec.decode(codec.encode(message)))
