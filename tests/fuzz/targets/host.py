"""What the kernel reports."""

from __future__ import annotations

from overlay.forwarding.underlay import mmsg
from overlay.host.netlink.rtnetlink import read_attributes, read_number, split_messages
from overlay.linux import NETLINK_HEADER

NAME_BYTES = 28  # of struct sockaddr_in6


def netlink(data):
    read = 0
    for message in split_messages(data):
        read += len(message)
        for _, value in read_attributes(message, NETLINK_HEADER.size):
            assert len(value) < len(message)
            read_number(value)
    assert read <= len(data)


def netlink_seeds():
    attributes = bytes.fromhex("0800 0100 7f000001 0700 0300 6c6f00 00")
    yield NETLINK_HEADER.pack(NETLINK_HEADER.size + len(attributes), 20, 0, 1, 0) + attributes
    yield 2 * NETLINK_HEADER.pack(NETLINK_HEADER.size, 3, 0, 1, 0)


def sockaddr(data):
    address = mmsg.parse_sockaddr(data[:NAME_BYTES].ljust(NAME_BYTES, b"\0"))  # a buffer of the kernel's
    assert mmsg.parse_sockaddr(mmsg.pack_sockaddr(address).ljust(NAME_BYTES, b"\0")) == address


def sockaddr_seeds():
    yield mmsg.pack_sockaddr(("192.0.2.1", 51820))
    yield mmsg.pack_sockaddr(("fe80::1", 51820, 0, 2))
