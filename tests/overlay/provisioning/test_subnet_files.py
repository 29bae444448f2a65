"""Files in flannel's formats: literal, replaced atomically, and read with flannel's own tools."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest

from overlay.errors import HostError
from overlay.provisioning.subnet_files import SubnetFiles, docker_options, subnet_env
from tests.overlay.provisioning.test_filtering import OPTIONS, node

BOTH = ("192.168.7.0/24", "10.244.1.0/24", "fd00:244:1::/64")


def test_subnet_file_is_that_of_flanneld():
    assert subnet_env(node("10.244.1.0/24"), 1420, masquerade=True) == (
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1420\nFLANNEL_IPMASQ=true\n"
    )


def test_each_family_has_its_lines_and_a_lan_is_not_for_containers():
    assert subnet_env(node(*BOTH), 1280, masquerade=False) == (
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n"
        "FLANNEL_IPV6_NETWORK=fd00:244::/32\nFLANNEL_IPV6_SUBNET=fd00:244:1::1/64\n"
        "FLANNEL_MTU=1280\nFLANNEL_IPMASQ=false\n"
    )


@pytest.mark.parametrize(
    ("masquerade", "option", "all_options"),
    [
        (True, 'DOCKER_OPT_IPMASQ="--ip-masq=false"\n', " --bip=10.244.1.1/24 --ip-masq=false --mtu=1420 "),
        (False, "", " --bip=10.244.1.1/24 --mtu=1420 "),
    ],
)
def test_options_are_those_of_mk_docker_opts(masquerade, option, all_options):
    """As flannel's script assembles them from the subnet file above: in alphabetical order."""
    assert docker_options(node("10.244.1.0/24"), 1420, masquerade=masquerade) == (
        f'DOCKER_OPT_BIP="--bip=10.244.1.1/24"\n{option}DOCKER_OPT_MTU="--mtu=1420"\nDOCKER_OPTS="{all_options}"\n'
    )


def test_shell_reads_the_options_as_words(tmp_path):
    path = tmp_path / "docker_opts.env"
    path.write_text(docker_options(node("10.244.1.0/24"), 1420, masquerade=True) or "")

    said = subprocess.check_output(["sh", "-c", f". {path}; printf '%s,' $DOCKER_OPTS"], text=True)

    assert said == "--bip=10.244.1.1/24,--ip-masq=false,--mtu=1420,"


def test_host_without_a_subnet_writes_nothing(tmp_path):
    path = tmp_path / "subnet.env"

    SubnetFiles(replace(OPTIONS, subnet_file=path, docker_options=path)).write(node("10.244.1.1/32"), 1420)

    assert not path.exists()


def test_files_are_written_when_they_change_and_never_seen_in_parts(tmp_path):
    path = tmp_path / "run" / "flannel" / "subnet.env"
    files = SubnetFiles(replace(OPTIONS, subnet_file=path))
    files.write(node(), 1420)
    first = path.stat()

    files.write(node(), 1420)
    assert path.stat() == first
    files.write(node(), 1400)

    assert path.stat().st_ino != first.st_ino
    assert "FLANNEL_MTU=1400\n" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["subnet.env"]


def test_what_a_killed_agent_left_half_written_is_in_nobody_s_way(tmp_path):
    path = tmp_path / "subnet.env"
    (tmp_path / ".subnet.env.new").write_text("FLANNEL_NET")

    SubnetFiles(replace(OPTIONS, subnet_file=path)).write(node(), 1420)

    assert os.listdir(tmp_path) == ["subnet.env"]


def test_refusal_names_the_file_and_leaves_it(tmp_path):
    (tmp_path / "subnet.env").mkdir()

    with pytest.raises(
        HostError, match=r"subnet\.env could not be written \(Is a directory\): see what is in its place"
    ):
        SubnetFiles(replace(OPTIONS, subnet_file=tmp_path / "subnet.env")).write(node(), 1420)
    assert os.listdir(tmp_path) == ["subnet.env"]


def test_another_option_is_another_file(tmp_path):
    paths = tmp_path / "subnet.env", tmp_path / "docker_opts.env"

    SubnetFiles(replace(OPTIONS, subnet_file=paths[0], docker_options=paths[1], masquerade=True)).write(
        node(), 1420
    )

    assert "FLANNEL_IPMASQ=true" in paths[0].read_text()
    assert "--ip-masq=false" in paths[1].read_text()
