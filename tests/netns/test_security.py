"""Datagrams that nobody should send: each is dropped, counted by its reason, and changes nothing."""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time

import pytest

from overlay.crypto.cookies import CookieHolder
from overlay.crypto.keys import PrivateKey, encode_key
from overlay.wire.messages import INITIATION, RESPONSE, TYPE_COOKIE_REPLY
from tests.netns.network import PATIENCE, PORT, Network, is_silent, pinging
from tests.netns.speaker import Speaker
from tests.netns.topology import wait_until

FLOOD = 500


@pytest.fixture(scope="module")
def site(module_lab, tmp_path_factory):
    """A host with an honest peer, and a hand-made peer."""
    network = Network(module_lab, tmp_path_factory.mktemp("site"))
    paris, tokyo = network.host("paris"), network.host("tokyo")
    mallory = network.host("mallory", endpoint=None)
    paris.start()
    tokyo.start()
    paris.wait_up(tokyo)
    yield paris, tokyo, mallory
    network.close()


@pytest.fixture
def speaker(site):
    paris, _, mallory = site
    made = Speaker(mallory, paris)
    yield made
    made.close()


@pytest.fixture
def sink(site):
    """A UDP socket in paris that receives whatever is delivered."""
    paris = site[0]
    with paris.namespace.entered():
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with udp:
        udp.bind(("0.0.0.0", 0))
        udp.settimeout(PATIENCE)
        yield udp


def total(host, reason):
    """Return how often *reason* was counted, for no peer and for all peers."""
    status = host.status()
    return sum(
        drops.get(reason, 0) for drops in (status["drops"], *(row["drops"] for row in status["peers"]))
    )


def counted(host, reason, before, count=1):
    wait_until(
        lambda: total(host, reason) >= before + count, PATIENCE, f"{reason} to be counted at {host.name}"
    )


def is_well(host, other):
    """Return whether the agent runs, has logged nothing unusual, and its sessions work."""
    host.ping(other.address, 3)
    return host.is_running and "Traceback" not in host.log and host.status()["pid"] == host.process.pid


MALFORMED = {
    "nothing": (b"", "udp_filtered"),
    "one byte": (b"\x01", "udp_filtered"),
    "text": (b"GET / HTTP/1.1\r\n\r\n", "udp_filtered"),
    "zeros": (bytes(200), "udp_filtered"),
    "a type that is none": (b"\x63\0\0\0" + bytes(100), "udp_filtered"),
    "reserved bytes": (b"\x01\0\x01\0" + bytes(144), "udp_filtered"),
    "short initiation": (b"\x01\0\0\0" + bytes(143), "initiation_size"),
    "long initiation": (b"\x01\0\0\0" + bytes(145), "initiation_size"),
    "huge initiation": (b"\x01\0\0\0" + bytes(60000), "initiation_size"),
    "initiation without mac1": (b"\x01\0\0\0" + bytes(144), "mac1"),
    "short response": (b"\x02\0\0\0" + bytes(80), "response_size"),
    "response without mac1": (b"\x02\0\0\0" + bytes(88), "mac1"),
    "short cookie reply": (b"\x03\0\0\0" + bytes(59), "cookie_size"),
    "cookie reply to nobody": (b"\x03\0\0\0" + bytes(60), "cookie_index"),
    "short transport message": (b"\x04\0\0\0" + bytes(20), "udp_filtered"),
    "transport message to nobody": (b"\x04\0\0\0" + bytes(28), "udp_filtered"),
    "huge transport message to nobody": (b"\x04\0\0\0" + bytes(65000), "udp_filtered"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_datagram_is_counted_and_nothing_else(site, speaker, case):
    paris, tokyo, _ = site
    datagram, reason = MALFORMED[case]
    before = total(paris, reason)

    speaker.send(datagram)

    counted(paris, reason, before)
    assert is_well(paris, tokyo)


def test_random_datagrams_of_every_size_do_no_harm(site, speaker):
    paris, tokyo, _ = site
    for size in (*range(200), 1000, 1400, 9000, 65000):
        for kind in (0, 1, 2, 3, 4, 5, 255):
            speaker.send(bytes([kind, 0, 0, 0])[:size] + os.urandom(max(0, size - 4)))

    assert is_well(paris, tokyo)
    assert paris.faults(tokyo) == {}


def test_speaker_that_does_as_it_should_is_heard(site, speaker, sink):
    paris, _, mallory = site
    speaker.shake_hands()

    speaker.send(speaker.sealed(speaker.packet("10.244.3.9", paris.address, sink.getsockname()[1], b"hello")))

    assert sink.recv(100) == b"hello"
    assert paris.peer(mallory)["endpoint"] == f"{mallory.outside}:{PORT}"
    assert paris.peer(mallory)["state"] == "up"


@pytest.mark.parametrize("source", ["10.244.2.9", "10.244.1.0", "192.0.2.9", "127.0.0.1"])
def test_spoofed_inner_source_is_dropped(site, speaker, sink, source):
    paris, _, mallory = site
    speaker.shake_hands()
    before = paris.drops(mallory).get("source", 0)
    port = sink.getsockname()[1]

    speaker.send(speaker.sealed(speaker.packet(source, paris.address, port, b"spoofed")))
    speaker.send(speaker.sealed(speaker.packet("10.244.3.9", paris.address, port, b"genuine")))

    assert sink.recv(100) == b"genuine"
    assert paris.drops(mallory)["source"] == before + 1


def test_replayed_transport_message_is_delivered_once(site, speaker, sink):
    paris, _, mallory = site
    speaker.shake_hands()
    before = paris.drops(mallory).get("replay", 0)
    port = sink.getsockname()[1]
    first = speaker.sealed(speaker.packet("10.244.3.9", paris.address, port, b"first"))

    for _ in range(5):
        speaker.send(first)
    speaker.send(speaker.sealed(speaker.packet("10.244.3.9", paris.address, port, b"second")))

    assert [sink.recv(100), sink.recv(100)] == [b"first", b"second"]
    assert paris.drops(mallory)["replay"] == before + 5 - 1


def test_late_messages_are_taken_within_the_window_and_refused_behind_it(site, speaker, sink):
    paris, _, mallory = site
    speaker.shake_hands()
    before = paris.drops(mallory).get("replay", 0)
    port = sink.getsockname()[1]

    def message(counter):
        payload = speaker.packet("10.244.3.9", paris.address, port, str(counter).encode())
        return speaker.sealed(payload, counter=counter)

    for counter in (20_000, 19_000, 11_873, 5_000, 18_000):
        speaker.send(message(counter))

    assert [sink.recv(100) for _ in range(4)] == [b"20000", b"19000", b"11873", b"18000"]
    assert paris.drops(mallory)["replay"] == before + 1


@pytest.mark.parametrize("damage", [16, -1], ids=["payload", "tag"])
def test_message_that_was_changed_on_its_way_is_dropped(site, speaker, damage):
    paris, _, mallory = site
    speaker.shake_hands()
    before = paris.drops(mallory).get("transport_auth", 0)
    message = bytearray(speaker.sealed(speaker.packet("10.244.3.9", paris.address, 9, b"changed")))
    message[damage] ^= 1

    speaker.send(bytes(message))

    counted(paris, "transport_auth", before)


def test_message_under_the_key_of_another_index_is_dropped(site, speaker):
    paris, _, _mallory = site
    speaker.shake_hands()
    first = speaker.remote_index
    speaker.shake_hands()
    before = total(paris, "transport_auth")

    speaker.send(speaker.sealed(b"", index=first))

    counted(paris, "transport_auth", before)


def test_payload_that_is_no_packet_is_dropped(site, speaker, sink):
    paris, tokyo, mallory = site
    speaker.shake_hands()
    genuine = speaker.packet("10.244.3.9", paris.address, sink.getsockname()[1], b"genuine")
    for payload in (b"\0", b"E", bytes(40), genuine[:19], genuine[:24], b"\x45\x00\xff\xff" + genuine[4:]):
        speaker.send(speaker.sealed(payload))

    speaker.send(speaker.sealed(genuine))

    assert sink.recv(100) == b"genuine"
    assert sum(paris.drops(mallory).values()) >= 6
    assert is_well(paris, tokyo)


def test_replayed_initiation_gets_no_answer(site, speaker):
    paris, tokyo, _ = site
    initiation = speaker.shake_hands()
    before = total(paris, "initiation_replayed")

    speaker.send(initiation)

    counted(paris, "initiation_replayed", before)
    # The session that resulted continues.
    speaker.send(speaker.sealed(b""))
    assert is_well(paris, tokyo)


def test_initiations_that_follow_too_soon_get_no_answer(site, speaker):
    paris, _, _ = site
    before = total(paris, "initiation_flood")

    def is_refused():
        """Send three; on a busy machine, too much time may pass between them."""
        for datagram in [speaker.with_macs(speaker.initiation()[0]) for _ in range(3)]:
            speaker.send(datagram)
        return total(paris, "initiation_flood") > before

    wait_until(is_refused, PATIENCE, "an initiation to follow another too soon")


def test_initiation_of_a_stranger_is_refused(site, speaker):
    paris, _, mallory = site
    before = total(paris, "initiation_unknown_peer")
    known, mallory.private_key = mallory.private_key, PrivateKey(os.urandom(32))
    try:
        datagram = speaker.with_macs(speaker.initiation()[0])
    finally:
        mallory.private_key = known

    speaker.send(datagram)

    counted(paris, "initiation_unknown_peer", before)


def test_initiation_for_another_node_is_refused(site, speaker):
    paris, tokyo, _ = site
    before = total(paris, "initiation_static")

    # Its mac1 is made for paris, the rest for tokyo.
    speaker.send(speaker.with_macs(speaker.initiation(responder=tokyo.private_key.public)[0]))

    counted(paris, "initiation_static", before)


def test_response_that_nobody_asked_for_is_refused(site, speaker):
    paris, tokyo, _ = site
    before = total(paris, "response_index")
    body = RESPONSE.pack(2, 1, 2, os.urandom(32), bytes(16), bytes(16), bytes(16))

    speaker.send(CookieHolder(paris.private_key.public).add_macs(body, 0.0))

    counted(paris, "response_index", before)
    assert is_well(paris, tokyo)


def test_endpoint_does_not_follow_what_is_not_authentic(site, speaker):
    paris, tokyo, _ = site
    paris.ping(tokyo.address)
    index = int.from_bytes(os.urandom(4), "little")

    for _ in range(50):
        speaker.send(struct.pack("<IIQ", 4, index, 0) + os.urandom(112))

    assert is_well(paris, tokyo)
    assert paris.peer(tokyo)["endpoint"] == f"{tokyo.outside}:{PORT}"


def test_nothing_is_logged_for_each_packet_above_debug(site, speaker):
    paris, _, _ = site
    before = len([line for line in paris.log.splitlines() if " DEBUG " not in line])
    count = total(paris, "udp_filtered")

    for _ in range(200):
        speaker.send(b"\xff" * 100)
        speaker.send(b"\x01\0\0\0" + bytes(144))

    counted(paris, "udp_filtered", count, 200)
    # Keys may have been renewed in the meantime, which is reported.
    assert len([line for line in paris.log.splitlines() if " DEBUG " not in line]) < before + 10


def test_flood_of_initiations_harms_no_session_and_is_answered_with_cookies(site, speaker, tmp_path):
    """500 initiations with a valid mac1 from 500 addresses at which the attacker receives answers."""
    paris, tokyo, mallory = site
    paris.namespace.run("ip", "route", "add", "198.18.0.0/16", "via", mallory.outside)
    sniffer = mallory.namespace.sniff("eth0")
    with mallory.namespace.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    flood = []
    for number in range(FLOOD):
        body = INITIATION.pack(
            1, number, os.urandom(32), os.urandom(48), os.urandom(28), bytes(16), bytes(16)
        )
        datagram = CookieHolder(paris.private_key.public).add_macs(body, 0.0)
        source = socket.inet_aton(f"198.18.{number // 250}.{number % 250 + 1}")
        target = socket.inet_aton(paris.outside)
        udp = struct.pack("!4H", 2000 + number, PORT, 8 + len(datagram), 0) + datagram
        flood.append(
            struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, source, target) + udp
        )
    handled = {"initiation_static", "handshake_under_load", "handshake_rate", "handshake_queue"}
    before = sum(total(paris, reason) for reason in handled)
    cookies = []

    with raw, pinging(paris.namespace, tokyo.address, tmp_path) as pinger:
        rounds = 0
        deadline = time.monotonic() + PATIENCE
        while not cookies and time.monotonic() < deadline:
            rounds += 1
            for packet in flood:
                raw.sendto(packet, (paris.outside, 0))
            wait_until(
                lambda rounds=rounds: (
                    sum(total(paris, reason) for reason in handled) >= before + rounds * FLOOD
                ),
                PATIENCE,
                "every initiation to be counted",
            )
            cookies += [frame for frame in sniffer.frames() if is_cookie_reply(frame)]
        pinger.go_on()

    paris.namespace.run("ip", "route", "delete", "198.18.0.0/16")
    assert cookies
    assert all(len(frame) == 14 + 20 + 8 + 64 for frame in cookies)
    assert pinger.lost == []
    assert is_well(paris, tokyo)
    # When the load is over, handshakes are answered without cookies again.
    wait_until(lambda: can_shake_hands(speaker), PATIENCE, "a handshake after the flood")


def is_cookie_reply(frame):
    return (
        frame[12:14] == b"\x08\x00"
        and frame[23] == 17
        and frame[30:32] == bytes([198, 18])
        and frame[42] == TYPE_COOKIE_REPLY
    )


def can_shake_hands(speaker):
    speaker.send(speaker.with_macs(speaker.initiation()[0]))
    ready, _, _ = select.select([speaker.udp], [], [], 0.5)
    return bool(ready) and speaker.udp.recv(65536)[0] == 2


# Dangerous configuration


@pytest.mark.parametrize(
    "point",
    [
        b"\x01" + bytes(31),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ],
    ids=["1", "order 8", "order 8 too", "p-1", "p", "p+1"],
)
def test_peer_with_a_key_of_low_order_is_accepted_and_nothing_is_ever_sent_to_it(site, point):
    paris, tokyo, mallory = site
    text = paris.network.toml() + (
        f'[peers.low]\npublic_key = "{encode_key(point)}"\nendpoint = "{mallory.outside}:7000"\n'
        'subnets = ["10.244.99.0/24"]\nkeepalive = 1\n'
    )
    assert "reloaded" in paris.reload(text)
    sniffer = mallory.namespace.sniff("eth0")

    assert is_silent(paris.namespace, "10.244.99.1")

    assert not any(frame[36:38] == (7000).to_bytes(2, "big") for frame in sniffer.frames())
    assert next(row for row in paris.status()["peers"] if row["name"] == "low")["tx_bytes"] == 0
    assert "reloaded" in paris.reload()
    assert is_well(paris, tokyo)


def test_agent_without_a_privilege_says_which_it_lacks(site):
    paris, _, _ = site
    arguments = ("-m", "overlay", "up", "--peers", str(paris.peers_path), "--key", str(paris.key_path))
    done = paris.namespace.completed(
        *("setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--ambient-caps", "-all"),
        *(sys.executable, *arguments, "--interface", "other0"),
    )

    assert done.returncode == 1
    assert "CAP_NET_ADMIN" in done.stderr
    assert "Traceback" not in done.stderr
