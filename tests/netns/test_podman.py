"""The node's own address beside container tools: podman refuses a subnet in which the host has an address."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.netns.network import Network

SUBNET = "10.244.1.0/24"


@pytest.fixture
def network(lab, tmp_path):
    for program in ("podman", "runc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    made = Network(lab, tmp_path)
    yield made
    made.close()


def create(host, subnet):
    """Make podman create a network on *host*; return its output, and the bridge that it will create,"""
    folder = Path(tempfile.mkdtemp(prefix="pod"))  # podman wants short paths
    host.network.lab.on_exit(lambda: shutil.rmtree(folder, ignore_errors=True))
    folders = [f"--{each}={folder / each}" for each in ("root", "runroot", "network-config-dir")]
    options = [*folders, "--cgroup-manager=cgroupfs", "--runtime=runc"]
    command = ["nsenter", f"--net=/run/netns/{host.namespace.full_name}", "podman", *options]
    done = host.namespace.completed(*command, "network", "create", "--subnet", subnet, "own")
    made = folder / "network-config-dir" / "own.conflist"
    return done.stderr, json.loads(made.read_text())["plugins"][0]["bridge"] if made.exists() else None


def test_network_is_made_beside_an_address_outside_the_subnets(network):
    paris, tokyo = network.host("paris", address="10.244.255.1"), network.host("tokyo")
    network.start()
    tokyo.ping("10.244.255.1")

    said, bridge = create(paris, SUBNET)

    assert bridge is not None, said
    assert tokyo.overlay("ping", "paris", "-c1").returncode == 0


def test_network_that_is_there_before_the_agent_goes_on_beside_the_default_address(network):
    """Podman looks at the host's addresses only when a network is created."""
    paris, tokyo = network.host("paris"), network.host("tokyo")
    said, bridge = create(paris, SUBNET)
    assert bridge is not None, said
    network.start()

    # As the start of a container does
    network.lab.bridge(paris.namespace, bridge, "10.244.1.1/24")

    tokyo.ping(paris.address)
    tokyo.ping("10.244.1.1")
    assert not [note for note in paris.status()["notes"] if "do not go into the tunnel" in note]


def test_default_address_is_what_keeps_podman_from_the_subnet(network):
    """If this fails, podman has become more lenient, and the recipe in docs/containers.md can be removed."""
    paris = network.host("paris")
    paris.start()

    said, bridge = create(paris, SUBNET)

    assert (bridge, "already used on the host" in said) == (None, True)
