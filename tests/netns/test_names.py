"""A peer that carries all traffic, and whose name is served by a name server behind it."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from overlay.resolver import RESOLVE_PAUSE
from tests.netns.network import PATIENCE, Network
from tests.netns.topology import wait_until

NAME = "tokyo.example.net"
NAME_SERVER = """
import socket, sys
from pathlib import Path
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("203.0.113.53", 53))
print("begun", flush=True)
while True:
    query, asker = server.recvfrom(512)
    end = query.index(0, 12) + 5
    address = Path(sys.argv[1]).read_text().strip()
    is_found = bool(address) and query[end - 3] == 1
    found = bytes.fromhex("c00c 0001 0001 00000005 0004") + socket.inet_aton(address) if is_found else b""
    head = query[:2] + bytes.fromhex("8180 0001 00") + bytes([is_found]) + bytes(4)
    server.sendto(head + query[12:end] + found, asker)
"""


@pytest.fixture
def network(lab, tmp_path):
    made = Network(lab, tmp_path)
    yield made
    made.close()


class Internet:
    """The name server, behind the gateway of paris."""

    def __init__(self, lab, network, paris, directory):
        self.directory = directory
        self.gateway = lab.namespace(network.namespace_name("gateway"))
        lab.plug(network.underlay, self.gateway.end("eth0", "192.0.2.254/24"), 1500, True)
        self.gateway.run("ip", "address", "add", "203.0.113.53/32", "dev", "lo")
        self.answer = directory / "answer"
        self.answer.write_text("192.0.2.2")
        paris.namespace.run("ip", "route", "add", "default", "via", "192.0.2.254")
        etc = Path("/etc/netns", paris.namespace.full_name)
        etc.mkdir(parents=True)
        lab.on_exit(lambda: [*(each.unlink() for each in etc.iterdir()), etc.rmdir()])
        (etc / "resolv.conf").write_text("nameserver 203.0.113.53\noptions timeout:1 attempts:1\n")
        (etc / "nsswitch.conf").write_text("hosts: files dns\n")
        self.start()

    def start(self):
        log = self.directory / "name-server"
        with log.open("w") as output:
            self.process = self.gateway.popen(
                sys.executable, "-c", NAME_SERVER, str(self.answer), stdout=output, stderr=output
            )
        wait_until(lambda: "begun" in log.read_text(), PATIENCE, "the name server")

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def exit_peer(lab, network, tmp_path):
    """Paris, whose exit is tokyo, configured by name; tokyo; and the internet."""
    paris, tokyo = network.host("paris", endpoint=None), network.host("tokyo", endpoint=NAME)
    tokyo.settings["subnets"] += ["0.0.0.0/0"]
    internet = Internet(lab, network, paris, tmp_path)
    tokyo.start()
    return paris, tokyo, internet


def test_an_exit_peer_is_found_by_its_name_at_the_start_and_when_it_moves(exit_peer):
    paris, tokyo, internet = exit_peer
    paris.start()
    paris.ping(tokyo.address)
    assert "dev overlay0" in paris.namespace.run("ip", "route", "get", "203.0.113.53")
    internet.answer.write_text("192.0.2.102")
    tokyo.move("192.0.2.102")

    wait_until(
        lambda: paris.peer(tokyo)["endpoint"] == "192.0.2.102:51820",
        1.5 * PATIENCE,
        "the new address to be found",
    )

    paris.ping(tokyo.address)


def test_an_exit_peer_is_found_when_the_name_server_is_late(exit_peer):
    paris, tokyo, internet = exit_peer
    internet.stop()
    paris.start()
    assert paris.peer(tokyo)["endpoint"] is None

    internet.start()

    wait_until(lambda: paris.peer(tokyo)["endpoint"] is not None, PATIENCE, "the name to be found")
    paris.ping(tokyo.address)


def test_a_name_that_does_not_resolve_is_noted_with_its_remedy_until_it_does(lab, network, tmp_path):
    paris, tokyo = network.host("paris"), network.host("tokyo", endpoint=NAME)
    internet = Internet(lab, network, paris, tmp_path)
    internet.answer.write_text("")
    paris.start()

    paris.wait_peer(tokyo, "unresolved", lambda row: row["state"] == "unresolved")
    shown = paris.overlay("status").stdout
    assert f"note        tokyo cannot be reached, because its endpoint {NAME} was not resolved (" in shown
    assert f"see what `getent ahosts {NAME}` finds on this host; it is looked up again every 10 s" in shown

    tokyo.start()
    internet.answer.write_text("192.0.2.2")
    wait_until(lambda: not paris.peer(tokyo)["notes"], PATIENCE, "the name to be found")
    paris.ping(tokyo.address)


def test_a_reload_to_a_name_that_does_not_resolve_says_that_the_old_address_is_in_use(lab, network, tmp_path):
    paris, tokyo = network.host("paris"), network.host("tokyo")
    internet = Internet(lab, network, paris, tmp_path)
    internet.answer.write_text("")
    network.start()
    paris.ping(tokyo.address)

    tokyo.settings["endpoint"] = NAME
    assert "reloaded" in paris.reload()

    said = "tokyo is still contacted at 192.0.2.2:51820, its last known address, because its endpoint "
    paris.wait_peer(tokyo, "noted", lambda row: any(note.startswith(said + NAME) for note in row["notes"]))
    assert f"WARNING {NAME} was not resolved" in paris.log
    paris.ping(tokyo.address)


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_the_last_address_of_a_name_is_kept_over_a_restart(exit_peer, ending):
    paris, tokyo, internet = exit_peer
    paris.start()
    paris.ping(tokyo.address)
    names = paris.control_path.with_suffix(".names")
    wait_until(names.exists, PATIENCE, "the address to be written")
    internet.stop()
    getattr(paris, ending)()

    paris.start()

    paris.ping(tokyo.address)


def test_the_addresses_of_names_are_all_that_stays_beside_the_control_socket(exit_peer):
    paris, tokyo, _ = exit_peer
    paris.start()
    paris.ping(tokyo.address)
    names = paris.control_path.with_suffix(".names")
    wait_until(names.exists, PATIENCE, "the address to be written")

    paris.stop()

    assert list(names.parent.glob(f"*.{paris.namespace.inode}.*")) == [names]


def test_rules_for_look_ups_go_at_the_end(exit_peer):
    paris, _, _ = exit_peer
    before = paris.namespace.run("ip", "rule"), paris.namespace.run("ip", "-6", "rule")
    paris.start()
    assert "uidrange" in paris.namespace.run("ip", "rule")

    paris.stop()

    assert (paris.namespace.run("ip", "rule"), paris.namespace.run("ip", "-6", "rule")) == before


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_peer_in_the_clear_is_found_where_its_name_leads_now(lab, network, tmp_path, is_asked):
    network.settings["encapsulation"] = "udp"
    paris = network.host("paris", public_key=None)
    tokyo = network.host("tokyo", public_key=None, endpoint=NAME)
    for host in (paris, tokyo):
        host.key_path.unlink()
    internet = Internet(lab, network, paris, tmp_path)
    tokyo.start("--node", "tokyo")
    paris.start()
    paris.ping(tokyo.address)
    time.sleep(RESOLVE_PAUSE)  # a name is not resolved twice within a moment, whoever asks
    internet.answer.write_text("192.0.2.102")
    tokyo.move("192.0.2.102")

    if is_asked:
        paris.process.send_signal(signal.SIGHUP)

    wait_until(lambda: paris.peer(tokyo)["endpoint"] == "192.0.2.102:8285", PATIENCE, "the new address")
    paris.ping(tokyo.address)


def test_an_endpoint_that_resolves_into_its_own_tunnel_is_said(lab, network, tmp_path):
    paris, _ = network.host("paris"), network.host("tokyo", endpoint=NAME)
    internet = Internet(lab, network, paris, tmp_path)
    paris.namespace.run("ip", "route", "add", "203.0.113.53", "via", "192.0.2.254")
    paris.namespace.run("ip", "route", "delete", "default")
    internet.answer.write_text("10.244.2.7")

    paris.start()

    wait_until(
        lambda: any("the endpoint of tokyo, 10.244.2.7, lies in" in note for note in paris.status()["notes"]),
        PATIENCE,
        "the note",
    )
