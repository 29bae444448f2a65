"""Wire messages: those of WireGuard, control messages, bulk units."""

from __future__ import annotations

import contextlib
from ipaddress import ip_network

from overlay.errors import PacketError
from overlay.forwarding.bulk.units import LEAD, make_for_tun, read_unit, take_link
from overlay.wire import control as control_messages
from overlay.wire.control import Hello, Ping, Pong, Presence, Probe, Probed, Report
from overlay.wire.messages import CookieReply, Initiation, Response, message_type
from overlay.wire.service_control import (
    FlowsTold,
    SettingRow,
    SettingsHeard,
    SettingsTold,
    StandingRow,
    StandingsTold,
    SyncedFlow,
)
from overlay.wire.views import ViewAsked, ViewTold
from tests import packets, units


def messages(data):
    message_type(data)
    for kind in (Initiation, Response, CookieReply):
        with contextlib.suppress(PacketError):
            assert kind.parse(data).build() == data


def message_seeds():
    yield Initiation(1, bytes(32), bytes(48), bytes(28)).build()
    yield Response(1, 2, bytes(32), bytes(16)).build()
    yield CookieReply(1, bytes(24), bytes(32)).build()


def control(data):
    with contextlib.suppress(PacketError):
        message = control_messages.parse(data)
        if message is not None:
            assert control_messages.parse(control_messages.build(message)) == message


def control_seeds():
    for each in (
        Hello((1, 2), 65000, 64, 65535, is_answer=True),
        Hello((1, 2), 65000, 64, 65535, is_answer=False, lanes=4),
        Report(9, 8, 7, 6),
        Ping(1),
        Pong(2),
        Probe(3),
        Probed(4),
        Presence(5, True, (0, 2)),
        SettingsTold(6, 7, (SettingRow(8, 9, 10, is_drained=True, is_disabled=False),) * 5),
        SettingsHeard(6, 7),
        StandingsTold(6, 7, (StandingRow(8, 1, 10, 11),) * 5),
        FlowsTold(6, (SyncedFlow(6, 2, 1, 2, bytes(4), 3, bytes(4), 4),) * 5),
        FlowsTold(6, (SyncedFlow(6, 2, 1, 2, bytes(16), 3, bytes(16), 4),) * 5),
        ViewAsked(7),
        ViewTold(7, (ip_network("10.244.2.0/24"), ip_network("fd00:244:2::/64")), (), has_more=True),
    ):
        yield control_messages.build(each)


def unit(data):
    """The plaintext of a bulk unit that a peer has sealed, with and without a link header behind it."""
    for has_link in (False, True):
        whole = memoryview(bytearray(LEAD) + data)
        with contextlib.suppress(PacketError):
            if len(data) < 4:
                return
            if has_link:
                whole, _ = take_link(whole)
            _, flow, gso_type, segment = read_unit(whole, 1420)
            make_for_tun(whole, flow, gso_type, segment)


def unit_seeds():
    for version, gso_type in ((4, 1), (6, 4)):
        yield units.plaintext(packets.tcp(bytes(3000), version=version), gso_type, 1000)
        yield units.plaintext(packets.udp(bytes(3000), version=version), 5, 1000)
