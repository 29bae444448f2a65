"""The LAN side of a director as a program of its own: it is controlled by lines of JSON, and reports changes in such
lines.
"""

from __future__ import annotations

import json
import sys
from ipaddress import ip_address, ip_network

import trio

from overlay.host import interfaces
from overlay.host.netlink.fib import Link
from overlay.lan.lan import Lan
from overlay.lan.memberships import Membership
from peers.service import Vrrp


def member_of(settings):
    """Return the membership that *settings* describe: keys of Vrrp, and `addresses`."""
    addresses = tuple(map(ip_address, settings.pop("addresses")))
    settings["unicast"] = tuple(map(ip_address, settings.get("unicast", ())))
    for key in ("track_interfaces", "track_services"):
        settings[key] = tuple(settings.get(key, ()))
    vrrp = Vrrp(**settings)
    return Membership(vrrp, vrrp.interface, vrrp.priority, addresses)


def do(lan, order):
    for name, value in order.items():
        match name:
            case "groups":
                lan.configure([member_of(each) for each in value])
            case "hold":
                lan.hold(map(ip_address, value))
            case "links":
                indexed = {each: interfaces.index_of(at) for each, at in value.items()}
                lan.set_links([Link(ip_network(each), index, 0) for each, index in indexed.items()])
            case "overlay":
                lan.set_overlay(is_up=value)
            case "without":
                lan.set_quorums(value)
            case "status":
                say("status", [row(each) for each in lan.status()])
            case "conflicts":
                say("status", [str(each) for each in lan.conflicts()])


def row(status):
    return {
        "group": status.group,
        "version": status.version,
        "state": status.state.value,
        "reason": status.reason,
        "priority": status.priority,
        "active": str(status.active),
        "refused": status.refused,
    }


def say(kind, value):
    sys.stdout.write(json.dumps({kind: value}) + "\n")
    sys.stdout.flush()


async def serve():
    lan = Lan(lambda status: say("changed", row(status)), lambda conflict: say("contested", str(conflict)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lan.run)
        pending = b""
        async for data in trio.lowlevel.FdStream(0):
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                do(lan, json.loads(line))
        nursery.cancel_scope.cancel()


def main():
    trio.run(serve)
