"""Every kind of check on whole hosts, by IPv4 and IPv6, of servers of every form; and services by UDP,
in fragments too.

One farm serves all tests: a director, a client's host, and three servers' hosts.  At the first, the server has the
virtual address; at the second it has other ports; at the third it is a container.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.netns import checked_server
from tests.netns.network import Network, nft
from tests.netns.topology import wait_until

PROGRAM = checked_server.__file__
PATIENCE = 60.0
VIPS = {4: "203.0.113.{}", 6: "2001:db8:99::{}"}
ADD = 1000  # added to the ports of the server with other ports
TIMES = "every = 0.5, timeout = 3, retries = 0, warmup = 0"
PAGE = "http"
# Protocol, port and check of a service, and the reported reason for a server that is up
KINDS = {
    "tcp": ("tcp", 8001, 'kind = "tcp"', "accepts connections at port 8001"),
    PAGE: ("tcp", 80, 'kind = "http", path = "/health", regex = "is re.dy at web"', "answers 200"),
    "https": (
        "tcp",
        443,
        'kind = "https", sni = "www.example.org", ca_file = "{0}", certificate_file = "{0}", key_file = "{1}"',
        "answers 200",
    ),
    "udp": ("udp", 9000, 'kind = "udp", send = "ping", expect = "web"', "answers as expected"),
    "dns": ("udp", 53, 'kind = "dns", query = "health.example.", query_type = "A"', "answers A health.example. with NOERROR"),
    "ping": ("tcp", 8001, 'kind = "ping"', "answers pings"),
    "script": ("tcp", 8001, 'kind = "script", command = ["{2}"]', "{2} ended with 0"),
    "of another protocol": ("udp", 9000, 'kind = "http", port = 80', "answers 200"),
}  # fmt: skip
SCRIPT = """#!/bin/sh
# Good as long as it runs as nobody, and knows its server.
test "$(id -u)" != 0 && test "$OVERLAY_PORT" = 8001 && test "${OVERLAY_PEER#web}" != "$OVERLAY_PEER"
"""
CLIENT = """
import errno, socket, sys
address, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
for _ in range(12):
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.settimeout(2)
        udp.connect((address, port))
        data = bytes(number % 251 for number in range(size))
        for attempt in range(20):  # a busy machine may drop a datagram
            try:
                udp.send(data)
                name, _, rest = udp.recv(65535).partition(b" ")
                print(name.decode() if rest == data else "other data", flush=True)
            except TimeoutError:
                continue
            except OSError as error:
                if error.errno != errno.EMSGSIZE:  # what the path takes was told: the next is cut
                    print(type(error).__name__, flush=True)
            break
        else:
            print("no answer", flush=True)
"""

SCTP_VIP = "203.0.113.90"
SCTP = f"""
[services.sctp]
address = "{SCTP_VIP}"
ports = [36412]
protocol = "sctp"
directors = ["lb"]
servers = ["web1", "web2"]
"""
BOTH_VIPS = {4: "203.0.113.91", 6: "2001:db8:99::91"}
BOTH = f"""
[services.both]
address = ["{BOTH_VIPS[4]}", "{BOTH_VIPS[6]}"]
ports = [8001]
directors = ["lb"]
scheduler = "rr"
servers = ["web1", {{ peer = "web2", port = {8001 + ADD} }}]
check = {{ kind = "tcp", {TIMES} }}
"""
REFUSING = """
table inet refusing {
    chain in {
        type filter hook input priority 0
        ip6 daddr %s tcp dport 8001 reject with tcp reset
    }
}
"""
CONNECTING = """
import socket, sys
for _ in range(12):
    with socket.create_connection((sys.argv[1], 8001), timeout=60):
        pass
"""
# Packets of a header (RFC 9260 section 3.1: ports, verification tag, checksum) and, for the answer, a name
SCTP_SERVER = """
import socket, struct, sys
name, address = sys.argv[1:]
with socket.socket(socket.AF_INET, socket.SOCK_RAW, 132) as raw:
    raw.bind((address, 0))
    print("ready", flush=True)
    while True:
        packet, source = raw.recvfrom(65535)
        port, own = struct.unpack_from("!HH", packet, 20)
        raw.sendto(struct.pack("!HHII", own, port, 0, 0) + name.encode(), source)
"""
SCTP_CLIENT = """
import socket, struct, sys
address, own = sys.argv[1:]
with socket.socket(socket.AF_INET, socket.SOCK_RAW, 132) as raw:
    raw.bind((own, 0))
    raw.settimeout(60)
    for port in range(40000, 40012):
        for _ in range(2):
            raw.sendto(struct.pack("!HHII", port, 36412, 0, 0) + bytes(20), (address, 0))
            packet, source = raw.recvfrom(65535)
            assert source[0] == address and struct.unpack_from("!HH", packet, 20) == (36412, port)
            print(packet[32:].decode(), flush=True)
"""


class Checked:
    """The farm, and its services: one for each kind of check and family of addresses."""

    def __init__(self, lab, directory):
        self.lab, self.network = lab, Network(lab, directory)
        names = ("lb", "web1", "web2", "web3", "client")
        self.lb, self.web1, self.web2, self.web3, self.client = (self.network.host(name) for name in names)
        self.box, self.inside = self.web3.container("box", 7), self.client.container("inside")
        self.files = certificate(directory)
        script = Path("/tmp") / f"overlay-test-{os.getpid()}-check"
        lab.on_exit(lambda: script.unlink(missing_ok=True))
        script.write_text(SCRIPT)
        script.chmod(0o755)
        self.script = str(script)
        self.vips = {}
        self.network.more = "".join(
            self._service(kind, version, number) for version in VIPS for number, kind in enumerate(KINDS, 1)
        )
        self.network.more += SCTP + BOTH
        self.processes = []

    def _service(self, kind, version, number):
        protocol, port, check, _ = KINDS[kind]
        vip = self.vips[kind, version] = VIPS[version].format(number)
        box = self.box.address if version == 4 else self.box.address6
        check = (
            check.replace("{0}", str(self.files[0]))
            .replace("{1}", str(self.files[1]))
            .replace("{2}", self.script)
        )
        return f"""
[services."{kind.replace(" ", "-")}{version}"]
address = "{vip}"
ports = [{port}]
protocol = "{protocol}"
directors = ["lb"]
scheduler = "rr"
servers = ["web1", {{ peer = "web2", port = {port + ADD} }}, {{ peer = "web3", address = "{box}" }}]
check = {{ {check}, {TIMES} }}
"""

    def serve(self):
        for namespace, name, add in (
            (self.web1.namespace, "web1", 0),
            (self.web2.namespace, "web2", ADD),
            (self.web2.namespace, "web2", 0),  # checks at another port are not mapped
            (self.box.namespace, "web3", 0),
        ):
            process = namespace.popen(
                *(sys.executable, PROGRAM, name, str(add), *map(str, self.files)), stdout=subprocess.PIPE
            )
            self.processes.append(process)
        for process in self.processes:
            assert process.stdout.readline() == "ready\n"

    def end(self):
        for process in self.processes:
            self.lab.end_process(process)
        self.processes = []

    def servers(self):
        """Return the states and reasons of the servers of all services, by name."""
        return {
            each["name"]: [(server["state"], server["reason"]) for server in each["servers"]]
            for each in self.lb.services()
            if each["name"] not in {"sctp", "both"}
        }

    def wait_states(self, states):
        """Wait until the servers of each service have the state that *states* has for its kind."""
        last = {}

        def are_so():
            nonlocal last
            last = self.servers()
            return all({state for state, _ in found} == {states[name[:-1]]} for name, found in last.items())

        try:
            wait_until(are_so, PATIENCE)
        except AssertionError:
            wrong = {
                name: found
                for name, found in last.items()
                if {state for state, _ in found} != {states[name[:-1]]}
            }
            raise AssertionError(wrong) from None
        return last


def certificate(directory):
    """Return the files of a self-signed certificate for www.example.org, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "www.example.org")])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("www.example.org")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


@pytest.fixture(scope="module")
def checked(module_lab, tmp_path_factory):
    made = Checked(module_lab, tmp_path_factory.mktemp("checked"))
    made.serve()
    made.lb.namespace.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    made.network.start()
    made.lb.wait_up(made.web1, made.web2, made.web3)
    yield made
    made.network.close()


NAMES = [kind.replace(" ", "-") for kind in KINDS]
UP = dict.fromkeys(NAMES, "up")


@pytest.fixture(scope="module")
def up(checked):
    """What is reported about servers that all work."""
    return checked.wait_states(UP)


@pytest.mark.parametrize("version", VIPS)
@pytest.mark.parametrize("kind", KINDS)
def test_servers_of_every_form_are_up_by_every_kind_of_check(checked, up, kind, version):
    told = KINDS[kind][3].replace("{2}", checked.script)
    assert up[f"{kind.replace(' ', '-')}{version}"] == [("up", told)] * 3


@pytest.mark.parametrize("size", [100, 4000])
@pytest.mark.parametrize("version", VIPS)
def test_datagrams_are_answered_by_all_servers_also_in_fragments(checked, up, version, size):
    address = checked.vips["udp", version]
    said = checked.inside.run(sys.executable, "-c", CLIENT, address, "9000", str(size)).split()
    assert set(said) == {"web1", "web2", "web3"}


def refusals(found):
    """Return the servers that refused last; the kernel of a host limits how many datagrams per second it refuses."""
    return {
        (name, place)
        for name in ("tcp4", "http6", "udp4")
        for place, (_, reason) in enumerate(found[name])
        if reason == "connection refused"
    }


def test_servers_that_are_gone_are_down_by_every_kind_that_asks_them_and_up_when_they_are_back(checked, up):
    checked.end()
    down = {name: "up" if name in {"ping", "script"} else "down" for name in NAMES}
    try:
        checked.wait_states(down)
        # A check under way at the end of a server got no answer; the next one was refused.
        refused = set()
        wait_until(lambda: len(refused.update(refusals(checked.servers())) or refused) == 9, PATIENCE)
    finally:
        checked.serve()
    checked.wait_states(UP)


def test_server_that_fails_by_one_ip_version_serves_the_other_alone(checked, up):
    def given():
        (told,) = checked.lb.services("both")
        return [(each["state"], each["takes_by"]) for each in told["servers"]]

    wait_until(lambda: given() == [("up", {}), ("up", {})], PATIENCE)
    nft(checked.web1.namespace, REFUSING % BOTH_VIPS[6])
    try:
        wait_until(lambda: given() == [("up", {"ipv6": "nothing"}), ("up", {})], PATIENCE)
        for address in BOTH_VIPS.values():
            checked.inside.run(sys.executable, "-c", CONNECTING, address)
    finally:
        nft(checked.web1.namespace, "delete table inet refusing")
    wait_until(lambda: given() == [("up", {}), ("up", {})], PATIENCE)


def test_checks_outlive_the_forwarder_and_are_not_counted_as_packets_of_clients(checked, up):
    before = checked.lb.log
    for _ in range(2):
        forwarder = checked.lb.status()["forwarder_pid"]
        os.kill(forwarder, signal.SIGKILL)
        wait_until(lambda pid=forwarder: checked.lb.status()["forwarder_pid"] not in {None, pid}, PATIENCE)
        time.sleep(1.5)  # several of each check
    checked.lb.wait_up(checked.web1, checked.web2, checked.web3)
    checked.wait_states(UP)

    assert "server down" not in checked.lb.log[len(before) :]
    servers = [server for each in checked.lb.services() for server in each["servers"]]
    counts = {(each["packets"], each["active_flows"], each["inactive_flows"]) for each in servers}
    assert counts == {(0, 0, 0)}


def test_forwarder_that_hangs_takes_no_server_down(checked, up):
    before, forwarder = checked.lb.log, checked.lb.status()["forwarder_pid"]
    os.kill(forwarder, signal.SIGSTOP)
    time.sleep(5.0)  # longer than a check may take
    os.kill(forwarder, signal.SIGCONT)
    time.sleep(4.0)  # all failures have been noticed by then

    assert "server down" not in checked.lb.log[len(before) :]
    checked.wait_states(UP)
    assert checked.lb.status()["forwarder_pid"] == forwarder


def test_agent_of_a_server_that_is_stopped_takes_it_down_by_every_kind(checked, up):
    checked.web1.stop()
    try:
        wait_until(
            lambda: all(
                found[0][0] == "down" or name.startswith("script")
                for name, found in checked.servers().items()
            ),
            PATIENCE,
        )
    finally:
        checked.web1.start()
    checked.wait_states(UP)


def test_sctp_associations_are_spread_and_stay_with_their_server(checked):
    """By raw packets: this needs no SCTP of the kernel."""
    for host in (checked.web1, checked.web2):
        wait_until(lambda host=host: SCTP_VIP in host.namespace.run("ip", "address"), PATIENCE)
        server = host.namespace.popen(
            sys.executable, "-c", SCTP_SERVER, host.name, SCTP_VIP, stdout=subprocess.PIPE
        )
        assert server.stdout.readline() == "ready\n"
    said = checked.inside.run(sys.executable, "-c", SCTP_CLIENT, SCTP_VIP, checked.inside.address).split()
    pairs = list(zip(said[::2], said[1::2], strict=True))
    assert all(one == other for one, other in pairs)
    assert {one for one, _ in pairs} == {"web1", "web2"}
