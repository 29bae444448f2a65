"""A peers file that changes while traffic flows: the difference is applied, and nothing else is affected."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time

import pytest

from overlay.crypto.keys import PrivateKey, encode_key
from overlay.host.sockets.leaving import LATER
from overlay.link.messages import REPLACED_TIME
from tests.netns.network import (
    PATIENCE,
    Network,
    arrives,
    deliver,
    descriptors,
    icmp_error,
    is_silent,
    pinging,
    udp_pair,
)
from tests.netns.topology import wait_until


@pytest.fixture
def network(lab, tmp_path):
    made = Network(lab, tmp_path)
    yield made
    made.close()


@pytest.fixture
def trio(network):
    """Three hosts; the third's agent is not started yet."""
    paris, tokyo, quito = network.host("paris"), network.host("tokyo"), network.host("quito")
    quito.settings["subnets"] = ["10.244.3.0/24"]
    paris.start()
    tokyo.start()
    paris.wait_up(tokyo)
    return paris, tokyo, quito


@pytest.fixture
def steady(trio, tmp_path):
    """A ping between the two running hosts; when the test ends, none of its packets may be missing."""
    paris, tokyo, _ = trio
    with pinging(paris.namespace, tokyo.address, tmp_path) as pinger:
        yield pinger
    assert pinger.lost == []


# Changes that lose nothing


def test_added_peer_is_reached_and_removed_peer_is_not(trio, network, steady):
    paris, _, quito = trio
    without = network.toml().partition("[peers.quito]")[0]
    assert "reloaded" in paris.reload(without)
    assert "10.244.3.0" not in str(paris.status())

    quito.start()
    assert "reloaded" in paris.reload()
    paris.ping(quito.address, 3)
    steady.go_on()

    assert "reloaded" in paris.reload(without)
    assert is_silent(paris.namespace, quito.address)
    assert [row["name"] for row in paris.status()["peers"]] == ["tokyo"]
    assert "peer removed peer=quito" in paris.log
    steady.go_on()


def test_keys_of_a_removed_peer_open_nothing_any_more(trio, network, steady):
    paris, _, quito = trio
    quito.start()
    paris.ping(quito.address)
    with udp_pair(quito.namespace, paris.namespace, paris.address) as (near, far):
        deliver(near, far, b"while it is a peer")
        paris.reload(network.toml().partition("[peers.quito]")[0])
        before = paris.drops()

        assert not arrives(near, far, b"afterwards")

    wait_until(
        lambda: paris.drops().get("unknown_index", 0) > before.get("unknown_index", 0),
        PATIENCE,
        "what quito sent to be dropped",
    )
    # A new handshake does not help it either.
    quito.stop()
    quito.start()
    wait_until(lambda: paris.drops().get("initiation_unknown_peer"), PATIENCE, "its initiation to be refused")


def test_new_prefixes_of_a_peer_lead_to_it(trio, network, steady):
    paris, tokyo, _ = trio
    tokyo.namespace.run("ip", "address", "add", "192.168.77.1/32", "dev", "lo")
    tokyo.namespace.run("ip", "address", "add", "10.244.22.1/32", "dev", "lo")
    assert is_silent(paris.namespace, "10.244.22.1")

    tokyo.settings["subnets"] += ["192.168.77.0/24", "10.244.22.0/24"]
    for host in (paris, tokyo):
        assert "reloaded" in host.reload()

    paris.ping("192.168.77.1")
    paris.ping("10.244.22.1")
    assert "192.168.77.0/24 dev overlay0" in paris.namespace.run("ip", "route")
    steady.go_on()

    tokyo.settings["subnets"] = tokyo.settings["subnets"][:2]
    paris.reload()
    assert "192.168.77.0/24" not in paris.namespace.run("ip", "route")
    assert is_silent(paris.namespace, "10.244.22.1")
    steady.go_on()


def test_own_subnets_change(trio, network, steady):
    paris, tokyo, _ = trio
    paris.namespace.run("ip", "address", "add", "10.244.11.1/32", "dev", "lo")
    paris.settings["subnets"].append("10.244.11.0/24")
    paris.settings["address"] = [paris.address, paris.address6]

    for host in (paris, tokyo):
        assert "reloaded" in host.reload()

    tokyo.ping("10.244.11.1")
    steady.go_on()
    paris.settings["subnets"] = paris.settings["subnets"][:2]
    paris.settings["address"] = [paris.address, "fd00:244:1::77"]
    for host in (paris, tokyo):
        assert "reloaded" in host.reload()
    tokyo.ping("fd00:244:1::77")
    assert "fd00:244:1::77/128" in paris.namespace.run("ip", "address", "show", "overlay0")
    steady.go_on()


def test_mtu_changes(trio, network, steady):
    paris, tokyo, _ = trio
    for mtu in (1380, 1420, 1300):
        network.settings["mtu"] = mtu
        for host in (paris, tokyo):
            assert "reloaded" in host.reload()
            assert host.status()["mtu"] == mtu
            assert f"mtu {mtu} " in host.namespace.run("ip", "link", "show", "overlay0")
        steady.go_on(10)


def test_listen_port_changes(trio, network, steady):
    paris, tokyo, _ = trio
    for port in (4500, 4501, 51820):
        tokyo.settings["listen_port"] = port
        assert "reloaded" in tokyo.reload()
        paris.wait_peer(
            tokyo, "at its new port", lambda row, port=port: row["endpoint"] == f"{tokyo.outside}:{port}"
        )
        steady.go_on()
    paris.settings["listen_port"] = 4502
    assert "reloaded" in paris.reload()
    tokyo.wait_peer(paris, "at its new port", lambda row: row["endpoint"] == f"{paris.outside}:4502")
    steady.go_on()


STRANGER = """
import itertools, os, socket, sys, time
os.setgroups([]); os.setgid(65534); os.setuid(65534)
address, deadline, taken = sys.argv[1], time.monotonic() + 600, []
flags = [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)]
print("begun", flush=True)
for round_ in itertools.count():
    for port in map(int, sys.argv[2:]):
        for chosen in flags:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                for flag in chosen:
                    udp.setsockopt(socket.SOL_SOCKET, flag, 1)
                try:
                    udp.bind((address, port))
                except OSError:
                    continue
                print("took", port, chosen, flush=True)
    if time.monotonic() > deadline or os.getppid() == 1:
        break
"""


def test_no_other_user_can_take_a_port_that_is_gone_to_or_left(trio, network, steady, tmp_path):
    _, tokyo, _ = trio
    log = tmp_path / "stranger"
    with log.open("w") as output:
        stranger = tokyo.namespace.popen(
            sys.executable, "-c", STRANGER, tokyo.outside, "51820", stdout=output, stderr=output
        )
    wait_until(lambda: "begun" in log.read_text(), PATIENCE, "the stranger to begin")
    for fields in (
        {"listen_port": 4500},
        {"listen_port": 51820},
        {"listen": [tokyo.outside]},
        {"listen": None},
        {"listen_port": 4500},
        {"listen_port": 51820, "listen": [tokyo.outside]},
        {"listen": [tokyo.outside, tokyo.outside6]},
        {"listen": None},
    ):
        tokyo.settings.update(fields)
        assert "reloaded" in tokyo.reload(), fields
        steady.go_on(10)
    stranger.terminate()
    stranger.wait(PATIENCE)
    assert log.read_text() == "begun\n"


@pytest.mark.parametrize("flags", [(socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)])
def test_port_of_which_another_user_has_one_address_is_refused(trio, network, steady, flags):
    _, tokyo, _ = trio
    with tokyo.namespace.entered():
        os.seteuid(65534)
        try:
            stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        finally:
            os.seteuid(0)
    with stranger:
        for flag in flags:
            stranger.setsockopt(socket.SOL_SOCKET, flag, 1)
        stranger.bind((tokyo.outside, 51821))
        tokyo.settings["listen_port"] = 51821

        assert "UDP port 51821 is taken" in tokyo.reload()

        assert tokyo.status()["port"] == 51820
        tokyo.settings["listen_port"] = 51820
        assert "reloaded" in tokyo.reload()
        stranger.settimeout(0)
        with pytest.raises(BlockingIOError):
            stranger.recv(10)


def test_listen_addresses_change(trio, network, steady):
    _, tokyo, _ = trio
    for listen in ([tokyo.outside], [tokyo.outside, tokyo.outside6], None):
        tokyo.settings["listen"] = listen
        assert "reloaded" in tokyo.reload()
        steady.go_on()
    # The socket for one address received datagrams until it was closed.
    time.sleep(REPLACED_TIME + LATER)
    steady.go_on()


def test_keepalive_changes(trio, network, steady):
    paris, _, quito = trio
    quito.start()
    paris.ping(quito.address)
    before = quito.peer(paris)["rx_bytes"]
    quito.settings["keepalive"] = 1

    assert "reloaded" in paris.reload()

    quito.wait_peer(paris, "keeping alive", lambda row: row["rx_bytes"] >= before + 2 * 32)
    quito.settings["keepalive"] = 0
    assert "reloaded" in paris.reload()
    assert paris.peer(quito)["keepalive"] == 0


def test_preshared_key_changes(trio, network, steady, tmp_path):
    paris, tokyo, _ = trio
    path = tmp_path / "tokyo.psk"
    for _ in range(2):
        fresh = paris.overlay("genpsk").stdout
        made = [host.log.count("handshake completed") for host in (paris, tokyo)]
        path.write_text(fresh)  # the agents may see this at once, without being told
        path.chmod(0o600)
        tokyo.settings["preshared_key_file"] = str(path)
        for host in (paris, tokyo):
            assert "reloaded" in host.reload()
        wait_until(
            lambda made=made: (
                all(
                    host.log.count("handshake completed") > count
                    for host, count in zip((paris, tokyo), made, strict=True)
                )
                and "role=initiator" in (paris.log + tokyo.log)
            ),
            PATIENCE,
            "a handshake with the new key",
        )
        steady.go_on()


def test_endpoint_changes(trio, network, steady):
    paris, tokyo, _ = trio
    tokyo.settings["endpoint"] = f"[{tokyo.outside6}]"

    assert "reloaded" in paris.reload()

    paris.wait_peer(tokyo, "by IPv6", lambda row: row["endpoint"] == f"[{tokyo.outside6}]:51820")
    tokyo.wait_peer(paris, "by IPv6", lambda row: row["endpoint"] == f"[{paris.outside6}]:51820")
    steady.go_on()


def test_file_that_changes_is_read_without_a_signal(trio, network, steady):
    paris, _, _ = trio
    network.settings["mtu"] = 1400

    paris.write()

    wait_until(lambda: paris.status()["mtu"] == 1400, PATIENCE, "the change to be noticed")
    wait_until(lambda: "reloaded cause=file" in paris.log, PATIENCE, "the reload to be logged")


def test_reloads_one_after_the_other_leave_no_descriptor(trio, network, steady):
    paris, _, _ = trio
    forwarder = paris.status()["forwarder_pid"]
    paris.reload()
    before, before_forwarder = descriptors(paris.process.pid), descriptors(forwarder)

    for round_ in range(6):
        network.settings["mtu"] = 1400 + round_
        paris.settings["listen_port"] = 5000 + round_
        paris.settings["listen"] = [paris.outside] if round_ % 2 else None
        paris.reload()

    paris.settings["listen"] = None
    paris.reload()
    # Replaced sockets are read for ten more seconds, and kept a little longer.  Meanwhile wg's socket of this name may
    # have become free on a machine that runs other agents, which is two descriptors.
    wait_until(
        lambda: descriptors(paris.process.pid) <= before + 2, PATIENCE, "the agent to close the old sockets"
    )
    wait_until(lambda: descriptors(forwarder) <= before_forwarder, PATIENCE, "the old sockets to be closed")


# Prefixes that move between peers


def test_prefix_that_moves_to_another_peer_leads_there_and_is_no_longer_the_first_s(trio, network, steady):
    paris, tokyo, quito = trio
    quito.start()
    for host in (tokyo, quito):
        host.namespace.run("ip", "address", "add", "10.244.50.1/32", "dev", "lo")

    def leads_to_quito():
        before = paris.peer(quito)["tx_packets"]
        paris.ping("10.244.50.1", 20)
        return paris.peer(quito)["tx_packets"] >= before + 20

    def change(prefix, owner, former=None):
        owner.settings["subnets"].append(prefix)
        if former is not None:
            former.settings["subnets"].remove(prefix)
        assert "reloaded" in paris.reload()

    change("10.244.50.0/24", tokyo)
    assert not leads_to_quito()
    change("10.244.50.0/24", quito, tokyo)
    assert leads_to_quito()
    change("10.244.50.1/32", tokyo)
    assert not leads_to_quito()
    change("10.244.50.1/32", quito, tokyo)
    assert leads_to_quito()
    steady.go_on()


def test_source_is_checked_against_the_longest_prefix_and_the_endpoint_moves_all_the_same(trio, network):
    paris, tokyo, quito = trio
    tokyo.namespace.run("ip", "address", "add", "10.244.2.7/32", "dev", "lo")
    with udp_pair(paris.namespace, tokyo.namespace, "10.244.2.7") as (far, near):
        near.connect((paris.address, far.getsockname()[1]))
        deliver(near, far, b"covered")
        quito.settings["subnets"].append("10.244.2.7/32")
        assert "reloaded" in paris.reload()
        # Tokyo moves, and only a datagram that it makes itself shows that: its agent does not reload.
        tokyo.move("192.0.2.102")
        before = paris.drops(tokyo).get("source", 0)

        assert not arrives(near, far, b"another's")

        wait_until(
            lambda: paris.drops(tokyo).get("source", 0) > before, PATIENCE, "what tokyo sent to be dropped"
        )
        paris.wait_peer(tokyo, "moved", lambda row: row["endpoint"] == "192.0.2.102:51820")
        quito.settings["subnets"].pop()
        assert "reloaded" in paris.reload()
        deliver(near, far, b"covered again")


def test_overlapping_prefixes_come_and_go_in_awkward_orders(trio, network, steady):
    paris, _, quito = trio
    odd = ["0.0.0.0/0", "10.0.0.0/8", "10.192.0.0/10", "10.240.0.0/12", "10.244.0.0/17", "::/0", "f000::/4"]
    odd += ["2000::/4", "fd00:200::/37", "fd00:240::/75", "fd00:240::/111"]
    own = list(quito.settings["subnets"])
    for chosen in (odd[::2], odd[1::2], odd, odd[::-3], []):
        quito.settings["subnets"] = own + list(chosen)
        assert "reloaded" in paris.reload(), chosen
        steady.go_on(5)
    without = network.toml().partition("[peers.quito]")[0]
    assert "reloaded" in paris.reload(without)
    assert "0.0.0.0/0" not in paris.namespace.run("ip", "route", "show", "table", "all")


# What is refused


def test_wrong_file_is_refused_with_its_reason_and_the_last_good_table_stays(trio, network, steady):
    paris, tokyo, _ = trio
    good = network.toml()
    for wrong, reason in (
        (good.replace("10.244.2.0/24", "10.244.2.1/24"), "10.244.2.0/24"),
        ("[network", "line"),
        (good.replace("[peers.tokyo]", "[peers.tokyo]\ncolour = 1"), "colour"),
        (good.replace(tokyo.public_key, tokyo.public_key[:40]), "public_key"),
        ("", "prefix"),
    ):
        line = paris.reload(wrong)

        assert line.startswith("ERROR reload refused cause=SIGHUP, the previous table stays in force")
        assert reason in line
        assert reason in paris.status()["reload_error"]
        assert reason in paris.overlay("status").stdout
        assert paris.peer(tokyo)["state"] == "up"
    paris.peers_path.unlink()
    paris.process.send_signal(signal.SIGHUP)
    wait_until(
        lambda: "there is no such file" in (paris.status()["reload_error"] or ""),
        PATIENCE,
        "the loss to be noticed",
    )
    steady.go_on()

    assert "reloaded" in paris.reload(good)
    assert paris.status()["reload_error"] is None


def test_own_key_changes_only_with_a_restart(trio, network, steady):
    paris, _, _ = trio
    other = encode_key(PrivateKey(bytes(range(32))).public)

    line = paris.reload(network.toml().replace(paris.public_key, other))

    assert "takes effect only after a restart" in line
    paris.key_path.write_text(PrivateKey(bytes(range(32))).to_base64())
    assert "reloaded" in paris.reload(network.toml())
    assert "takes effect only after a restart" in paris.overlay("status").stdout
    paris.key_path.write_text(paris.private_key.to_base64())
    assert "reloaded" in paris.reload()
    assert "takes effect only after a restart" not in paris.overlay("status").stdout


def test_port_that_is_taken_is_refused_and_the_old_one_stays(trio, network, steady):
    paris, _, _ = trio
    with paris.namespace.entered():
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with other:
        other.bind(("0.0.0.0", 7777))
        paris.settings["listen_port"] = 7777

        line = paris.reload()

        assert "UDP port 7777 is taken" in line
        assert paris.status()["port"] == 51820
        steady.go_on()


def test_peer_with_a_new_key_is_another_peer(trio, network):
    paris, tokyo, _ = trio
    tokyo.stop()
    tokyo.private_key = PrivateKey(bytes(range(32)))
    tokyo.public_key = tokyo.settings["public_key"] = encode_key(tokyo.private_key.public)
    tokyo.key_path.write_text(tokyo.private_key.to_base64())
    tokyo.write()
    assert "reloaded" in paris.reload()

    tokyo.start()

    paris.ping(tokyo.address)
    assert paris.peer(tokyo)["public_key"] == tokyo.public_key


# Many


def test_thousands_of_peers_and_prefixes_are_taken_while_traffic_flows(trio, network, steady):
    paris, _, _ = trio
    crowd = []
    for number in range(2000):
        key = encode_key(PrivateKey((number << 8).to_bytes(32, "big")).public)
        subnets = [f'"10.{100 + number // 250}.{number % 250}.{16 * part}/28"' for part in range(4)]
        crowd.append(f'[peers.n{number}]\npublic_key = "{key}"\nsubnets = [{", ".join(subnets)}]\n')

    assert "reloaded" in paris.reload(network.toml() + "".join(crowd))

    listed = paris.namespace.run("ip", "route", "show", "dev", "overlay0")
    assert len(re.findall(r"/28", listed)) == 8000
    assert len(paris.status()["peers"]) == 2002
    assert len(paris.overlay("status", "--json").stdout) > 100_000
    assert icmp_error(paris.namespace, "10.101.0.1").code == 1
    steady.go_on()
    assert "reloaded" in paris.reload()
    assert "/28" not in paris.namespace.run("ip", "route", "show", "dev", "overlay0")
