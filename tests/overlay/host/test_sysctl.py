from __future__ import annotations

import sys

import pytest

from overlay.host import sysctl

pytestmark = pytest.mark.netns


@pytest.fixture
def host(lab):
    host = lab.namespace("host")
    lab.bridge(host, "br0")
    with host.entered():
        yield host


def test_strictness_follows_the_larger_setting(host):
    host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.br0.rp_filter=1")
    assert sysctl.is_strict("br0")
    assert not sysctl.is_strict("lo")

    host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=2")
    assert not sysctl.is_strict("br0")

    host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.br0.rp_filter=0")
    assert sysctl.is_strict("br0")


@pytest.mark.parametrize("name", ["all", "br0"])
def test_check_that_knows_marks_is_left_to_who_set_it(host, name):
    host.run("sysctl", "-qw", "net.ipv4.conf.br0.rp_filter=1", f"net.ipv4.conf.{name}.src_valid_mark=1")

    assert not sysctl.is_strict("br0")


def test_interfaces_are_those_of_the_namespace(host):
    assert sysctl.interfaces(4) == sysctl.interfaces(6) == ["br0", "lo"]
    assert sysctl.interfaces(4, with_default=True) == ["br0", "default", "lo"]


@pytest.mark.parametrize("version", [4, 6])
def test_forwarding_is_written_and_read(host, version):
    name = sysctl.FORWARDING[version]
    sysctl.write(name, 1)
    assert sysctl.read(name) == 1
    assert host.run("sysctl", "-n", sysctl.key(name)) == "1\n"

    sysctl.write(name, 0)
    assert sysctl.read(name) == 0


def test_key_is_what_the_command_takes_also_for_an_interface_with_a_dot(lab, host):
    lab.bridge(host, "br0.7")
    name = sysctl.filter_switch("br0.7")

    host.run("sysctl", "-qw", f"{sysctl.key(name)}=2")

    assert sysctl.read(name) == 2
    assert sysctl.key(sysctl.filter_switch("br0")) == "net.ipv4.conf.br0.rp_filter"


def test_filter_of_an_interface_is_made_loose(host):
    host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")

    sysctl.loosen_rp_filter("br0")

    assert sysctl.read(sysctl.filter_switch("br0")) == 2
    assert sysctl.read(sysctl.filter_switch()) == 1


LOOSEN = """
from overlay.host import sysctl
try: sysctl.loosen_rp_filter("br0")
except sysctl.HostError as error: print(error)
else: print("fine")
"""


@pytest.mark.parametrize(
    ("value", "said"),
    [(1, "net.ipv4.conf.br0.rp_filter is strict and may not be set to 2"), (0, "fine"), (2, "fine")],
)
def test_only_a_strict_filter_that_cannot_be_changed_is_refused(host, value, said):
    host.run("sysctl", "-qw", f"net.ipv4.conf.br0.rp_filter={value}")
    read_only = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"

    answer = host.run(
        "unshare", "--mount", "sh", "-c", f'{read_only} && "$0" -c "$1"', sys.executable, LOOSEN
    )

    assert answer.startswith(said)


def test_setting_that_this_kernel_lacks_is_none(host):
    assert sysctl.read(sysctl.filter_switch("nosuch")) is None


def test_ipv4_is_forwarded_by_what_a_packet_comes_in_by(host):
    host.run(
        "sysctl",
        "-qw",
        "net.ipv4.ip_forward=0",
        "net.ipv4.conf.br0.forwarding=1",
        "net.ipv6.conf.all.forwarding=0",
    )

    assert sysctl.forwards(4, "br0")
    assert not sysctl.forwards(4, "lo")
    assert not sysctl.forwards(6, "br0")
