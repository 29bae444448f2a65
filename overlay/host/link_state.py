"""Whether interfaces are up, and which of the kernel's offloads work for them.  Anybody may ask."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct

from overlay.host import modules
from overlay.host.tun import IFREQ_POINTER, SIOCETHTOOL

# Specification: linux/ethtool.h, by the names that `ethtool -K` takes
QUESTIONS = {"gso": 0x23, "gro": 0x2B, "tso": 0x1E}  # ETHTOOL_GGSO, ETHTOOL_GGRO, ETHTOOL_GTSO
VALUE = struct.Struct("=II")  # struct ethtool_value: command, data


class LinkState:
    """The state of interfaces as the kernel tells it."""

    def is_up(self, name: str) -> bool:
        """Return whether the interface *name* is there and set up."""
        return modules.is_up(name)

    def offloads(self, name: str) -> dict[str, bool]:
        """Return which offloads are on, by their names, as far as the kernel tells.

        GRO of interfaces without hardware is left out: a veth has none on its own, and needs none, for what
        comes through it was joined before.
        """
        found = {}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
            for offload, command in QUESTIONS.items():
                answer = array.array("B", VALUE.pack(command, 0))
                try:
                    fcntl.ioctl(
                        asking, SIOCETHTOOL, IFREQ_POINTER.pack(name.encode(), answer.buffer_info()[0])
                    )
                except OSError:
                    continue
                found[offload] = bool(VALUE.unpack(answer.tobytes())[1])
        if not os.path.exists(f"/sys/class/net/{name}/device"):
            found.pop("gro", None)
        return found
