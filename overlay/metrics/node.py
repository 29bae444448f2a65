"""The metrics of the node itself, its processes and its services."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

from overlay import status
from overlay.balancing import standing
from overlay.host.process import processes
from overlay.reasons import REASONS
from overlay.services.health import Condition
from overlay.services.vrrp import RouterState
from peers.stores.membership import AttendedStore

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.balancing.traffic import Traffic
    from overlay.metrics.exposition import Samples
    from overlay.supervision.counters import Counted


def tell_node(samples: Samples, running: Running, counted: Counted) -> None:
    """Add the metrics of the node; those that need the forwarder are left out if it did not answer."""
    node, host, forwarder = running.node(), running.host, running.supervisor.forwarder
    has_forwarder = running.supervisor.trouble is None
    samples.add("overlay_build_info", 1, version=_version(), python=platform.python_version())
    samples.add(
        "overlay_node_info", 1, node=node.own.name, interface=host.interface, device=node.table.network.device
    )
    if has_forwarder:
        samples.add("overlay_packet_path_info", 1, path=forwarder.packet_path, aes=forwarder.aes)
        samples.add("overlay_lanes", forwarder.lanes)
    samples.add("overlay_start_time_seconds", steady(processes.wall_time(running.started)))
    samples.add("overlay_mtu_bytes", host.mtu)
    samples.add(
        "overlay_notes", len(running.notes) + len(running.reloads.notes) + len(running.host_notes.sentences)
    )
    for kind in sorted(running.host_notes.kinds):
        samples.add("overlay_finding", 1, finding=kind)
    samples.add("overlay_config_last_reload_successful", int(running.reloads.error is None))
    if isinstance(running.store, AttendedStore):
        samples.add("overlay_store_up", int(running.store.standing().silent is None))
    samples.add("overlay_forwarder_up", int(has_forwarder and counted.is_complete))
    samples.add("overlay_forwarder_restarts_total", running.supervisor.restarts)
    drops = running.drops(counted)
    for reason in REASONS.values():
        if counted.is_complete:
            samples.add("overlay_dropped_packets_total", drops.get(reason.name, 0), reason=reason.name)
        samples.add(
            "overlay_drop_reason_info",
            1,
            reason=reason.name,
            cause=reason.cause.name.lower(),
            description=reason.sentence,
        )
    if counted.is_complete:
        for lane, row in enumerate(status.lane_traffic(counted.peers.values(), forwarder.lanes)):
            samples.add("overlay_lane_receive_bytes_total", row["rx_bytes"], lane=str(lane))
            samples.add("overlay_lane_transmit_bytes_total", row["tx_bytes"], lane=str(lane))


def tell_processes(samples: Samples, pids: dict[str, int]) -> None:
    """Add the resources that the processes use, by name."""
    for name, pid in pids.items():
        used = processes.usage(pid)
        if used is None:
            continue
        samples.add("overlay_process_cpu_seconds_total", used.cpu, process=name)
        samples.add("overlay_process_resident_memory_bytes", used.resident, process=name)
        samples.add("overlay_process_threads", used.threads, process=name)
        samples.add("overlay_process_open_fds", used.descriptors, process=name)
        samples.add("overlay_process_max_fds", used.most_descriptors, process=name)
        samples.add(
            "overlay_process_start_time_seconds", steady(processes.wall_time(used.started)), process=name
        )


def pids_of(running: Running) -> dict[str, int]:
    """Return the processes of this node."""
    pids = {"agent": os.getpid()}
    if running.supervisor.trouble is None:
        pids["forwarder"] = running.supervisor.forwarder.pid
    return pids


def tell_services(samples: Samples, running: Running, traffic: Traffic) -> None:
    """Add the state of services and their servers, and what is known about their traffic."""
    balancing, services = running.balancing, running.services
    for service in services.values():
        name, health = service.name, balancing.watching.healths.get(service.name)
        samples.add("overlay_service_state", 1, service=name, state=standing.state_of(balancing, service)[0])
        samples.add(
            "overlay_service_active", int(standing.director_of(balancing, service)["is_here"]), service=name
        )
        if health is None:
            continue
        samples.add("overlay_service_has_quorum", int(health.has_quorum), service=name)
        samples.add("overlay_service_live_weight", health.live_weight, service=name)
        totals, _ = traffic.service(name)
        if totals is not None:
            samples.add("overlay_service_connections_total", totals.connections, service=name)
            samples.add("overlay_service_packets_total", totals.packets, service=name)
            samples.add("overlay_service_bytes_total", totals.bytes, service=name)
            for reason, dropped in totals.drops.items():
                samples.add("overlay_service_dropped_packets_total", dropped, service=name, reason=reason)
        for server in {each.name: each for each in service.entries}.values():
            labels = {"service": name, "server": server.name}
            stands = health.standings[server.key]
            samples.add("overlay_server_state", 1, **labels, state=stands.condition.value)
            if stands.condition is not Condition.CHECKING:
                samples.add("overlay_server_up", int(stands.condition is not Condition.DOWN), **labels)
            samples.add("overlay_server_weight", stands.effective, **labels)
            counters, _ = traffic.server(name, server.key)
            if counters is not None:
                samples.add("overlay_server_active_flows", counters.active, **labels)
                samples.add("overlay_server_connections_total", counters.connections, **labels)
                samples.add("overlay_server_packets_total", counters.packets, **labels)
                samples.add("overlay_server_bytes_total", counters.bytes, **labels)
    for router in balancing.lan.status() if services else ():
        samples.add(
            "overlay_vrrp_state",
            1,
            group=router.group,
            ip_version=str(router.version),
            state=RouterState(router.state).value,
        )


def steady(moment: float) -> float:
    """Return *moment*, computed from two clocks that are read one after the other, rounded to a tenth of a second.

    So it is usually the same at the next scrape.
    """
    return round(moment, 1)


@cache
def _version() -> str:
    try:
        return metadata.version("overlay")
    except metadata.PackageNotFoundError:
        return "unknown"
