from __future__ import annotations

import socket
import struct

import pytest

from overlay.host.netlink.qdiscs import count_drops, read_drops


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) & 3)


def answer(index, kind, drops):
    queue = attribute(3, struct.pack("=5I", 0, 0, drops, 0, 0))
    attributes = attribute(1, kind + b"\0") + attribute(7, attribute(1, bytes(16)) + queue)
    return bytes(16) + struct.pack("=BxxxiIII", 0, index, 0, 0, 0) + attributes


def test_drops_are_summed_by_device_and_kind():
    told = [
        answer(2, b"mq", 0),
        answer(2, b"fq_codel", 3),
        answer(2, b"fq_codel", 4),
        answer(7, b"clsact", 5),
    ]

    assert count_drops(told) == {(2, "mq"): 0, (2, "fq_codel"): 7, (7, "clsact"): 5}


@pytest.mark.parametrize("cut", range(16 + 20, 16 + 20 + 40))
def test_answers_without_statistics_count_nothing(cut):
    assert not count_drops([answer(2, b"noqueue", 9)[:cut]])


@pytest.mark.netns
def test_what_a_filter_drops_is_counted_at_its_device(lab):
    host, other = lab.namespace("host"), lab.namespace("other")
    lab.veth(host.end("eth0", "192.0.2.1/24"), other.end("eth0", "192.0.2.2/24"))
    host.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    host.run("tc", "filter", "add", "dev", "eth0", "ingress", "bpf", "da", "bytecode", "1,6 0 0 2")
    other.run("ping", "-c1", "-W0.2", "192.0.2.1", check=False)

    with host.entered():
        assert read_drops()[socket.if_nametoindex("eth0"), "clsact"] > 0
