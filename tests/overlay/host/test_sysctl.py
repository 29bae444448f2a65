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


@pytest.mark.parametrize(
    ("version", "name"), [(4, "net.ipv4.conf.all.forwarding"), (6, "net.ipv6.conf.all.forwarding")]
)
def test_forwarding_is_read(host, version, name):
    host.run("sysctl", "-qw", f"{name}=0")
    assert not sysctl.forwarding_enabled(version)

    host.run("sysctl", "-qw", f"{name}=1")
    assert sysctl.forwarding_enabled(version)


def test_strict_interfaces_follow_the_larger_setting(host):
    host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.br0.rp_filter=1")
    assert sysctl.strict_interfaces() == ["br0"]

    host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=2")
    assert sysctl.strict_interfaces() == []


def test_filter_of_an_interface_is_made_loose(host):
    host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")

    sysctl.loosen_rp_filter("br0")

    assert sysctl.rp_filter("br0") == 2
    assert sysctl.rp_filter() == 1


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
    assert sysctl.rp_filter("nosuch") is None
