"""The format of flannel's udp backend, implemented independently of the overlay's: a tun, and UDP with bare IP packets.

    python flannel_udp.py PORT ADDRESS/LENGTH PREFIX=HOST ...

It makes the tun ``flannel0`` with *ADDRESS*, and sends what it reads to the host of the longest prefix.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import select
import socket
import struct
import subprocess
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def destination(packet):
    at, size = (16, 4) if packet[0] >> 4 == 4 else (24, 16)
    return ipaddress.ip_address(packet[at : at + size])


def main():
    port, own, *routes = sys.argv[1:]
    hosts = [(ipaddress.ip_network(prefix), host) for prefix, host in (each.split("=") for each in routes)]
    hosts.sort(key=lambda each: -each[0].prefixlen)
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"flannel0", IFF_TUN | IFF_NO_PI))
    for command in (
        f"address add {own} dev flannel0",
        "link set flannel0 mtu 1472 up",
        *(f"route add {prefix} dev flannel0" for prefix, _ in hosts),
    ):
        subprocess.run(["ip", *command.split()], check=True)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("0.0.0.0", int(port)))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        ready, _, _ = select.select([tun, udp], [], [])
        if udp in ready:
            packet = udp.recv(65535)
            try:
                os.write(tun, packet)
            except OSError:  # not an IP packet
                continue
        if tun in ready:
            packet = os.read(tun, 65535)
            to = destination(packet)
            for prefix, host in hosts:
                if to in prefix:
                    udp.sendto(packet, (host, int(port)))
                    break


if __name__ == "__main__":
    main()
