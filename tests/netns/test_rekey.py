"""Keys that are renewed, expire and are wiped, with shortened timers."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from tests.netns.network import (
    PATIENCE,
    Network,
    connect,
    nft,
    pinging,
    transfer,
    udp_pair,
)
from tests.netns.topology import wait_until

SHORT = {
    "rekey_after_time": 1.0,
    "reject_after_time": 4.0,
    "rekey_timeout": 0.8,
    "rekey_attempt_time": 4.0,
    "rekey_jitter": 0.1,
    "keepalive_timeout": 1.0,
}


@pytest.fixture
def network(lab, tmp_path):
    made = Network(lab, tmp_path)
    yield made
    made.close()


@pytest.fixture
def pair(network):
    return launched(network)


def launched(network, **timing):
    """Return two hosts that have a session, with times that are SHORT but for *timing*."""
    paris, tokyo = network.host("paris"), network.host("tokyo")
    for host in (paris, tokyo):
        host.launch(timing={**SHORT, **timing})
    for host in (paris, tokyo):
        host.wait_ready()
    paris.wait_up(tokyo)
    return paris, tokyo


def handshakes(*hosts):
    return sum(host.log.count("handshake completed") for host in hosts)


def test_no_packet_is_lost_while_keys_change(network, tmp_path):
    # Keys are replaced as soon, but live longer: on a starved host, a handshake may take seconds.
    paris, tokyo = launched(network, reject_after_time=30.0, rekey_attempt_time=30.0)
    before = handshakes(paris)
    with (
        pinging(paris.namespace, tokyo.address, tmp_path, 0.01) as there,
        pinging(tokyo.namespace, paris.address, tmp_path, 0.01) as back,
    ):
        wait_until(lambda: handshakes(paris) >= before + 5, PATIENCE, "keys to change five times")

    assert there.lost == []
    assert back.lost == []


def test_tcp_goes_on_while_keys_change(pair):
    paris, tokyo = pair
    before = handshakes(paris)
    near, far = connect(paris.namespace, tokyo.namespace, tokyo.address)
    with near, far:
        while handshakes(paris) < before + 3:
            near.sendall(b"x" * 10_000)
            left = 10_000
            while left:
                left -= len(far.recv(left))
        transfer(near, far, 1 << 20)


def test_session_without_traffic_ends_and_the_next_packet_begins_another(network):
    # On a starved host a handshake may take longer than it has in SHORT: then it is given up, and the packet with it.
    paris, tokyo = launched(network, rekey_timeout=5.0, rekey_attempt_time=60.0)
    paris.wait_peer(tokyo, "idle", lambda row: row["state"] == "idle")
    before = handshakes(paris)

    # The packet that found no session waits for it, and is not lost.
    said = paris.namespace.completed("ping", "-n", "-c1", "-W30", tokyo.address).stdout

    assert "1 received" in said
    assert handshakes(paris) > before


def test_who_receives_and_says_nothing_sends_a_keepalive(pair):
    paris, tokyo = pair
    with udp_pair(paris.namespace, tokyo.namespace, tokyo.address) as (near, far):
        near.send(b"no answer needed")
        assert far.recv(100) == b"no answer needed"
        sent = tokyo.peer(paris)["tx_bytes"]

        tokyo.wait_peer(paris, "owed an answer", lambda row: row["tx_bytes"] >= sent + 32)


def test_silent_peer_is_called_again_and_the_silence_ends(pair):
    paris, tokyo = pair
    lost, back = (paris.log.count(f"peer {each} peer=tokyo") for each in ("lost", "back"))
    nft(
        tokyo.namespace,
        "table inet wall {\n chain wires {\n type filter hook input priority 0;\n"
        ' iifname "eth0" udp dport 51820 drop\n }\n}\n',
    )
    sender = paris.namespace.popen(
        "ping", "-n", "-i0.05", tokyo.address, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    paris.wait_peer(tokyo, "not answering", lambda row: row["state"] not in {"up", "idle"})
    wait_until(lambda: paris.log.count("peer lost peer=tokyo") > lost, PATIENCE, "the peer to be lost")
    assert paris.log.count("peer lost peer=tokyo") == lost + 1

    tokyo.namespace.run("nft", "delete", "table", "inet", "wall")

    paris.wait_up(tokyo)
    wait_until(lambda: paris.log.count("peer back peer=tokyo") > back, PATIENCE, "the peer to be back")
    paris.ping(tokyo.address)
    sender.send_signal(signal.SIGINT)
    sender.wait(PATIENCE)


def test_peer_that_does_not_answer_is_given_up_and_found_again(pair):
    paris, tokyo = pair
    lost = paris.log.count("peer lost peer=tokyo")
    tokyo.stop()
    sender = paris.namespace.popen(
        "ping", "-n", "-i0.05", tokyo.address, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    paris.wait_peer(tokyo, "given up", lambda row: row["state"] == "unreachable")
    assert paris.log.count("peer lost peer=tokyo") == lost + 1
    sender.send_signal(signal.SIGINT)
    sender.wait(PATIENCE)

    tokyo.start(timing=SHORT)

    paris.ping(tokyo.address)
    paris.wait_up(tokyo)


def test_idle_node_makes_no_handshakes(pair):
    paris, tokyo = pair
    paris.wait_peer(tokyo, "idle", lambda row: row["state"] == "idle")
    before = handshakes(paris, tokyo)
    bytes_before = paris.peer(tokyo)["tx_bytes"]

    time.sleep(2.0)  # two lifetimes of a key

    assert handshakes(paris, tokyo) == before
    assert paris.peer(tokyo)["tx_bytes"] == bytes_before
