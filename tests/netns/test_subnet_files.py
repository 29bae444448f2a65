"""The files for units made for flannel, as an agent writes them: before it is ready, and again when they change."""

from __future__ import annotations

import pytest

from tests.netns.network import PATIENCE, Network
from tests.netns.topology import wait_until


@pytest.fixture
def network(lab, tmp_path):
    made = Network(lab, tmp_path)
    yield made
    made.close()


def test_files_follow_the_peers_file(network, tmp_path):
    paris, _ = network.host("paris"), network.host("tokyo")
    subnet, docker = tmp_path / "flannel" / "subnet.env", tmp_path / "docker_opts.env"
    paris.start("--masquerade", "--subnet-file", str(subnet), "--docker-options", str(docker))
    assert "FLANNEL_SUBNET=10.244.1.1/24\n" in subnet.read_text()
    assert '--bip=10.244.1.1/24 --ip-masq=false --mtu=1420 "' in docker.read_text()

    paris.settings["subnets"] = ["10.244.9.0/24"]
    network.settings["mtu"] = 1380
    paris.reload()

    wait_until(lambda: "FLANNEL_SUBNET=10.244.9.1/24\nFLANNEL_MTU=1380\n" in subnet.read_text(), PATIENCE)
    wait_until(lambda: "--bip=10.244.9.1/24" in docker.read_text(), PATIENCE)


def test_file_that_cannot_be_written_is_one_sentence(network):
    paris = network.host("paris")
    paris.launch("--subnet-file", "/proc/no/subnet.env")

    assert paris.process.wait(PATIENCE) == 1
    assert "/proc/no/subnet.env could not be written" in paris.log
    assert "Traceback" not in paris.log
