"""The formats of ``ip tunnel`` modes ipip, sit and gre, a second time and independent of ours: a tun and raw sockets.

    python raw_tunnel.py ipip|gre FAR-HOST ADDRESS/LENGTH,... KEY|- PREFIX ...

It makes the tun ``tunnel0`` with the addresses, and sends what it reads to the far host, over IPv4 or IPv6.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
IPIP, SIT, GRE = 4, 41, 47
ETHERTYPES = {4: 0x0800, 6: 0x86DD}


def main():
    mode, far, addresses, key, *prefixes = sys.argv[1:]
    family = socket.AF_INET6 if ":" in far else socket.AF_INET
    protocols = {"ipip": (IPIP, SIT), "gre": (GRE,)}[mode]
    raw = {protocol: socket.socket(family, socket.SOCK_RAW, protocol) for protocol in protocols}
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"tunnel0", IFF_TUN | IFF_NO_PI))
    for command in (
        *(f"address add {own} dev tunnel0" for own in addresses.split(",")),
        "link set tunnel0 mtu 1440 up",
        *(f"route add {prefix} dev tunnel0" for prefix in prefixes),
    ):
        subprocess.run(["ip", *command.split()], check=True)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        ready, _, _ = select.select([tun, *raw.values()], [], [])
        for protocol, each in raw.items():
            if each not in ready:
                continue
            packet, source = each.recvfrom(65535)
            if source[0] != far:
                continue
            if family == socket.AF_INET:
                packet = packet[(packet[0] & 15) * 4 :]
            if protocol == GRE:
                flags, _ = struct.unpack_from(">HH", packet)
                has_key = bool(flags & 0x2000)
                if has_key != (key != "-") or (has_key and packet[4:8] != int(key).to_bytes(4, "big")):
                    continue
                packet = packet[8 if has_key else 4 :]
            os.write(tun, packet)
        if tun in ready:
            packet = os.read(tun, 65535)
            version = packet[0] >> 4
            if mode == "gre":
                header = struct.pack(">HH", 0 if key == "-" else 0x2000, ETHERTYPES[version])
                packet = header + (b"" if key == "-" else int(key).to_bytes(4, "big")) + packet
                raw[GRE].sendto(packet, (far, 0))
            else:
                raw[IPIP if version == 4 else SIT].sendto(packet, (far, 0))


if __name__ == "__main__":
    main()
