"""The formats of ``ip tunnel`` modes ipip, sit and gre, implemented independently of the overlay's: a tun and raw
sockets.

    python raw_tunnel.py [--device NAME] ipip|gre FAR-HOST ADDRESS/LENGTH,...|- KEY|- PREFIX ...

It makes the tun ``tunnel0``, or NAME, with the addresses, and sends what it reads to the far host, over IPv4 or IPv6.
The far host ``any`` stands for all of them over IPv4; nothing is sent there.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys

ANY = "any"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
IPIP, SIT, GRE = 4, 41, 47
ETHERTYPES = {4: 0x0800, 6: 0x86DD}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="tunnel0")
    parser.add_argument("rest", nargs="+")
    given = parser.parse_args()
    device, (mode, far, addresses, key, *prefixes) = given.device, given.rest
    family = socket.AF_INET6 if ":" in far else socket.AF_INET
    protocols = {"ipip": (IPIP, SIT), "gre": (GRE,)}[mode]
    raw = {protocol: socket.socket(family, socket.SOCK_RAW, protocol) for protocol in protocols}
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    for command in (
        *(f"address add {own} dev {device}" for own in addresses.split(",") if own != "-"),
        f"link set {device} mtu 1440 up",
        *(f"route add {prefix} dev {device}" for prefix in prefixes),
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
            if far not in {source[0], ANY}:
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
            if far == ANY:
                continue
            if mode == "gre":
                header = struct.pack(">HH", 0 if key == "-" else 0x2000, ETHERTYPES[version])
                packet = header + (b"" if key == "-" else int(key).to_bytes(4, "big")) + packet
                raw[GRE].sendto(packet, (far, 0))
            else:
                raw[IPIP if version == 4 else SIT].sendto(packet, (far, 0))


if __name__ == "__main__":
    main()
