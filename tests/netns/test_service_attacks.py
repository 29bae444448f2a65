"""A host that is not a director of a service reaches none of its servers through the service's address, and packets
that no client sends do no harm.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
import zlib
from ipaddress import ip_address

import pytest

from overlay.services.directors import group_number
from overlay.services.settings import entry_of
from overlay.services.states import State
from overlay.wire import control
from overlay.wire.control import Presence
from overlay.wire.service_control import (
    FlowsTold,
    SettingRow,
    SettingsHeard,
    SettingsTold,
    StandingRow,
    StandingsTold,
    SyncedFlow,
)
from peers import toml
from tests import packets
from tests.netns.network import PATIENCE, PYTHON, Network, Node
from tests.netns.speaker import Speaker
from tests.netns.topology import wait_until
from tests.netns.users import AsUser

VIP, OTHER_VIP, SHARED_VIP, PORT = "203.0.113.80", "203.0.113.81", "203.0.113.82", 80
CLIENT = "198.51.100.7"  # of no peer
IPIP = socket.IPPROTO_IPIP
# Prints what arrives at the address of a service.
SERVER = f"""
import socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("{VIP}", {PORT}))
print("ready", flush=True)
while True:
    data, client = udp.recvfrom(65536)
    print(client[0], data[:60].decode(errors="replace"), flush=True)
"""


class Site:
    """lb1 directs to web1, beside rogue at one of the services.

    mallory is a peer that serves something else, plain is an unencrypted peer; none of the three runs an agent.
    """

    def __init__(self, lab, directory):
        self.network = network = Network(lab, directory)
        self.lb1, self.web1, self.mallory = (network.host(name) for name in ("lb1", "web1", "mallory"))
        clear = {"public_key": None, "encapsulation": "ipip"}
        self.plain = network._plug(Node(network, "plain", 4, "none", clear))
        self.rogue = network.host("rogue")
        network.more = "".join(
            f'[services.{name}]\naddress = "{address}"\nports = {PORT}\nprotocol = ["udp", "tcp"]\n'
            f'directors = [{directors}]\nservers = ["{server}"]\n'
            for name, address, directors, server in (
                ("web", VIP, '"lb1"', "web1"),
                ("other", OTHER_VIP, '"lb1"', "mallory"),
                ("shared", SHARED_VIP, '"lb1", "rogue"', "web1"),
            )
        )
        for host in (self.lb1, self.web1):
            host.start()
        self.lb1.wait_up(self.web1)
        wait_until(lambda: VIP in self.web1.namespace.run("ip", "address"), PATIENCE)
        self.web1.namespace.run("ip", "route", "add", "198.51.100.0/24", "via", self.plain.outside)
        self.server = self.web1.namespace.popen(sys.executable, "-c", SERVER, stdout=subprocess.PIPE)
        assert self.server.stdout.readline() == "ready\n"

    def heard(self, marker):
        """Return who asked the server, and what, until the director itself has asked with *marker*."""
        with self.lb1.namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.sendto(marker.encode(), (VIP, PORT))
        said = []
        while not said or not said[-1].endswith(marker):
            said.append(self.server.stdout.readline().strip())
            assert said[-1], "the server has ended"
        return said[:-1]

    def send_raw(self, node, packet, source, to):
        """Send *packet* inside a packet from *source*, which need not be an address of *node*."""
        outer = packets.with_ip_checksum(packets.ipv4(packet, source, to.outside, protocol=IPIP))
        with node.namespace.entered():
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with raw:
            raw.sendto(outer, (to.outside, 0))

    def are_well(self):
        return all(host.is_running and "Traceback" not in host.log for host in (self.lb1, self.web1))


@pytest.fixture(scope="module")
def site(module_lab, tmp_path_factory):
    made = Site(module_lab, tmp_path_factory.mktemp("site"))
    yield made
    made.network.close()


def to_service(payload, source=CLIENT, vip=VIP):
    return packets.udp(payload, ports=(4000, PORT), source=source, destination=vip)


@pytest.fixture
def at_web1(site):
    with contextlib.closing(Speaker(site.mallory, site.web1)) as speaker:
        speaker.shake_hands()
        yield speaker


@pytest.mark.parametrize("source", [CLIENT, "10.244.1.0", VIP])
def test_peer_that_is_no_director_cannot_reach_a_server_by_the_service(site, at_web1, source):
    before = site.web1.drops(site.mallory).get("source", 0)

    at_web1.send(at_web1.sealed(to_service(b"forged", source)))
    wait_until(lambda: site.web1.drops(site.mallory).get("source", 0) > before, PATIENCE)

    assert site.heard(f"after {source}") == []


def test_peer_that_is_no_director_may_ask_as_itself(site, at_web1):
    at_web1.send(at_web1.sealed(to_service(b"as myself", "10.244.3.9")))

    assert site.server.stdout.readline().strip() == "10.244.3.9 as myself"


@pytest.mark.parametrize("source", [CLIENT, "10.244.1.0", VIP])
def test_stranger_with_the_address_of_a_clear_tunnel_cannot_reach_a_server(site, source):
    stranger = site.mallory  # its namespace only
    before = site.web1.drops(site.plain).get("source", 0)

    site.send_raw(stranger, to_service(b"forged", source), site.plain.outside, site.web1)
    wait_until(lambda: site.web1.drops(site.plain).get("source", 0) > before, PATIENCE)

    assert site.heard(f"after a clear {source}") == []


def test_stranger_with_the_address_of_a_director_that_encrypts_cannot_reach_a_server(site):
    site.send_raw(site.mallory, to_service(b"forged"), site.lb1.outside, site.web1)

    assert site.heard("after a clear director") == []


def test_server_of_one_service_answers_only_in_its_name(site):
    """The director, where an overlay client of both services is."""
    with site.lb1.namespace.entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client, contextlib.closing(Speaker(site.mallory, site.lb1)) as speaker:
        client.bind((site.lb1.address, 0))
        client.settimeout(PATIENCE)
        speaker.shake_hands()
        target = {"ports": (PORT, client.getsockname()[1]), "destination": site.lb1.address}
        before = site.lb1.drops(site.mallory).get("source", 0)

        for source in (VIP, CLIENT, OTHER_VIP, "10.244.3.9"):
            speaker.send(speaker.sealed(packets.udp(source.encode(), source=source, **target)))

        assert [client.recv(100).decode() for _ in range(2)] == [OTHER_VIP, "10.244.3.9"]
        assert site.lb1.drops(site.mallory)["source"] == before + 2


def shown(host, service="web"):
    """Return what *host* reports about a service."""
    return json.loads(host.overlay("services", service, "--json").stdout)["services"][0]


def in_band(group, entry, vip):
    """Yield messages that only a director of the group may send, and messages that nobody sends."""
    server = zlib.crc32(b"web1:0")
    flow = SyncedFlow(17, State.UDP, 0, server, ip_address(CLIENT).packed, 4000, ip_address(vip).packed, PORT)
    told = [
        Presence(group, True, (0,)),
        SettingsTold(group, 7, (SettingRow(entry, 2**63 - 1, 0, True, True),)),
        SettingsHeard(group, 1),
        StandingsTold(group, 7, (StandingRow(entry, 1, 0, 9),)),
        FlowsTold(zlib.crc32(b"web"), (flow,), wants_all=True),
    ]
    messages = [control.build(each) for each in told]
    yield from messages
    for message in messages:
        for end in range(1, len(message)):
            yield message[:end]
    for first in range(0x80, 0xA0):
        yield bytes([first]) + os.urandom(40)


def test_peer_that_is_no_director_says_what_directors_say_and_nothing_comes_of_it(site):
    lb1 = site.lb1
    service = toml.parse(lb1.peers_path.read_text(), lb1.peers_path).services["web"]
    group, entry = group_number(service.directors), entry_of(service, service.servers[0])
    before = lb1.drops(site.mallory).get("control_foreign", 0)
    flows = shown(lb1)["servers"][0]["active_flows"]

    with contextlib.closing(Speaker(site.mallory, lb1)) as speaker:
        speaker.shake_hands()
        for message in in_band(group, entry, VIP):
            speaker.send(speaker.sealed(message))
            time.sleep(0.002)
        wait_until(lambda: lb1.drops(site.mallory).get("control_foreign", 0) > before, PATIENCE)

    told = shown(lb1)
    (server,) = told["servers"]
    assert (server["state"], server["set_by_hand"], server["weight"]) == ("up", False, 1)
    assert server["active_flows"] == flows
    assert told["director"]["active"] == "lb1"
    assert site.heard("after what directors say") == []
    assert site.are_well()


def senseless(chance, messages):
    """Yield messages in the form of a director's that no director would send: cut, longer, with changed bytes,
    meaningless.
    """
    for _ in range(1500):
        message = bytearray(chance.choice(messages))
        for _ in range(chance.randint(1, 6)):
            message[chance.randrange(1, len(message))] = chance.randrange(256)
        cut = message[: chance.randrange(1, len(message) + 1)]
        yield bytes(chance.choice([message, cut, message + chance.randbytes(40)]))


def test_director_that_says_rubbish_harms_nothing_but_what_it_may_decide(site):
    """A director that was taken over: it has the keys of a director of one service only."""
    lb1, chance = site.lb1, random.Random(1)
    shared = toml.parse(lb1.peers_path.read_text(), lb1.peers_path).services["shared"]
    group, entry = group_number(shared.directors), entry_of(shared, shared.servers[0])
    messages = list(in_band(group, entry, SHARED_VIP))[:5]
    rows = tuple(StandingRow(chance.randrange(2**64), 255, 65535, 2**32 - 1, (4, 6)) for _ in range(60))
    messages.append(control.build(StandingsTold(group, 0, rows)))
    forwarder, before = lb1.status()["forwarder_pid"], shown(lb1)

    with contextlib.closing(Speaker(site.rogue, lb1)) as speaker:
        speaker.shake_hands()
        for message in senseless(chance, messages):
            speaker.send(speaker.sealed(message))
            time.sleep(0.001)

        def is_taken():
            """Say what it is entitled to say, which may be lost while the rest is still being refused."""
            speaker.send(speaker.sealed(messages[1]))
            return shown(lb1, "shared")["servers"][0]["state"] == "disabled"

        wait_until(is_taken, PATIENCE, "a setting to hold")

    after = shown(lb1)
    assert after["servers"][0]["state"] == before["servers"][0]["state"] == "up"
    assert not after["servers"][0]["set_by_hand"]
    assert lb1.overlay("services", "enable", "shared/web1").stdout
    assert site.heard("after what a director says") == []
    assert lb1.status()["forwarder_pid"] == forwarder
    assert site.are_well()


def test_user_without_privileges_cannot_set_anything_by_hand(site):
    lb1 = site.lb1
    ordinary = AsUser(lb1.namespace, lb1.directory)
    for words in (("drain", "web/web1"), ("weight", "web/web1", "7"), ("check", "web/web1"), ("web",)):
        asked = ordinary.popen(
            *(PYTHON, "-m", "overlay", "services", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        said, error = asked.communicate(timeout=60)
        assert asked.returncode == 1
        assert said == ""
        assert len(error.splitlines()) == 1
        assert error.endswith(" may be used by root only: run as root\n")

    (server,) = shown(lb1)["servers"]
    assert not server["set_by_hand"]


def rubbish(chance):
    """Yield packets to the address of the service that no client sends."""
    for size in (*range(20, 60), 100, 1400):
        for protocol in (1, 6, 17, 132, 0, 255):
            more = chance.choice([0, 0, 0x2000, 0x2001, 0x0001, 0x1FFF, 0x3FFF])
            yield packets.ipv4(
                os.urandom(size - 20), CLIENT, VIP, protocol=protocol, fragment=more, identifier=size
            )
    whole = packets.udp(bytes(3000), ports=(4000, PORT), source=CLIENT, destination=VIP)[20:]
    for start, end in ((0, 1400), (8, 1408), (1000, 2400), (0, 8), (2400, 3008), (65000, 65008)):  # overlap
        piece = whole[start:end] or bytes(8)
        yield packets.ipv4(piece, CLIENT, VIP, fragment=0x2000 | start // 8, identifier=77)
    for quoted in (b"", os.urandom(8), os.urandom(28), to_service(b"x")[:28], packets.udp(b"", source=VIP)):
        for kind in (3, 4, 11, 12, 5, 99):
            yield packets.ipv4(
                bytes([kind, 4, 0, 0, 0, 0, 0, 1]) + quoted, CLIENT, VIP, protocol=socket.IPPROTO_ICMP
            )


def test_rubbish_to_the_address_of_a_service_harms_nobody(site):
    """It comes from the director's LAN, where clients are."""
    site.lb1.namespace.run("sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=1")
    site.mallory.namespace.run("ip", "route", "replace", VIP, "via", site.lb1.outside)
    with site.mallory.namespace.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        for packet in rubbish(random.Random(1)):
            with contextlib.suppress(OSError):  # what the kernel itself does not send
                raw.sendto(packets.with_ip_checksum(packet), (VIP, 0))

    site.heard("after rubbish")
    assert site.are_well()
