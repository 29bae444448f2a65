"""Drops of the kernel that sockets do not see."""

from __future__ import annotations

import pytest

from overlay.cli.kernel_counts import KernelCounts, describe

NETSTAT = """\
TcpExt: SyncookiesSent IPReversePathFilter TCPTimeouts
TcpExt: 1 {} 3
IpExt: InNoRoutes
IpExt: 0
"""
SNMP = """\
Udp: InDatagrams InErrors InCsumErrors
Udp: 290250 9 {}
UdpLite: InDatagrams InErrors InCsumErrors
UdpLite: 0 0 99
"""
SNMP6 = "Udp6InDatagrams                 \t5\nUdp6InCsumErrors                \t{}\n"


def read(directory, reverse_path=0, checksums=0, checksums6=0):
    (directory / "netstat").write_text(NETSTAT.format(reverse_path))
    (directory / "snmp").write_text(SNMP.format(checksums))
    (directory / "snmp6").write_text(SNMP6.format(checksums6))
    return KernelCounts.read(directory)


def test_counters_are_those_of_the_kernel(tmp_path):
    before = read(tmp_path, 10, 20, 30)

    assert before == KernelCounts(10, 50)
    assert read(tmp_path, 12, 25, 30).since(before) == KernelCounts(2, 5)


@pytest.mark.parametrize(("lost", "checksums"), [(9, 5), (3, 3), (0, 0), (-1, 0)])
def test_no_more_checksums_are_ours_than_our_sockets_have_lost(lost, checksums):
    assert KernelCounts(1, 5).bounded(checksums=lost) == KernelCounts(1, checksums)


def test_counters_that_this_kernel_does_not_have_are_zero(tmp_path):
    assert KernelCounts.read(tmp_path) == KernelCounts()
    (tmp_path / "netstat").write_text("TcpExt: A\n")

    assert KernelCounts.read(tmp_path) == KernelCounts()


def test_this_kernel_is_read():
    assert KernelCounts.read().reverse_path >= 0


@pytest.mark.parametrize(
    ("counted", "silent", "names"),
    [
        (KernelCounts(3, 0), ["tokyo"], ["rp_filter"]),
        (KernelCounts(3, 0), [], []),  # of others, as on any host with several interfaces
        (KernelCounts(0, 0), ["tokyo"], []),
        (KernelCounts(0, 4), [], ["checksums"]),
    ],
)
def test_what_was_dropped_meanwhile_is_named(counted, silent, names):
    assert [each.name for each in describe(counted, silent, ["eth0", "eth1"])] == names


def test_the_sentence_names_the_silent_and_the_interfaces():
    (finding,) = describe(KernelCounts(1, 0), ["tokyo"], ["eth0", "eth1"])

    assert finding.problem.startswith(
        "the strict reverse path check of this host dropped 1 packet while tokyo did not answer"
    )
    assert finding.remedy.startswith("see by which of eth0, eth1 they come")
