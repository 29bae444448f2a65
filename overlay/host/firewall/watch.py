"""Notifications from the kernel that the rules of nftables changed, including those of iptables-nft.

The tables of iptables-legacy are not announced; they must be checked from time to time.
"""

from __future__ import annotations

import errno
import socket

from overlay.errors import HostError
from overlay.linux import NETLINK_NETFILTER, SOL_NETLINK

# Specification: linux/netlink.h, linux/netfilter/nfnetlink.h
NETLINK_ADD_MEMBERSHIP = 1
NFNLGRP_NFTABLES = 7

# Ours
RECEIVE_SIZE = 64 * 1024


class RulesWatch:
    """Reports that rules changed, but not who changed them."""

    def __init__(self) -> None:
        """Start watching.  Raises HostError, for example without CAP_NET_ADMIN."""
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            NETLINK_NETFILTER,
        )
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        except OSError as error:
            self._socket.close()
            raise HostError(
                f"changes of the packet filters could not be watched: {error.strerror}"
            ) from error

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Read the notifications.  If there were too many at once, this counts as a change, too."""
        while True:
            try:
                self._socket.recv(RECEIVE_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise HostError(
                        f"changes of the packet filters could not be watched: {error.strerror}"
                    ) from error

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()
