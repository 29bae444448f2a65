"""The targets, by name.  A new one is a function in the file for its kind and a line here."""

from __future__ import annotations

from tests.fuzz.target import Target
from tests.fuzz.targets import (
    boundary,
    encap,
    etcd,
    files,
    frames,
    host,
    importing,
    inbound,
    link,
    outbound,
    packet,
    services,
    uapi,
    wg_quick,
    wire,
)

TARGETS = {
    each.name: each
    for each in (
        Target("messages", wire.messages, wire.message_seeds),
        Target("control", wire.control, wire.control_seeds),
        Target("unit", wire.unit, wire.unit_seeds),
        Target("ip", packet.ip, packet.seeds),
        Target("icmp", packet.icmp_errors, packet.seeds),
        Target("echo", packet.echo, packet.echo_seeds),
        Target("mss", packet.mss, packet.seeds),
        Target("cut", packet.cut, packet.seeds),
        Target("headers", packet.headers, packet.seeds),
        Target("frames", frames.frames, frames.seeds),
        Target("neighbours", frames.neighbours, frames.seeds),
        Target("encapsulations", encap.encapsulations, encap.seeds),
        Target("link", link.link, link.seeds),
        Target("requests", link.requests, link.request_seeds),
        Target("uapi", uapi.requests, uapi.seeds),
        Target("netlink", host.netlink, host.netlink_seeds),
        Target("sockaddr", host.sockaddr, host.sockaddr_seeds),
        Target("peers-file", files.peers_file, files.peers_seeds),
        Target("peers-problems", files.problems, files.peers_seeds),
        Target("peers-reload", files.reload, files.reload_seeds),
        Target("key-file", files.key_file, files.key_seeds),
        Target("endpoint", files.endpoint, files.endpoint_seeds),
        Target("etcd-answers", etcd.answers, etcd.answer_seeds),
        Target("etcd-network", etcd.network, etcd.network_seeds),
        Target("etcd-document", etcd.document, etcd.document_seeds),
        Target("flannel-network", etcd.flannel, etcd.flannel_seeds),
        Target("keepalived", importing.keepalived, importing.keepalived_seeds),
        Target("ipvsadm-rules", importing.rules, importing.rules_seeds),
        Target("wg-quick", wg_quick.files, wg_quick.seeds),
        Target("inbound", inbound.datagrams, inbound.datagram_seeds),
        Target("inbound-sealed", inbound.sealed, inbound.sealed_seeds),
        Target("inbound-unit", inbound.unit, inbound.unit_seeds),
        Target("inbound-frames", inbound.frames, inbound.frame_seeds),
        Target("inbound-clear", inbound.clear, inbound.clear_seeds),
        Target("outbound", outbound.packets_out, outbound.packet_seeds),
        Target("virtual-address", services.to_vip, services.seeds),
        Target("compiled-boundary", boundary.calls, boundary.seeds),
        Target("outbound-frames", outbound.frames, outbound.frame_seeds),
    )
}
