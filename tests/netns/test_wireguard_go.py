"""wireguard-go as the other side, in both roles: the agent is a full peer of it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import pytest

from tests.netns.network import (
    PATIENCE,
    PORT,
    Container,
    Host,
    Network,
    WireGuard,
    deliver,
    is_silent,
    ping,
    pinging,
    transfer_both_ways,
    udp_pair,
)
from tests.netns.topology import wait_until

pytestmark = pytest.mark.skipif(
    not (shutil.which("wireguard-go") and shutil.which("wg")), reason="needs wireguard-go and wg"
)

# Bytes of UDP payload (whitepaper section 5.4)
INITIATION, RESPONSE, KEEPALIVE = 148, 92, 32
ECHO = 128  # a ping of 84 bytes, padded to 96, header and tag
TENS = range(
    10, 1000, 10
)  # how often ten pings may have been sent: of the first ten, some may have been late

SHORT = {
    "rekey_after_time": 1.5,
    "reject_after_time": 8.0,
    "rekey_timeout": 1.0,
    "rekey_attempt_time": 10.0,
    "rekey_jitter": 0.1,
    "keepalive_timeout": 2.0,
}


@dataclass(frozen=True)
class Pair:
    """A host with our agent, one with wireguard-go, and a container behind each."""

    ours: Host
    theirs: WireGuard
    web: Container
    shop: Container


def build(lab, directory, *, preshared=False, **settings) -> Pair:
    network = Network(lab, directory, **settings)
    ours, theirs = network.host("ours"), network.wireguard("theirs")
    if preshared:
        path = directory / "theirs.psk"
        path.write_text(theirs.namespace.run("wg", "genpsk"))
        path.chmod(0o600)
        theirs.settings["preshared_key_file"] = str(path)
    return Pair(ours, theirs, ours.container("web"), theirs.container("shop"))


def knows(pair: Pair, *, endpoint: str | None = None, **settings: str) -> None:
    """Tell wireguard-go about our host."""
    path = pair.theirs.settings.get("preshared_key_file")
    if path is not None:
        settings["preshared_key"] = path
    pair.theirs.meet(pair.ours, endpoint=endpoint, **settings)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((role, outer, preshared), id=f"{role}-calls-over-{outer}{'-with-psk' * preshared}")
        for role, outer, preshared in (
            ("ours", "IPv4", False),
            ("theirs", "IPv4", True),
            ("ours", "IPv6", True),
            ("theirs", "IPv6", False),
        )
    ],
)
def pair(request, module_lab, tmp_path_factory):
    role, outer, preshared = request.param
    made = build(module_lab, tmp_path_factory.mktemp("pair"), preshared=preshared)
    ours, theirs = made.ours, made.theirs
    theirs.start()
    if role == "ours":
        theirs.settings["endpoint"] = theirs.outside if outer == "IPv4" else f"[{theirs.outside6}]"
        knows(made)
        ours.start()
        ours.wait_up(theirs)
    else:
        theirs.settings["endpoint"] = None
        ours.start()
        knows(made, endpoint=f"{ours.outside if outer == 'IPv4' else f'[{ours.outside6}]'}:{PORT}")
        theirs.ping(ours.address)
    yield made
    made.ours.network.close()


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_hosts_and_containers_reach_each_other(pair, inner):
    for one, other in (
        (pair.ours, pair.theirs),
        (pair.theirs, pair.ours),
        (pair.web, pair.shop),
        (pair.shop, pair.web),
    ):
        one.ping(getattr(other, inner), 5)


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_flood_of_pings_is_answered_to_the_last_both_ways(pair, inner):
    ping(pair.web.namespace, getattr(pair.shop, inner), 100, interval=0)
    ping(pair.shop.namespace, getattr(pair.web, inner), 100, interval=0)


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_tcp_arrives_unchanged_both_ways(pair, inner):
    transfer_both_ways(pair.web.namespace, pair.shop.namespace, getattr(pair.shop, inner), 4 << 20)


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_datagrams_arrive_both_ways(pair, inner):
    with udp_pair(pair.web.namespace, pair.shop.namespace, getattr(pair.shop, inner)) as (near, far):
        deliver(near, far, b"hello")
        far.connect(near.getsockname()[:2])
        for size in (1, 1300, 8000):
            deliver(near, far, bytes(size))
            deliver(far, near, bytes(size))


def test_both_ends_count_the_same_bytes(pair):
    def counts():
        row, shown = pair.ours.peer(pair.theirs), pair.theirs.show(pair.ours)
        return row["tx_bytes"], shown.rx_bytes, row["rx_bytes"], shown.tx_bytes

    def settled():
        """Return the counts once nothing is in flight: traffic of other tests may continue for a while."""
        seen = [counts()]
        wait_until(lambda: seen.append(counts()) or seen[-1] == seen[-2], PATIENCE, "traffic to end")
        return seen[-1]

    def agree():
        before = settled()
        pair.web.ping(pair.shop.address, 20)
        sent, received, sent_back, received_back = (
            now - then for now, then in zip(settled(), before, strict=True)
        )
        return sent == received >= 20 * ECHO and sent_back == received_back >= 20 * ECHO

    wait_until(agree, PATIENCE, "both ends to count the same")


def test_packets_from_elsewhere_than_the_allowed_prefixes_are_dropped_by_both(pair):
    pair.ours.ping(pair.theirs.address)
    before = pair.ours.drops(pair.theirs).get("source", 0)
    for node, other in ((pair.theirs, pair.ours), (pair.ours, pair.theirs)):
        node.namespace.run("ip", "address", "add", "10.244.9.1/32", "dev", "lo")

        done = node.namespace.completed(*("ping", "-c3", "-W0.3", "-i0.1", "-I", "10.244.9.1", other.address))

        node.namespace.run("ip", "address", "delete", "10.244.9.1/32", "dev", "lo")
        assert " 0 received" in done.stdout
    wait_until(
        lambda: pair.ours.drops(pair.theirs).get("source", 0) == before + 3, what="the packets to be dropped"
    )


@pytest.fixture
def fresh(lab, tmp_path):
    """A pair on which nothing runs yet."""
    made = build(lab, tmp_path)
    yield made
    made.ours.network.close()


def test_ten_pings_of_theirs_cost_the_bytes_of_the_specification(fresh):
    ours, theirs = fresh.ours, fresh.theirs
    theirs.settings["endpoint"] = None
    ours.start()
    theirs.start()
    knows(fresh, endpoint=f"{ours.outside}:{PORT}")

    theirs.ping(ours.address, 10)

    shown, row = theirs.show(ours), ours.peer(theirs)
    count = row["rx_packets"]
    assert count in TENS
    # A keepalive confirms a session, or shows that the network of a host has changed, as at its start.
    assert shown.rx_bytes in {RESPONSE + count * ECHO, RESPONSE + count * ECHO + KEEPALIVE}
    assert shown.tx_bytes in {INITIATION + count * ECHO, INITIATION + count * ECHO + KEEPALIVE}
    assert (row["rx_bytes"], row["tx_bytes"]) == (shown.tx_bytes, shown.rx_bytes)
    assert row["tx_packets"] == count
    assert shown.latest_handshake > 0
    assert row["last_handshake"] is not None


def test_ten_pings_of_ours_cost_the_bytes_of_the_specification(fresh):
    ours, theirs = fresh.ours, fresh.theirs
    theirs.start()
    knows(fresh)
    ours.start()

    ours.ping(theirs.address, 10)

    shown, row = theirs.show(ours), ours.peer(theirs)
    count = row["tx_packets"]
    assert count in TENS
    assert row["rx_bytes"] == RESPONSE + count * ECHO
    # A keepalive confirms a session, or shows that the network of a host has changed, as at its start.
    assert row["tx_bytes"] - count * ECHO - INITIATION in {0, KEEPALIVE, 2 * KEEPALIVE}
    assert (shown.rx_bytes, shown.tx_bytes) == (row["tx_bytes"], row["rx_bytes"])


def test_interface_of_ours_counts_what_the_peer_counts(fresh):
    ours, theirs = fresh.ours, fresh.theirs
    theirs.start()
    knows(fresh)
    ours.start()

    ours.ping(theirs.address, 10)

    row = ours.peer(theirs)
    assert row["tx_packets"] in TENS
    assert row["rx_packets"] == row["tx_packets"]
    received = ours.namespace.run("cat", "/sys/class/net/overlay0/statistics/rx_packets")
    assert int(received) == row["rx_packets"]


def test_keepalive_of_theirs_starts_when_it_is_set(fresh):
    ours, theirs = fresh.ours, fresh.theirs
    theirs.settings["endpoint"] = None
    ours.start()
    theirs.start()

    knows(fresh, endpoint=f"{ours.outside}:{PORT}", persistent_keepalive="1")

    ours.wait_up(theirs)
    before = ours.peer(theirs)["rx_bytes"]
    ours.wait_peer(theirs, "kept alive", lambda row: row["rx_bytes"] >= before + 2 * KEEPALIVE)


def test_keepalive_of_ours_starts_with_the_agent(fresh):
    ours, theirs = fresh.ours, fresh.theirs
    theirs.settings["keepalive"] = 1
    theirs.start()
    knows(fresh)
    assert theirs.show(ours).rx_bytes == 0

    ours.start()

    wait_until(
        lambda: theirs.show(ours).rx_bytes >= INITIATION + 3 * KEEPALIVE, PATIENCE, "keepalives to arrive"
    )


def test_each_follows_the_other_to_another_port_and_theirs_to_another_address(fresh):
    ours, theirs = fresh.ours, fresh.theirs
    theirs.start()
    knows(fresh)
    ours.start()
    ours.ping(theirs.address)

    theirs.set("listen-port", "4500")
    theirs.ping(ours.address)
    ours.wait_peer(theirs, "at its new port", lambda row: row["endpoint"] == f"{theirs.outside}:4500")

    ours.settings["listen_port"] = 4501
    assert "reloaded" in ours.reload()
    ours.ping(theirs.address)
    wait_until(
        lambda: theirs.show(ours).endpoint == f"{ours.outside}:4501", PATIENCE, "wireguard-go to follow"
    )

    ours.move("192.0.2.101")
    wait_until(
        lambda: ours.ping(theirs.address) or theirs.show(ours).endpoint == "192.0.2.101:4501",
        PATIENCE,
        "wireguard-go to follow",
    )


def test_endpoint_moves_from_ipv4_to_ipv6(fresh):
    ours, theirs = fresh.ours, fresh.theirs
    theirs.start()
    knows(fresh)
    ours.start()
    ours.ping(theirs.address)

    knows(fresh, endpoint=f"[{ours.outside6}]:{PORT}")
    theirs.ping(ours.address)
    assert ours.peer(theirs)["endpoint"] == f"[{theirs.outside6}]:{PORT}"

    theirs.settings["endpoint"] = f"{theirs.outside}:{PORT}"
    theirs.settings["keepalive"] = 5
    ours.reload()
    ours.ping(theirs.address)


def test_traffic_goes_on_after_ours_restarts(fresh):
    ours, theirs = fresh.ours, fresh.theirs
    theirs.start()
    knows(fresh)
    ours.start()
    fresh.shop.ping(fresh.web.address)

    ours.kill()
    ours.start()

    fresh.web.ping(fresh.shop.address)
    fresh.shop.ping(fresh.web.address)


def test_traffic_goes_on_after_theirs_restarts(fresh):
    ours, theirs = fresh.ours, fresh.theirs
    theirs.start()
    knows(fresh)
    ours.start()
    ours.ping(theirs.address)

    theirs.stop()
    theirs.start()
    knows(fresh, endpoint=f"{ours.outside}:{PORT}")

    theirs.ping(ours.address)
    ours.ping(theirs.address)


def test_wrong_preshared_key_gives_no_session(fresh):
    ours, theirs = fresh.ours, fresh.theirs
    theirs.start()
    key = theirs.directory / "other.psk"
    key.write_text(theirs.namespace.run("wg", "genpsk"))
    theirs.meet(ours, endpoint=f"{ours.outside}:{PORT}", preshared_key=str(key))
    ours.start()

    assert is_silent(theirs.namespace, ours.address)
    wait_until(lambda: ours.drops().get("response_seal"), PATIENCE, "a response to be refused")
    assert ours.peer(theirs)["tx_packets"] == ours.peer(theirs)["rx_packets"] == 0


@pytest.mark.parametrize("caller", ["ours", "theirs"])
def test_no_packet_is_lost_while_keys_change_under_traffic(fresh, tmp_path, caller):
    ours, theirs = fresh.ours, fresh.theirs
    theirs.start()
    if caller == "ours":
        knows(fresh)
        ours.start(timing=SHORT)
    else:
        # wireguard-go has its own timers: here our agent initiates again, because it made the first session too.
        knows(fresh, endpoint=f"{ours.outside}:{PORT}", persistent_keepalive="1")
        ours.start(timing=SHORT)
    sender, receiver = (fresh.web, fresh.shop) if caller == "ours" else (fresh.shop, fresh.web)
    sender.ping(receiver.address)
    before = ours.log.count("role=initiator")

    with pinging(sender.namespace, receiver.address, tmp_path) as pinger:
        wait_until(
            lambda: ours.log.count("role=initiator") >= before + 3, PATIENCE, "keys to change three times"
        )

    assert pinger.lost == []
