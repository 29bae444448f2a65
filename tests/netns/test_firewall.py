"""Packet filters of the host, as Docker and container plugins set them: notes report them, with the command that
corrects it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.netns.network import Network, is_silent
from tests.netns.topology import wait_until

PLUGINS = Path("/usr/lib/cni")


@pytest.fixture
def network(lab, tmp_path):
    for program in ("iptables", "nft"):
        if shutil.which(program, path="/usr/sbin:/sbin") is None:
            pytest.skip(f"{program} is not installed")
    made = Network(lab, tmp_path)
    yield made
    made.close()


def notes(host, word):
    return [note for note in host.status()["notes"] if word in note]


def mend(host, note):
    host.namespace.run("sh", "-c", note.partition("`")[2].partition("`")[0])


def test_policy_that_drops_forwarded_packets_is_noted_and_mended_by_the_command(network):
    paris, tokyo = network.host("paris"), network.host("tokyo")
    web, client = tokyo.container("web"), paris.container("client")
    network.start()
    client.run("ping", "-c1", "-W30", "10.244.2.2")

    tokyo.namespace.run("iptables", "-P", "FORWARD", "DROP")

    assert is_silent(client.namespace, "10.244.2.2")
    wait_until(lambda: notes(tokyo, "firewall"))
    (note,) = notes(tokyo, "firewall")
    assert note in tokyo.log
    mend(tokyo, note)
    client.run("ping", "-c1", "-W30", "10.244.2.2")
    web.run("ping", "-c1", "-W30", "10.244.1.2")
    wait_until(lambda: not notes(tokyo, "firewall"))


def test_container_that_a_plugin_masquerades_is_noted_and_shows_itself_after_the_command(network, lab):
    """The rules that podman and other runtimes request for a container; here they are requested in the same way."""
    if not (PLUGINS / "bridge").exists():
        pytest.skip("the CNI plugins (containernetworking-plugins) are not installed")
    paris, tokyo = network.host("paris"), network.host("tokyo")
    network.start()
    paris.ping(tokyo.address)
    box = lab.namespace("box")
    subnet = {"subnet": "10.244.1.0/24", "gateway": "10.244.1.1"}
    ipam = {"type": "host-local", "ranges": [[subnet]], "routes": [{"dst": "0.0.0.0/0"}]}
    ipam["dataDir"] = str(network.directory / "leases")
    configuration = {
        "cniVersion": "0.4.0",
        "name": "n1",
        "type": "bridge",
        "bridge": "cni9",
        "isGateway": True,
    }
    configuration |= {"ipMasq": True, "hairpinMode": True, "ipam": ipam}
    environment = (
        f"CNI_CONTAINERID=c1 CNI_NETNS=/run/netns/{box.full_name} CNI_IFNAME=eth0 CNI_PATH={PLUGINS}"
    )
    call = f"echo '{json.dumps(configuration)}' | {environment} CNI_COMMAND=%s {PLUGINS}/bridge"
    paris.namespace.run("sh", "-c", call % "ADD")

    def seen_from():
        """Return the source address that tokyo sees of a ping from the container."""
        sniffer = tokyo.namespace.sniff("overlay0")
        box.run("ping", "-c1", "-W30", tokyo.address)
        (source,) = {frame[12:16] for frame in sniffer.frames() if frame[9] == 1 and frame[20] == 8}
        return ".".join(map(str, source))

    assert seen_from() == paris.address
    wait_until(lambda: notes(paris, "hides the"))
    (note,) = notes(paris, "hides the")
    mend(paris, note)

    assert seen_from().startswith("10.244.1.")
    assert seen_from() != paris.address
    wait_until(lambda: not notes(paris, "hides the"))
    paris.namespace.run("sh", "-c", call % "DEL")
