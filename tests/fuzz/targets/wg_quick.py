"""Imported wg-quick files: what is read is a valid peers file, or refused with one sentence."""

from __future__ import annotations

import contextlib

from overlay.importing.places import Remarks, UnreadableError
from overlay.wg_quick.conf import Conf
from overlay.wg_quick.importing import import_files

KEY = "AEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAGA="
SEEDS = (
    (
        f"[Interface]\nPrivateKey = {KEY}\nAddress = 10.0.0.1/24, fd00::1/64\nListenPort = 51820\nMTU = 1420\nDNS = "
        "1.1.1.1\nPostUp = iptables -t nat -A POSTROUTING -j MASQUERADE\n\n### Client a\n[Peer]\n"
        "PublicKey = AY1X6q7LmSThjaSdMPmTs7LTkI971d+0dxdtL8ZfTH4=\nAllowedIPs = 10.0.0.2/32, 0.0.0.0/0, ::/0\n"
        "Endpoint = [2001:db8::1]:51820\nPersistentKeepalive = off\n"
    ),
    (
        f"[interface]\nprivatekey={KEY}\naddress=10.0.0.2\nFwMark=0x10\n[peer] # b\n"
        "publickey=x3njT8T1IzeUcbs9+rgAvy3c0gC0R3V+EBedEZfytFc=\nallowedips=10.0.0.0/24\nendpoint=vpn.example.net:1\n"
        "presharedkey=5xNUZ1a+9S1NQuaR9DDfzjzqEC1bBw/1eDOXTtyzWTw=\n"
    ),
)


def files(data):
    """One file alone, and the same next to another host's."""
    remarks = Remarks()
    with contextlib.suppress(UnreadableError):
        conf = Conf.parse(data.decode(errors="replace"), "a.conf")
        assert Conf.parse(conf.build(), "a.conf").others == conf.others
        import_files([("a.conf", conf)], remarks)
        import_files([("a.conf", conf), ("b.conf", Conf.parse(SEEDS[1], "b.conf"))], remarks)
    assert all("\n" not in str(each) for each in remarks.all())


def seeds():
    return (each.encode() for each in SEEDS)
