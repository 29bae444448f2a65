"""A host on the LAN that tries to move an address, or to keep a director busy."""

from __future__ import annotations

import pytest

from tests.netns.lan import NETWORKS, PATIENCE, VIPS, processor_time
from tests.netns.topology import wait_until

# Attacks

FLOOD = """
import socket, struct, sys, time
from overlay.wire.vrrp import Advertisement
kind, seconds, vip = sys.argv[1], float(sys.argv[2]), socket.inet_aton("10.50.2.200")
own, group = socket.inet_aton("10.50.2.3"), socket.inet_aton("224.0.0.18")
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 254 if kind == "ttl" else 255)
raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", group, own, 0))
router, priority = 52 if kind == "router" else 51, {"resigning": 0, "low": 1}.get(kind, 255)
message = Advertisement(3, router, priority, 0.2, (vip,)).build(own, group)
if kind == "garbage":
    message = b"\\x31\\x33" + bytes(14)
end, sent = time.monotonic() + seconds, 0
while time.monotonic() < end:
    for _ in range(50):
        raw.sendto(message, ("224.0.0.18", 0))
    sent += 50
    time.sleep(0.002)
print(sent)
"""


ASKING = """
import socket, sys, time
from tests.overlay.host.test_neighbours import VIP, question
asking = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
asking.bind(("eth0", 0))
end = time.monotonic() + 1.5
while time.monotonic() < end:
    for _ in range(50):
        asking.send(question(VIP))
    time.sleep(0.002)
"""


@pytest.mark.parametrize("kind", ["ttl", "router", "garbage", "low"])
def test_flood_that_is_not_to_be_believed_moves_no_address_and_costs_little(lan, kind):
    ours = lan.director(priority=100)
    ours.becomes("active")
    sniffer = lan.other.sniff("eth0")
    before = processor_time(ours.process)

    sent = int(lan.client.python(FLOOD, kind, "1.5"))

    assert sent > 1000
    assert ours.state(4) == "active"
    assert len(ours.history) == len([row for row in ours.history if row["state"] != "initialize"])
    spent = processor_time(ours.process) - before
    assert spent < 0.75, f"{spent} s of processor time for {sent} datagrams"
    answers = [
        frame
        for frame in sniffer.frames()
        if frame[12:14] == b"\x08\x00" and frame[23] == 112 and frame[26:30] == bytes((10, 50, 2, 1))
    ]
    assert len(answers) < sent / 10
    refused = ours.status()[0]["refused"]
    assert set(refused) == ({"vrrp_checksum"} if kind == "garbage" else set())


def test_flood_of_questions_costs_little_and_the_next_one_is_answered(lan):
    ours = lan.director()
    ours.tell(links={NETWORKS[4]: "eth0"}, hold=[VIPS[4]])
    wait_until(lambda: lan.ask(4) == lan.mac(lan.ours), PATIENCE, "an answer")
    before = processor_time(ours.process)

    lan.other.python(ASKING)

    spent = processor_time(ours.process) - before
    assert spent < 0.75, f"{spent} s of processor time"
    lan.finds(lan.ours, 4)


GARBAGE = """
import os, random, socket, struct
from tests.overlay.host.test_neighbours import VIP, question
from overlay.wire.vrrp import Advertisement
chance, vip6 = random.Random(7), socket.inet_pton(socket.AF_INET6, "fd50:2::200")
index = socket.if_nametoindex("eth0")
raw4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
raw4.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
raw4.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), index))
raw6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 112)
raw6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
frames.bind(("eth0", 0))
solicited = bytes.fromhex("3333ff000200 020000000003 86dd 60000000 0020 3aff") + bytes(15) + b"\\x01"
solicited += bytes.fromhex("ff02000000000000 00000001ff000200 87000000 00000000") + vip6 + bytes(8)
for _ in range(1500):
    size = chance.choice((0, 1, 2, 7, 8, 12, 20, 28, 60, 1400))
    message = b"\\x31\\x33" + chance.randbytes(size)
    raw4.sendto(message, ("224.0.0.18", 0))
    raw6.sendto(message, ("ff02::12", 0, 0, index))
    for whole in (question(VIP), solicited):
        frame = bytearray(whole)
        for _ in range(chance.randrange(4)):
            frame[chance.randrange(12, len(frame))] = chance.randrange(256)
        frames.send(frame[: chance.randrange(14, len(frame) + 1)] if chance.random() < 0.3 else frame)
"""


def test_garbage_of_every_form_ends_nothing(lan):
    ours = lan.director()
    ours.tell(groups=[lan.group(addresses=[VIPS[4], VIPS[6]])])
    for family in (4, 6):
        ours.becomes("active", family)

    lan.client.python(GARBAGE)

    assert [set(row["refused"]) <= {"vrrp_form", "vrrp_checksum"} for row in ours.status()] == [True, True]
    assert all(row["refused"] for row in ours.status())
    for family in (4, 6):
        ours.becomes("active", family)
        lan.finds(lan.ours, family)


def test_resignations_without_end_keep_nobody_from_taking_over(lan):
    ours = lan.director(priority=100)
    ours.becomes("backup")

    lan.client.python(FLOOD, "resigning", "2")

    ours.becomes("active")
    lan.finds(lan.ours, 4)


def test_owner_that_was_forged_is_believed_for_as_long_as_it_speaks(lan):
    ours = lan.director(priority=100)
    ours.becomes("active")

    lan.client.python(FLOOD, "owner", "1")

    wait_until(lambda: "backup" in [row["state"] for row in ours.history[-3:]], PATIENCE, "a step down")
    ours.becomes("active")
