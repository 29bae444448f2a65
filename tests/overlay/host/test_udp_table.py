from __future__ import annotations

import os
import socket
from ipaddress import ip_address

import pytest

from overlay.host.udp_table import bound_sockets


@pytest.mark.parametrize(
    ("family", "address", "seen_in"),
    [
        (socket.AF_INET, "127.0.0.9", socket.AF_INET),
        (socket.AF_INET6, "::1", socket.AF_INET6),
        (socket.AF_INET6, "::ffff:127.0.0.9", socket.AF_INET),
    ],
)
def test_each_socket_is_told_with_its_address_its_user_and_its_inode(family, address, seen_in):
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.bind((address, 0))
        inode = os.fstat(udp.fileno()).st_ino

        (found,) = (each for each in bound_sockets() if each.inode == inode)

        assert (found.address, found.port) == (ip_address(address), udp.getsockname()[1])
        assert (found.user, found.family) == (os.geteuid(), seen_in)
