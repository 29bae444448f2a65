"""Every kind of finding: its name, how bad it is, what it means and what to do.

Describing a finding of a kind that is not here fails an assertion, so a new kind needs a line in this file.
docs/doctor.md is generated from it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overlay.diagnosis.finding import Finding


class Severity(enum.Enum):
    """How bad it is.  Notices alone mean that nothing is wrong: `overlay doctor` exits with 0."""

    ERROR = "error"  # packets that should arrive do not
    WARNING = "warning"  # packets arrive now, but something is at risk, or not as the operator wants it
    NOTICE = "notice"  # this host, or its load, sets a limit


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding.  *meaning* and *remedy* are for people, and end without a full stop."""

    name: str
    severity: Severity
    meaning: str
    remedy: str


_ERROR, _WARNING, _NOTICE = Severity

_ROWS = (
    # The agent and its files
    ("waiting", _ERROR, "the agent runs, and has not joined its network yet", "the command in the finding"),
    ("no_agent", _ERROR, "no agent runs for the interface", "`overlay up`, once the other findings are corrected"),
    ("peers_file", _ERROR, "the peers file cannot be read, or has a mistake", "correct the line that is named"),
    ("own_key", _ERROR, "this host's private key is missing, cannot be read, or belongs to no peer", "make or name the key, or correct `public_key` in the peers file"),
    ("key_file", _ERROR, "a preshared key file that this host needs is missing or has no key", "copy or make it"),
    ("tun_missing", _ERROR, "the host has no `/dev/net/tun`", "`modprobe tun`, or give the container the device"),
    ("interface_taken", _ERROR, "the host has an interface of that name and of another kind", "`--interface`, or remove the other"),
    ("key_removed", _ERROR, ("`wg` removed this node's private key, or has set none, so its tunnels are "
        "down"), "the `wg set` in the finding"),
    ("not_loaded", _ERROR, ("the peers file was changed, and the change was refused: the previous table stays in "
        "force"), "correct the mistake; `overlay check` names all"),
    ("files", _WARNING, "the key file or the peers file is not as it was when the agent started: it may not start again", "put back or correct the file"),
    ("store", _WARNING, "the store of a network has a message for the administrator, for example that etcd does not answer, or who is left out", "the command in the finding"),
    ("file", _WARNING, "others can read a key, or change the file that lists the peers", ("the `chmod` or `chown` in "
        "the finding")),
    ("missing_program", _ERROR, ("the peers file asks for something that needs a program which this host "
        "lacks"), "install it"),
    ("port_taken", _ERROR, "another program has the UDP port that the agent needs", "stop that program, or set another `port`"),
    ("guards", _WARNING, "an agent that was killed left routes that reject all packets for the overlay", "`overlay up` takes them over, `overlay down` removes them"),
    ("forwarder_silent", _ERROR, "the process that carries packets does not report", ("it is restarted within a "
        "minute; if this happens again, report it")),
    ("start", _NOTICE, "something that was asked for was not available when the agent started", "see the finding"),
    # Peers
    ("unknown_key", _ERROR, "a peer calls with a public key that no peer has here", "compare `overlay pubkey` at the peer with its `public_key` in the peers file here"),
    ("unknown_caller", _WARNING, "handshakes with a public key that no peer has come from an address that is not a peer's, while a peer is silent", "correct `public_key` if it is that peer, or stop the agent that calls"),
    ("stranger", _NOTICE, "handshakes with a public key that no peer has come from an address that is not a peer's, and no peer is missed", "stop that host's agent, or make it a peer"),
    ("wrong_key_there", _ERROR, ("a host calls this node with a public key that is not this "
        "node's"), "correct `public_key` of this node in the peers file there"),
    ("wrong_place_there", _ERROR, "a host calls this node with the public key of another peer", "correct the endpoint of that peer, or `public_key` of this node, in the peers file there"),
    ("misdirected", _NOTICE, "the same, from a host that is not a peer while no peer is missed, or from a peer that reaches this node, too", "correct the peers file there"),
    ("preshared_key", _ERROR, "handshakes fail because the preshared keys differ", "compare the files, as the finding says"),
    ("unconfirmed", _ERROR, "a peer's handshakes are answered, but it does not use the answers: they do not reach it, or the preshared keys differ", "compare the files, as the finding says, and see whether firewalls let UDP pass"),
    ("clock_behind", _WARNING, "a peer's clock was set back, so its handshakes look like replays", "set that clock"),
    ("clock_ahead", _WARNING, "a peer's clock is ahead of this host's: one of the two is wrong", "set the clock that is wrong"),
    ("two_places", _WARNING, "a peer is heard from two places in turn", "give each host its own key"),
    ("endpoint_of_other", _WARNING, "a peer is heard from the endpoint that the peers file has for another peer", "correct the endpoints or the public keys, as the finding says"),
    ("unresolved", _ERROR, "the name of a peer's endpoint has no address", "correct the name, or the resolver of this host"),
    ("name_stale", _WARNING, ("the name of a peer's endpoint can no longer be resolved; its last address is "
        "used"), "correct the name, or the resolver of this host"),
    ("no_endpoint", _ERROR, "neither this node nor the peer has an endpoint, so neither can connect", "give one of them an `endpoint`"),
    ("waits_for_peer", _NOTICE, "the peer has no endpoint and has not connected", "start its agent"),
    ("no_answer", _ERROR, "the peer does not answer handshakes", "see whether its agent runs, keys and port are right, and firewalls let UDP pass"),
    ("port_closed", _ERROR, "the peer's host says that nothing listens on the port of its endpoint", "start the agent there, correct the port, make the encapsulations alike, or let it in if a firewall there rejects it"),
    ("peer_filtered", _ERROR, "a host says that it does not let datagrams to the peer pass", "let them pass in its packet filter"),
    ("host_absent", _ERROR, "a router, or this host, finds no host at the peer's endpoint", "see whether it is up, or correct the endpoint"),
    ("way_lost", _ERROR, "a router does not know the way to the peer's endpoint", "correct its routes, or the endpoint"),
    ("silent", _ERROR, "there is a session with the peer, but it does not answer", "see whether its agent runs, and firewalls let UDP pass"),
    ("files_differ", _WARNING, "a peer's agent has another peers file, so that packets are dropped at one end", "make the peers files of both hosts alike"),
    ("foreign_source", _WARNING, "packets of a peer are dropped because their sources are not in its subnets", "make the peers files of both hosts alike"),
    ("echo_ignored", _NOTICE, "the tunnel works, but the peer's kernel does not answer echo requests", ("see whether a "
        "firewall there drops them")),
    ("tunnel_absent", _ERROR, "the peer's host takes no packets of the tunnel's IP protocol", "set up the tunnel there, or make the encapsulations alike"),
    ("tunnel_one_way", _NOTICE, "packets of an unencrypted peer arrive, and it answers none", "none for a director of LVS, which only sends; otherwise see its end of the tunnel"),
    ("tunnel_number", _ERROR, ("packets from the peer have a different key or VNI than this end of the "
        "tunnel"), "configure the same at both ends"),
    ("kernel_path_mtu", _WARNING, ("an ICMP error told the kernel a path MTU smaller than that of any common "
        "link"), "`ip route flush cache` if it is wrong"),
    ("path_narrow", _NOTICE, ("probes found that the path MTU to a peer is smaller than the interface's "
        "MTU"), "no action is needed; TCP starts faster with an `mtu` that fits"),
    # Ways to peers
    ("endpoint_here", _ERROR, "a peer's endpoint is this host itself", "correct the endpoint, or give this host its own key"),
    ("endpoint_inside", _ERROR, "a peer's endpoint lies inside its own tunnel", "correct the endpoint"),
    ("no_route", _ERROR, "no route of this host leads to a peer's endpoint", "see `ip route get`: an interface may be down, or a default route missing"),
    ("listen_address", _WARNING, "an address in `listen` is not an address of this host", "correct `listen`; the agent waits for it"),
    ("route_taken", _ERROR, "another route, bridge or rule of this host takes packets for a peer", "see the finding"),
    ("route_refused", _ERROR, "a route of this host rejects packets to a peer", "remove that route"),
    ("address_taken", _ERROR, "this host has an address inside a peer's network", "renumber one of them"),
    ("gateway_taken", _WARNING, "the gateway of this host lies inside a peer's network", "the `ip route add` in the finding"),
    ("mark_shared", _WARNING, ("a routing rule of another program, as of another VPN, matches the firewall mark of "
        "this node's datagrams"), "another `fwmark` in the peers file"),
    ("subnet_nowhere", _NOTICE, "no interface and no route of this host leads to one of its subnets", "give a bridge or interface an address in it"),
    # Settings, filters, other tunnels
    ("forwarding", _ERROR, "the host does not forward, so the networks behind it cannot be reached", ("the `sysctl` in "
        "the finding, or `--fix-sysctl`")),
    ("rp_filter", _ERROR, "the strict reverse path check drops packets from peers, or dropped packets while one was silent", ("the `sysctl` in the finding, or "
        "`--fix-sysctl`")),
    ("redirects", _WARNING, "the host sends ICMP redirects for packets that it forwards between peers", "the `sysctl` in the finding, or `--fix-sysctl`"),
    ("ipv6_disabled", _WARNING, ("IPv6 is disabled here, and the peers file has IPv6 "
        "networks"), "the `sysctl` in the finding"),
    ("mtu_over_path", _WARNING, "packets are larger than the way to peers carries without fragments", ("correct `mtu`, "
        "or the MTU of the underlay")),
    ("firewall_forward", _ERROR, ("a packet filter drops packets that are forwarded from or into the "
        "tunnel"), "the command in the finding, or `--forward`"),
    ("firewall_raw", _ERROR, ("a packet filter drops packets from the tunnel before they are forwarded, as Docker's "
        "does"), "see the finding"),
    ("firewall_port", _ERROR, ("a packet filter drops packets from peers to this host's "
        "port"), "the command in the finding"),
    ("port_redirected", _WARNING, "a packet filter leads packets from peers to this host's port elsewhere, as Docker does for a container that publishes it", "another port for one of the two"),
    ("firewall_output", _ERROR, "a packet filter drops packets from this host to a peer", "the command in the finding"),
    ("firewall_invalid", _ERROR, ("a packet filter drops packets from clients of a "
        "service"), "the command in the finding"),
    ("firewall_service", _ERROR, ("a packet filter drops packets from clients of a service to this "
        "server"), "the command in the finding"),
    ("masquerade", _WARNING, "packets into the tunnel get an address of this host as their source", "the command in the finding, or `--masquerade`"),
    ("own_rules", _ERROR, "the rules that `--masquerade` or `--forward` ask for are not all in force", "see the finding"),
    ("conntrack_full", _ERROR, "the table of connection tracking is full, so new connections are dropped", "the `sysctl` in the finding"),
    ("kernel_tunnel_answers", _ERROR, "the kernel's own tunnel answers packets of the overlay with ICMP errors", "the `modprobe -r` in the finding"),
    ("kernel_tunnel_up", _ERROR, "the kernel's own tunnel takes packets a second time", "the `ip link set` in the finding"),
    ("tc_drops", _ERROR, "traffic control of this host dropped packets while a peer was silent", "let packets of the tunnel pass: the `tc` in the finding shows the filters"),
    # Services
    ("service", _ERROR, "a virtual service has no server, no quorum, or trouble on its LAN", "`overlay services` has more"),
    ("program", _ERROR, "a program of the peers file, for checks or events of a service, cannot be started", "see the finding"),
    ("server_silent", _ERROR, "checks find that a server without an agent does not take packets for the virtual address", "the commands that `overlay check` prints, at the server"),
    ("server_unasked", _NOTICE, "a server without an agent does not answer at its own address, and has no checks that fail", "none; a `check` in the service tells more"),
    ("service_address", _ERROR, "a virtual address is an address of this host, so its packets stay here", "the `ip address delete` in the finding"),
    # Limits
    ("clock", _WARNING, "this host's clock shows a time before 2020", "set it"),
    ("device_down", _ERROR, "the device of the tunnel is down", "the `ip link set` in the finding"),
    ("device_prepared", _ERROR, "the device that root prepared is incomplete", "the command in the finding"),
    ("icmp_source", _NOTICE, "without CAP_NET_RAW, ICMP errors carry the unreachable address as their source", "give the agent that capability"),
    ("tun_offloads", _NOTICE, "the kernel lacks segmentation offload on tun devices", "a newer kernel: 6.2 has all of it"),
    ("udp_offloads", _NOTICE, "the kernel lacks segmentation offload on UDP sockets", "a newer kernel: 5.0 has it"),
    ("offloads_off", _WARNING, "offloads of an interface are disabled, so throughput is lower", ("the `ethtool -K` in "
        "the finding")),
    ("tc_limits", _NOTICE, "traffic control of this host dropped packets while no peer was silent", "the `tc` in the finding shows where"),
    ("xdp", _NOTICE, "an XDP program sees packets before this host does, and may drop them", "if a peer is silent, see what the program is"),
    ("packet_path", _NOTICE, "packets take the interpreted path rather than the compiled one", "install gcc and the headers of Python, then overlay again"),
    ("forwarder_busy", _NOTICE, "the process that carries packets uses a whole processor", "see [performance](performance.md)"),
    ("checksums", _WARNING, "UDP datagrams arrive with wrong checksums", "see whether a link or an offload of a network card damages them"),
    ("dropping", _WARNING, "packets are being dropped, and the cause is in this node", "see [drops](drops.md)"),
    ("peer_floods", _WARNING, ("a peer sends more than its share of what this node can handle, so some of its packets are "
        "dropped to keep other peers from waiting"), "find the program behind that peer that sends so much"),
    ("udp_buffers", _NOTICE, "the kernel grants small buffers for UDP, so bursts are lost", "the `sysctl` in the finding, and a restart"),
    ("unknown", _WARNING, "a part of this host could not be examined", "run it as root"),
)  # fmt: skip

KINDS: dict[str, Kind] = {row[0]: Kind(*row) for row in _ROWS}
"""All kinds by name, in the order of docs/doctor.md."""


def describe(finding: Finding) -> dict[str, Any]:
    """Return *finding* as a JSON value."""
    assert finding.name in KINDS, finding.name
    return {
        "name": finding.name,
        "severity": KINDS[finding.name].severity.value,
        "peer": finding.peer,
        "problem": finding.problem,
        "remedy": finding.remedy or None,
    }


def as_markdown() -> str:
    """Return the table of docs/doctor.md, in the order of the registry."""
    rows = [
        f"| `{each.name}` | {each.severity.value} | {each.meaning} | {each.remedy} |"
        for each in KINDS.values()
    ]
    return "\n".join(["| finding | severity | what it means | remedy |", "|---|---|---|---|", *rows]) + "\n"
