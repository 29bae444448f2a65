"""What `overlay export` writes runs by Debian's wg-quick and wireguard-go beside our agents,
and what is imported from it by ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.netns.network import INTERFACE, Host, Network, WireGuard, ping

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("wireguard-go", "wg", "wg-quick"))),
    reason="needs wireguard-go, wg and wg-quick",
)

OUTSIDE, OUTSIDE6 = "203.0.113.7", "2001:db8:ffff::7"  # behind the exit, in no subnet


class Phone:
    """A device configured only with the exported files."""

    def __init__(self, node: WireGuard) -> None:
        self.node = node
        self.interface = f"ph{os.getpid()}"
        self.conf = node.directory / f"{self.interface}.conf"

    def quick(self, verb: str) -> None:
        self.node.namespace.run("wg-quick", verb, str(self.conf))


@pytest.fixture(scope="module")
def network(module_lab, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export")
    network = Network(module_lab, directory)
    gate = network.host("gate", keepalive=25)
    gate.settings["subnets"] += ["0.0.0.0/0", "::/0"]
    network.host("office")
    phone = network.wireguard("phone", endpoint=None, listen_port=None)
    path = directory / "phone.psk"
    path.write_text(phone.namespace.run("wg", "genpsk"))
    path.chmod(0o600)
    phone.settings["preshared_key_file"] = str(path)
    gate.namespace.run("ip", "address", "add", f"{OUTSIDE}/32", "dev", "lo")
    gate.namespace.run("ip", "address", "add", f"{OUTSIDE6}/128", "dev", "lo")
    network.start()
    yield network
    network.close()


@pytest.fixture(scope="module")
def phone(network, module_lab):
    made = Phone(network.peers["phone"])
    gate = network.peers["gate"]
    written = gate.overlay(
        "export", "phone", "--peers", str(gate.peers_path), "--key", str(made.node.key_path)
    )
    assert (written.returncode, written.stderr) == (0, "")
    made.conf.write_text(written.stdout)
    made.conf.chmod(0o600)

    def end() -> None:
        subprocess.run(
            ["ip", "-n", made.node.namespace.full_name, "link", "delete", made.interface],
            check=False,
            capture_output=True,
        )

    module_lab.on_exit(end)
    made.quick("up")
    return made


def test_exported_file_reaches_every_peer_and_the_exit_in_both_families(network, phone):
    gate, office = network.peers["gate"], network.peers["office"]

    for address in (gate.address, gate.address6, office.address, office.address6, OUTSIDE, OUTSIDE6):
        ping(phone.node.namespace, address)
    ping(gate.namespace, phone.node.address)
    ping(office.namespace, phone.node.address6)


def test_exported_file_sets_preshared_keys_keepalive_and_prefixes(network, phone):
    dump = phone.node.namespace.run("wg", "show", phone.interface, "dump").splitlines()[1:]

    rows = {columns[0]: columns for columns in map(str.split, dump)}
    gate, office = (rows[network.peers[name].public_key] for name in ("gate", "office"))
    assert gate[1] == office[1] == (network.directory / "phone.psk").read_text().strip()
    assert (gate[7], office[7]) == ("25", "off")
    assert {"0.0.0.0/0", "::/0", "10.244.1.0/24"} <= set(gate[3].split(","))


def test_imported_file_runs_by_our_agent_in_place_of_wg_quick(network, phone):
    phone.quick("down")
    gate, office = network.peers["gate"], network.peers["office"]
    host = Host(network, "moved", phone.node.number, INTERFACE, {}, phone.node.namespace)
    made = host.overlay("import", str(phone.conf), "--keys", str(host.directory))
    assert made.returncode == 0, made.stderr
    host.key_path = host.directory / "phone.key"
    host.write(made.stdout)

    host.start()

    for address in (gate.address, office.address6, OUTSIDE, OUTSIDE6):
        host.ping(address)
    host.wait_up(gate, office)
    host.stop()
    phone.quick("up")
