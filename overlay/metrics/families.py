"""Every metric: its name, kind and meaning.  The table in docs/metrics.md is generated from it.

Names follow Prometheus' conventions: base units, ``_total`` for counters, ``_info`` for information in labels.
"""

from __future__ import annotations

from dataclasses import dataclass

# Kinds
COUNTER, GAUGE, INFO = "counter", "gauge", "info"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.  *labels* are the labels of each sample; *help* is one sentence."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str

    @property
    def base(self) -> str:
        """Return the name in OpenMetrics, in which some kinds have a suffix."""
        return self.name.removesuffix({COUNTER: "_total", INFO: "_info"}.get(self.kind, ""))


_ROWS = (
    # This node
    ("overlay_build_info", INFO, "version python", "Versions of overlay and of Python."),
    ("overlay_node_info", INFO, "node interface device", "The name of this node in the peers file, its interface, and whether that is a tun or a tap."),
    ("overlay_packet_path_info", INFO, "path aes", "The packet path that runs, compiled or interpreted, and the library that seals units with AES, if any."),
    ("overlay_start_time_seconds", GAUGE, "", "When the agent started, in seconds since 1970."),
    ("overlay_mtu_bytes", GAUGE, "", "The MTU of the interface."),
    ("overlay_lanes", GAUGE, "", "How many lanes, and so processors, carry packets."),
    ("overlay_peers", GAUGE, "state", "Other peers of the peers file, by state."),
    ("overlay_notes", GAUGE, "", "How many notes overlay status shows about this node, each with a remedy, not counting notes on single peers."),
    ("overlay_finding", GAUGE, "finding", "1 for each kind of problem found on this host; overlay status has the remedy."),
    ("overlay_config_last_reload_successful", GAUGE, "", "Whether the current peers file is in force."),
    ("overlay_store_up", GAUGE, "", "Whether the etcd with this host's network answers; absent with a peers file."),
    ("overlay_forwarder_up", GAUGE, "", "Whether the process that carries packets runs and answered this scrape."),
    ("overlay_forwarder_restarts_total", COUNTER, "", "How often a forwarder that ended was replaced."),
    ("overlay_dropped_packets_total", COUNTER, "reason", "Dropped packets that belong to no peer, by reason; overlay_drop_reason_info explains the reasons."),
    ("overlay_drop_reason_info", INFO, "reason cause description", "What a drop reason says about the packet, and where to look for the cause."),
    ("overlay_lane_receive_bytes_total", COUNTER, "lane", "Bytes of UDP payload that each lane has received."),
    ("overlay_lane_transmit_bytes_total", COUNTER, "lane", "Bytes of UDP payload that each lane has sent."),
    # Its processes
    ("overlay_process_cpu_seconds_total", COUNTER, "process", "Processor time that a process has used, user and system."),
    ("overlay_process_resident_memory_bytes", GAUGE, "process", "Resident memory of a process."),
    ("overlay_process_threads", GAUGE, "process", "Threads of a process."),
    ("overlay_process_open_fds", GAUGE, "process", "Open descriptors of a process, as far as the agent may see them."),
    ("overlay_process_max_fds", GAUGE, "process", "How many descriptors a process may have open."),
    ("overlay_process_start_time_seconds", GAUGE, "process", "When a process started, in seconds since 1970."),
    # Each peer
    ("overlay_peer_state", GAUGE, "peer state", "1 for the state that a peer is in, as overlay status shows it; absent while that is not known."),
    ("overlay_peer_receive_bytes_total", COUNTER, "peer", "Bytes of UDP payload received from a peer, handshakes included."),
    ("overlay_peer_transmit_bytes_total", COUNTER, "peer", "Bytes of UDP payload sent to a peer, handshakes included."),
    ("overlay_peer_receive_packets_total", COUNTER, "peer", "Packets received from a peer; a super-packet is one."),
    ("overlay_peer_transmit_packets_total", COUNTER, "peer", "Packets sent to a peer; a super-packet is one."),
    ("overlay_peer_receive_units_total", COUNTER, "peer", "Bulk units received from a peer."),
    ("overlay_peer_transmit_units_total", COUNTER, "peer", "Bulk units sent to a peer."),
    ("overlay_peer_last_handshake_timestamp_seconds", GAUGE, "peer", "When the last handshake with a peer was completed; absent without one."),
    ("overlay_peer_last_receive_timestamp_seconds", GAUGE, "peer", "When the last message of a peer arrived; absent without one."),
    ("overlay_peer_path_mtu_bytes", GAUGE, "peer", "The largest packet that reaches a peer, according to probes or the kernel; absent while unknown."),
    ("overlay_peer_round_trip_seconds", GAUGE, "peer", "Round trip of in-band pings to a peer that carries packets; absent if none was measured in the last 20 seconds."),
    ("overlay_peer_loss_ratio", GAUGE, "peer", "The fraction of those pings that were not answered, 0 to 1."),
    ("overlay_peer_lanes", GAUGE, "peer", "Lanes that carry packets of a peer; absent with one lane."),
    ("overlay_peer_learnt_macs", GAUGE, "peer", "Ethernet addresses that were seen at a peer; absent with a tun."),
    ("overlay_peer_dropped_packets_total", COUNTER, "peer reason", "Packets of and for a peer that were dropped, by reason; absent for reasons that never occurred there."),
    ("overlay_left_out_series", GAUGE, "", "Series of drops of peers that are left out because there are too many."),
    # Virtual services
    ("overlay_service_state", GAUGE, "service state", "1 for the state that a virtual service is in at this node."),
    ("overlay_service_active", GAUGE, "service", "Whether this node balances a service now."),
    ("overlay_service_has_quorum", GAUGE, "service", "Whether enough servers of a service work; absent where another node balances it."),
    ("overlay_service_live_weight", GAUGE, "service", "The sum of the weights of the working servers of a service."),
    ("overlay_service_connections_total", COUNTER, "service", "Flows that began at a service."),
    ("overlay_service_packets_total", COUNTER, "service", "Packets of clients for a service."),
    ("overlay_service_bytes_total", COUNTER, "service", "Bytes of clients for a service."),
    ("overlay_service_dropped_packets_total", COUNTER, "service reason", "Packets for a service that were dropped, by reason."),
    ("overlay_server_state", GAUGE, "service server state", "1 for the state that a server is in."),
    ("overlay_server_up", GAUGE, "service server", "0 for a server that its checks have found down; absent until they have a result, and where another node balances the service."),
    ("overlay_server_weight", GAUGE, "service server", "The weight of a server at present; with 0 it takes no new flows."),
    ("overlay_server_active_flows", GAUGE, "service server", "Flows of a server that are active."),
    ("overlay_server_connections_total", COUNTER, "service server", "Flows that were assigned to a server."),
    ("overlay_server_packets_total", COUNTER, "service server", "Packets of clients that went to a server."),
    ("overlay_server_bytes_total", COUNTER, "service server", "Bytes of clients that went to a server."),
    ("overlay_vrrp_state", GAUGE, "group ip_version state", "1 for the state that a virtual router of this node is in."),
)  # fmt: skip

FAMILIES = {
    name: Family(name, kind, tuple(labels.split()), sentence) for name, kind, labels, sentence in _ROWS
}
"""All metrics by name, in the order of the output."""


def as_markdown() -> str:
    """Return the table of docs/metrics.md, in the order of the registry."""
    rows = (
        f"| `{each.name}` | {', '.join(f'`{label}`' for label in each.labels) or '-'} | {each.help} |"
        for each in FAMILIES.values()
    )
    return "\n".join(["| metric | labels | meaning |", "|---|---|---|", *rows, ""])
