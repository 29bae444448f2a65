"""`masquerade` and `forward` on hosts: what passes, what others see of it, and what is left behind."""

from __future__ import annotations

import shutil

import pytest

from tests.netns import dockerd
from tests.netns.dockerd import Dockerd
from tests.netns.network import PATIENCE, Network, is_silent
from tests.netns.topology import wait_until

OUTSIDE = "192.0.2.254"
CLOSED = """
iptables -P FORWARD DROP
iptables -t nat -A POSTROUTING -s 10.244.1.0/24 ! -o br0 -j MASQUERADE
nft 'add table inet host; add chain inet host forward { type filter hook forward priority 5; policy drop; }'
"""


@pytest.fixture
def network(lab, tmp_path):
    for program in ("iptables", "nft"):
        if shutil.which(program, path="/usr/sbin:/sbin") is None:
            pytest.skip(f"{program} is not installed")
    made = Network(lab, tmp_path)
    made.underlay.run("ip", "address", "add", f"{OUTSIDE}/24", "dev", "switch")
    yield made
    made.close()


@pytest.fixture
def hosts(network):
    paris, tokyo = network.host("paris"), network.host("tokyo")
    client, web = paris.container("client"), tokyo.container("web")
    return paris, tokyo, client, web


def rules(host):
    return host.namespace.run("nft", "--stateless", "list", "ruleset")


def source_seen(sender, address, receiver, interface):
    """Return the sources that *receiver* sees on *interface* of a ping from *sender*, which is answered."""
    sniffer = receiver.sniff(interface)
    sender.run("ping", "-n", "-c1", "-W30", address)
    frames = sniffer.frames()
    if interface == "switch":
        frames = [frame[14:] for frame in frames if frame[12:14] == b"\x08\x00"]
    requests = [each for each in frames if each[0] >> 4 == 4 and each[9] == 1 and each[20] == 8]
    return {".".join(map(str, each[12:16])) for each in requests}


def test_containers_reach_each_other_as_themselves_and_the_outside_as_their_host(hosts, network):
    paris, tokyo, client, web = hosts
    paris.namespace.run("sh", "-ec", CLOSED)
    before = rules(paris)
    tokyo.start()
    paris.start("--masquerade", "--forward")
    paris.ping(tokyo.address)

    assert source_seen(client, "10.244.2.2", tokyo.namespace, "overlay0") == {"10.244.1.2"}
    web.ping("10.244.1.2")
    client.ping(OUTSIDE)
    assert source_seen(client, OUTSIDE, network.underlay, "switch") == {paris.outside}
    wait_until(
        lambda: not [each for each in paris.status()["notes"] if "firewall" in each or "hides" in each]
    )

    paris.stop()
    assert rules(paris) == before


def test_without_the_options_nothing_is_touched_and_the_notes_name_them(hosts):
    paris, tokyo, client, _ = hosts
    paris.namespace.run("sh", "-ec", CLOSED)
    before = rules(paris)
    tokyo.start()
    paris.start()
    paris.ping(tokyo.address)

    assert rules(paris) == before
    assert is_silent(client.namespace, "10.244.2.2")
    wait_until(lambda: len([each for each in paris.status()["notes"] if "--forward" in each]) == 1)
    wait_until(lambda: len([each for each in paris.status()["notes"] if "--masquerade" in each]) == 1)


def test_rules_are_back_after_a_flush_and_after_a_kill_and_go_with_the_key_in_the_file(hosts, network):
    paris, _, client, web = hosts
    network.settings |= {"masquerade": True, "forward": True}
    paris.namespace.run("sh", "-ec", CLOSED)
    before = rules(paris)
    network.start()
    client.ping("10.244.2.2")
    held = rules(paris)

    paris.namespace.run("sh", "-ec", "nft flush ruleset\n" + CLOSED)
    wait_until(lambda: "jump OVERLAY-overlay0" in rules(paris) and "overlay0.nat" in rules(paris), PATIENCE)
    client.ping("10.244.2.2")
    client.ping(OUTSIDE)

    paris.kill()
    assert "OVERLAY-overlay0" in rules(paris)
    paris.start()
    web.ping("10.244.1.2")
    assert sorted(rules(paris).splitlines()) == sorted(held.splitlines())

    del network.settings["masquerade"], network.settings["forward"]
    paris.reload()
    wait_until(lambda: sorted(rules(paris).splitlines()) == sorted(before.splitlines()), PATIENCE)
    assert is_silent(client.namespace, "10.244.2.2")


def test_rules_of_a_killed_agent_go_with_overlay_down(hosts):
    paris, *_ = hosts
    before = rules(paris)
    paris.start("--masquerade", "--forward")
    paris.namespace.run("iptables", "-P", "FORWARD", "DROP")
    wait_until(lambda: "OVERLAY-overlay0" in rules(paris), PATIENCE)
    paris.kill()

    done = paris.overlay("down")

    assert "removed its rules from the packet filters" in done.stdout
    assert "overlay" not in rules(paris).lower()
    assert "masquerade" not in before


def is_opened_by_docker(paris):
    """Return whether Docker's own chain jumps to the rules of the agent."""
    saved = paris.namespace.run("iptables-save")
    if "-A FORWARD -j OVERLAY-overlay0" in saved:
        # The agent met Docker halfway: it had closed the host and had no chain of its own yet.
        paris.namespace.completed("iptables", "-D", "FORWARD", "-j", "OVERLAY-overlay0")
    return "-A DOCKER-USER -j OVERLAY-overlay0" in saved


def test_docker_that_closes_the_host_later_is_opened_by_its_own_chain(hosts):
    dockerd.require()
    paris, tokyo, client, _ = hosts
    tokyo.start()
    paris.start("--forward")
    client.ping("10.244.2.2")

    paris.namespace.sysctl("net.ipv4.ip_forward=0")  # Docker does not open what it has closed itself
    docker = Dockerd(paris, "--bridge=none")
    docker.start()

    wait_until(lambda: is_opened_by_docker(paris), PATIENCE)
    client.ping("10.244.2.2")
    docker.stop()
    docker.start()
    wait_until(lambda: is_opened_by_docker(paris), PATIENCE)
    client.ping("10.244.2.2")
    paris.stop()
    assert "OVERLAY" not in paris.namespace.run("iptables-save")
    docker.stop()
