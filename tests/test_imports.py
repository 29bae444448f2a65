"""Rules of the architecture that imports can break, each with its reason; and that tests mirror the tree.

What is imported for type checking alone counts where a rule is about dependence, not where it is about loading.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Who may import whom.  A package knows itself, and is known by the packages that name it here.
ROOMS = {
    "peers": set(),
    "peers.stores": {"peers"},
    "overlay.reasons": set(),
    "overlay.errors": {"overlay.reasons"},
    "overlay.linux": set(),
    "overlay.wire": {"overlay.errors"},
    "overlay.crypto": {"overlay.errors", "overlay.wire"},
    "overlay.session": {"overlay.errors", "overlay.wire", "overlay.crypto"},
    "overlay.wireguard": {
        "overlay.errors",
        "overlay.wire",
        "overlay.crypto",
        "overlay.session",
    },  # the interface for other programs: nothing of the agent
    "overlay.encap": {
        "overlay.errors",
        "overlay.wire",
        "peers.encapsulation",
    },  # each fact has one place, the table
    "overlay.link": {
        "overlay.encap.encapsulation",
        "overlay.errors",
        "overlay.reasons",
        "overlay.session",
        "overlay.wire",
    },
    "overlay.importing": set(),  # what importers of other programs' files share
    "overlay.services": {
        "overlay.errors",
        "overlay.importing",
        "overlay.link",
        "overlay.linux",
        "overlay.wire",
        "peers",
    },
    "overlay.services.checks": {
        "overlay.errors",
        "overlay.services",
        "overlay.text",
        "overlay.wire",
        "peers",
    },  # the edge: each asks a server
    "overlay.cni": set(),  # a process for each question of a runtime: nothing but the standard library
    "overlay.capturing": {"overlay.errors", "overlay.text", "overlay.wire", "peers.prefixes"},
    "overlay.containers": {"peers.mac"},
    "overlay.host": {
        "overlay.containers",
        "overlay.errors",
        "overlay.linux",
        "overlay.wire",
        "overlay.encap.encapsulation",
        "peers.encapsulation",
        "peers.listening",
    },
    "overlay.metrics": {
        "overlay",
        "overlay.host",
        "overlay.link",
        "overlay.reasons",
        "overlay.services",
        "peers",
        "peers.stores",
    },  # what the status tells, as samples
    "overlay.uapi": {"overlay.errors", "overlay.crypto", "peers"},  # requests and answers of `wg`, as values
    "overlay.doors.accepting": set(),
    "overlay.doors.http": {"overlay.doors.accepting"},  # a server for any service, which knows none of them
    "overlay.doors": {
        "overlay.ticks",
        "overlay",
        "overlay.answers",
        "overlay.crypto",
        "overlay.doors.accepting",
        "overlay.doors.http",
        "overlay.encap",
        "overlay.errors",
        "overlay.host",
        "overlay.link",
        "overlay.metrics",
        "overlay.reasons",
        "overlay.services",
        "overlay.session",
        "overlay.uapi",
        "overlay.wire",
        "peers",
    },  # each translates a request into questions of the control socket
    "overlay.forwarding": {
        "overlay.errors",
        "overlay.linux",
        "overlay.reasons",
        "overlay.wire",
        "overlay.crypto",
        "overlay.encap",
        "overlay.session",
        "overlay.link",
        "overlay.services.schedulers",
        "overlay.services.schedulers.scheduler",
        "overlay.services.states",
        "overlay.host.clock",  # four modules of the edge, for the process itself, and two that ask the kernel
        "overlay.host.paths",
        "overlay.host.sockets.queues",
        "overlay.host.process.priority",
        "overlay.host.process.privileges",
        "overlay.host.process.seccomp",
    },
    "overlay.lan": {
        "overlay.errors",
        "overlay.host",
        "overlay.services",
        "overlay.wire",
        "peers",
    },  # the edge of VRRP: it knows nothing of the agent
    "overlay.wg_quick": {
        "overlay.crypto",
        "overlay.importing",
        "overlay.text",
        "peers",
    },  # wg-quick files, read and written
    "overlay.docker": {
        "overlay.containers",
        "overlay.doors.http",
        "overlay.errors",
        "overlay.host",
        "overlay.linux",
    },  # what Docker asks for; overlay.provisioning.docker_driver is its edge
    "overlay.explaining": {
        "overlay.config",
        "overlay.durations",
        "overlay.encap",
        "overlay.host",
        "overlay.reasons",
        "overlay.roster",
        "overlay.services",
        "overlay.tunnels",
        "overlay.wire",
        "peers",
    },  # it computes: facts from the kernel and the agent come in
    "overlay.ticks": set(),
    "overlay.alarm": set(),
    # The agent and the modules around it.
    "overlay": {
        "overlay.alarm",
        "overlay.ticks",
        "overlay.reasons",
        "overlay.explaining",
        "overlay.docker",
        "overlay.doors",
        "overlay.doors.accepting",
        "overlay.doors.http",
        "overlay.containers",
        "overlay.services",
        "overlay.services.checks",
        "overlay.errors",
        "overlay.linux",
        "overlay.wire",
        "overlay.crypto",
        "overlay.encap",
        "overlay.session",
        "overlay.link",
        "overlay.host",
        "overlay.uapi",
        "overlay.lan",
        "peers",
        "peers.stores",
    },
    "overlay.cli": {
        "overlay.capturing",
        "overlay.doors.webserver",  # its command runs it
        "overlay.reasons",
        "overlay.forwarding.native",  # for --version: which packet path there is
        "overlay.forwarding.native.aes",
        "overlay",
        "overlay.errors",
        "overlay.linux",
        "overlay.wire",
        "overlay.crypto",
        "overlay.session.constants",
        "overlay.importing",
        "overlay.wg_quick",
        "overlay.services",
        "overlay.host",
        "peers",
        "peers.stores",
    },
    "overlay.wg": {"overlay", "overlay.errors", "overlay.host"},  # a node of one interface, by `wg` alone
    "overlay.__main__": {"overlay.cli"},
}

COMPUTE = {
    "__future__", "abc", "array", "base64", "binascii", "collections", "collections.abc", "contextlib", "dataclasses", "difflib",
    "enum", "functools", "gc", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "math", "re", "shlex", "struct", "tomllib",
    "types", "typing", "zlib",
}  # fmt: skip
"""Modules that neither wait, nor read a clock, nor draw randomness, nor touch a file."""


@dataclass(frozen=True)
class Computes:
    """Modules that import nothing but *COMPUTE*, what their package may import, and *libraries*."""

    modules: tuple[str, ...]
    libraries: frozenset[str]
    reason: str
    but: frozenset[str] = frozenset()


CORE = (
    Computes(
        (
            "overlay.capturing",
            "overlay.wire",
            "overlay.encap",
            "overlay.session",
            "overlay.link",
            "overlay.documents",
            "overlay.durations",
            "overlay.numbers",
            "overlay.diagnosis.plain_servers",
            "overlay.errors",
            "overlay.records.history",
            "overlay.roster",
            "overlay.status",
            "overlay.troubles.peers",
            "overlay.tunnels",
            "overlay.troubles.unresolved",
            "overlay.troubles.whereabouts",
            "overlay.importing",
            "overlay.text",
            "overlay.records.process_output",
            "overlay.provisioning.relocations",
            "overlay.supervision.policing",
            "overlay.services",
            "overlay.lan.memberships",
            "overlay.metrics.exposition",
            "overlay.metrics.families",
        ),
        frozenset({"msgpack"}),
        but=frozenset({"overlay.services.checks"}),
        reason="a test hands them bytes, a time and randomness, and a run repeats byte for byte",
    ),
    Computes(
        ("overlay.wireguard",),
        frozenset({"os", "time"}),  # as defaults: a test hands in its own
        "a device is driven by whoever has the socket and the clock",
    ),
    Computes(
        ("overlay.wg_quick",),
        frozenset({"pathlib", "unicodedata"}),
        "text becomes text; the command line reads and writes files",
    ),
    Computes(
        ("overlay.uapi",),
        frozenset({"errno"}),
        "what `wg` may say is tried on a table alone, and compared with what a device makes of it",
    ),
    Computes(
        ("overlay.containers",),
        frozenset({"json"}),
        "who has which address is settled before the kernel is asked for anything",
    ),
    Computes(
        ("overlay.docker.calls", "overlay.docker.publishing", "overlay.docker.record"),
        frozenset({"json"}),
        "what dockerd may say is tried without one",
    ),
    Computes(
        ("overlay.crypto",),
        frozenset({"cryptography"}),
        "entropy and time come in from outside, so that a handshake can be compared with vectors",
    ),
    Computes(
        ("peers",),
        frozenset(),
        "a table is computed from text; stores, which alone wait, hand the text in",
        but=frozenset({"peers.stores", "peers.files"}),
    ),
    Computes(
        ("overlay.forwarding",),
        frozenset({"cryptography", "numpy", "socket", "sys", "errno", "contextlib"}),
        "the packet path runs on a network in memory; its loop alone waits, by its poll, and one module calls raw sockets",
        but=frozenset(
            {
                "overlay.forwarding.loop",
                "overlay.forwarding.poll",
                "overlay.forwarding.__main__",
                "overlay.forwarding.native",
                "overlay.forwarding.underlay.mmsg",
            }
        ),
    ),
)

ONLY_IN = {
    "pyroute2": (
        ("overlay.host.netlink.codec",),
        "it takes 0.1 s to load, and one module turns its messages into bytes and back",
    ),
    "click": (("overlay.cli",), "what a command does can be called and tested without a command line"),
    "numpy": (("overlay.forwarding",), "it takes 0.1 s to load, and only the packet path has arrays"),
    "trio": (
        (
            "overlay.agent",
            "overlay.alarm",
            "overlay.answers.check_server",
            "overlay.answers.explain",
            "overlay.starting.arrival",
            "overlay.provisioning.attaching",
            "overlay.balancing",
            "overlay.supervision.captures",
            "overlay.provisioning.changes",
            "overlay.supervision.counters",
            "overlay.docker.driver",
            "overlay.provisioning.docker_driver",
            "overlay.doors",
            "overlay.provisioning.filtering",
            "overlay.supervision.forwarder",
            "overlay.hooks.commands",
            "overlay.hooks.keeping",
            "overlay.lan.lan",
            "overlay.lan.router",
            "overlay.lifecycle",
            "overlay.records.measuring",
            "overlay.diagnosis.notes",
            "overlay.troubles.views",
            "overlay.ticks",
            "overlay.supervision.single_answers",
            "overlay.questions",
            "overlay.disk_thread",
            "overlay.resolver",
            "overlay.services.checks",
            "overlay.supervision.supervisor",
            "overlay.provisioning.upkeep",
            "overlay.doors.webserver",
            "overlay.starting.membership",
            "overlay.metrics.collecting",
            "peers.stores.etcd.administration",
            "peers.stores.etcd.connection",
            "peers.stores.etcd.following",
            "peers.stores.etcd.gateway",
            "peers.stores.etcd.holding",
            "peers.stores.etcd.keeping",
            "peers.stores.etcd.network_store",
            "peers.stores.etcd.participant",
            "peers.stores.etcd.slices",
            "peers.stores.etcd.store",
        ),
        "the rest computes, or is called synchronously, and is tested without a loop",
    ),
    "msgpack": (("overlay.link", "overlay.wire.control"), "bytes become typed values at two boundaries"),
    "cryptography": (
        ("overlay.crypto", "overlay.forwarding", "peers.stores.etcd.signatures"),
        "keys and seals have one room each side of the link; peers, which knows neither, verifies an administrator's",
    ),
    "ctypes": (
        (
            "overlay.cni.namespace",
            "overlay.host.process.keeper",
            "overlay.host.policy_bypass",
            "overlay.host.process.privileges",
            "overlay.host.process.seccomp",
            "overlay.host.process.memory",
            "overlay.host.paths",
            "overlay.host.process.priority",
            "overlay.forwarding.underlay.mmsg",
        ),
        "the modules that call the C library by hand",
    ),
    "subprocess": (
        (
            "overlay.supervision.forwarder",
            "overlay.host.firewall.load",
            "overlay.host.firewall.read",
            "overlay.hooks.keeping",
            "overlay.services.checks.script",
            "overlay.cli.cni.installing",
            "overlay.host.sockets.pcap_filter",
            "overlay.host.process.service_manager",
        ),
        "the forwarder is the one process that stays; packet filters are read and made by programs, as a check may be one; so are other plugins, and filters of captures",
    ),
    "textual": (
        ("overlay.cli.top.app", "overlay.cli.top.peers"),
        "it takes half a second to load, and draws one screen",
    ),
    "rich": (("overlay.cli.top.app", "overlay.cli.top.peers"), "it comes with textual, for that screen"),
    "logging": (
        (
            "overlay.agent",
            "overlay.starting.arrival",
            "overlay.provisioning.attaching",
            "overlay.balancing",
            "overlay.docker.driver",
            "overlay.provisioning.docker_driver",
            "overlay.doors",
            "overlay.records.events",
            "overlay.provisioning.filtering",
            "overlay.supervision.forwarder",
            "overlay.hooks.commands",
            "overlay.records.journal",
            "overlay.lifecycle",
            "overlay.records.logs",
            "overlay.diagnosis.notes",
            "overlay.troubles.refusals",
            "overlay.reload",
            "overlay.resolver",
            "overlay.provisioning.setup",
            "overlay.supervision.supervisor",
            "overlay.provisioning.upkeep",
            "overlay.starting.membership",
            "overlay.starting.waiting",
            "peers.stores.etcd.following",
            "peers.stores.etcd.holding",
            "peers.stores.etcd.in_force",
            "peers.stores.etcd.keeping",
            "peers.stores.etcd.participant",
        ),
        "the journal belongs to the edge of the agent; the core returns values",
    ),
    "random": ((), "all randomness is the kernel's"),
    "asyncio": ((), "the loop is trio's"),
    "threading": (
        ("overlay.cli.top.app", "overlay.disk_thread"),
        "threads are trio's, and the forwarder has one; that screen has no trio, the other asks what such a thread used",
    ),
}

NOT_LOADED = {
    "overlay.cni.__main__": (
        {
            "trio",
            "pyroute2",
            "click",
            "numpy",
            "cryptography",
            "msgpack",
            "typing",
            "dataclasses",
            "socket",
            "peers",
        },
        "a container waits for it; of VERSION, which runtimes ask before each ADD, not even a socket",
    ),
    "overlay.cni.answer": (
        {"trio", "pyroute2", "click", "numpy", "cryptography", "msgpack", "typing", "dataclasses", "peers"},
        "a container waits for it",
    ),
    "overlay.forwarding.__main__": (
        {
            "trio",
            "pyroute2",
            "click",
            "peers.peer",
            "logging",
            "asyncio",
            "subprocess",
            "overlay.host.netlink",
        },
        "the process that opens tunnelled traffic has little in it, and starts while the host is set up",
    ),
    "overlay.cli": (
        {"trio", "pyroute2", "numpy", "cryptography", "msgpack", "asyncio", "textual", "rich"},
        "--help and completion answer at once",
    ),
    "overlay.wireguard": (
        {"trio", "pyroute2", "click", "numpy", "msgpack", "asyncio", "peers", "overlay.host"},
        "other programs import it",
    ),
    "overlay.config": (
        {"trio", "pyroute2", "numpy", "msgpack", "asyncio"},
        "overlay check answers in a tenth of a second",
    ),
    "overlay.lifecycle": (
        {"dns", "h11", "regex", "overlay.metrics"},
        "they take 0.1 s to load, and most nodes check no server",
    ),
    "peers.stores": ({"overlay", "trio", "cryptography"}, "peers is a package that others may use"),
}

TESTED_ELSEWHERE = {
    "overlay.cli.top.peers": "test_app shows the screen with its table",
    "overlay.balancing.forwarded": "test_balancing hears each command",
    "overlay.forwarding.path.sources": "two values; test_liveness looks at paths by them",
    "overlay.forwarding.services.server": "test_service has servers come and go",
    "overlay.cli.cni": "test_installing runs the group",
    "overlay.cli.cni.network": "test_installing reads what it wrote, and has a runtime start it",
    "overlay.cli.capture": "tests/netns/test_capture.py runs the command",
    "overlay.cli.capture.opening": "tests/netns/test_capture.py opens all of it, and what cannot be opened",
    "overlay.cli.capture.sources": "tests/netns/test_capture.py, in packets of a kernel",
    "overlay.cli.service": "test_commands runs the group",
    "overlay.host.process.service_manager": "tests/overlay/cli/service/test_commands.py asks a systemctl",
    "overlay.hooks.happening": "test_hooks tells of each event",
    "overlay.host.process.keeper": "tests/overlay/hooks/test_keeping.py has it run programs of all kinds",
    "overlay.host.sockets.drop_socket": "tests/overlay/cli/capture/test_dropped.py hears by it",
    "overlay.host.sockets.packet_capture": "tests/netns/test_capture.py, in packets of a kernel",
    "overlay.cni.errors": "numbers; test_question and test_answer compare them",
    "overlay.cni.namespace": "tests/netns/test_cni.py attaches containers by it",
    "overlay.forwarding.session_commands": "tests/overlay/forwarding/test_commands.py gives them to a core, as the loop does",
    "overlay.forwarding.tun.opening": "test_inbound has it open what is genuine, forged and replayed",
    "overlay.answers.asked_container": "tests/netns/test_cni.py asks a running agent for what is right and wrong",
    "overlay.answers.attach": "tests/netns/test_cni.py, through the plugin, as of a runtime",
    "overlay.answers.attachments": "tests/netns/test_cni.py asks a running agent",
    "overlay.answers.can_attach": "tests/netns/test_cni.py, as STATUS",
    "overlay.answers.check_attachment": "tests/netns/test_cni.py, as CHECK",
    "overlay.answers.collect": "tests/netns/test_cni.py, as GC",
    "overlay.answers.detach": "tests/netns/test_cni.py, as DEL",
    "overlay.provisioning.attaching": "tests/netns/test_cni.py has a running agent attach containers and restart",
    "overlay.host.netlink.barred_subnets": "tests/overlay/host/test_attaching.py looks for them in a real kernel",
    "overlay.host.netlink.entries": "tests/overlay/host/test_attaching.py says all of them to a real kernel",
    "overlay.host.netlink.container_namespace": "tests/overlay/host/test_attaching.py sets containers up from outside",
    "overlay.host.netlink.veth": "tests/overlay/host/test_attaching.py makes pairs in a real kernel",
    "overlay.forwarding.state": "tests of the classes that begin with its classes; the twin has the same",
    "overlay.forwarding.twin": "test_compiled has one at work",
    "overlay.forwarding.bulk.outbound": "tests/overlay/forwarding/bulk/test_units.py has nodes send units of every kind",
    "overlay.forwarding.offload.split": "test_segments joins again what it split",
    "overlay.explaining": "test_leaving, test_arriving and test_services ask it",
    "overlay.explaining.explanation": "test_leaving and test_arriving read explanations",
    "overlay.explaining.flow": "a value; all of them explain some",
    "overlay.explaining.facts": "test_leaving and test_arriving are asked with them",
    "overlay.explaining.origin": "test_leaving and test_arriving, by sources from everywhere",
    "overlay.explaining.permits": "test_services",
    "overlay.explaining.station": "a value; test_stations",
    "overlay.explaining.tunnel": "test_leaving, by peers in every state",
    "overlay.answers.set_server": "tests/netns/test_services.py sets servers of running agents",
    "overlay.agent": "tests/overlay/agent/ has a file for each concern",
    "overlay.lifecycle": "tests/netns/test_ending.py starts and ends nodes; tests/overlay/cli/test_up.py, refused starts",
    "overlay.answers.accept_store": "tests/netns/test_joining.py has an administrator accept an etcd",
    "overlay.starting.membership": "tests/netns/test_joining.py has whole hosts join, wait and leave",
    "peers.stores.membership": "a protocol and its values; test_attendance asks for the standing",
    "peers.stores.store": "a protocol; tests/peers/stores/test_stores.py holds what all stores have in common",
    "overlay.cli.network": "tests/overlay/cli/network/test_network.py runs the group on a real etcd",
    **{
        f"overlay.cli.network.{name}": "tests/overlay/cli/network/test_network.py runs the group on a real etcd"
        for name in (
            "accepting",
            "common",
            "creating",
            "editing",
            "enrolling",
            "exporting",
            "importing",
            "releasing",
            "reserving",
            "showing",
            "tokens",
        )
    },
    "peers.stores.etcd.administration": "tests/overlay/cli/network/test_network.py has each change, right and wrong",
    "overlay.cli.echoes": "test_doctor asks peers, and tests/netns/test_doctor.py real ones",
    "overlay.answers.down": "tests/overlay/agent/test_questions.py, as questions of a running agent",
    "overlay.answers.ping": "tests/overlay/agent/test_questions.py, as questions of a running agent",
    "overlay.answers.running": "tests/overlay/agent/test_questions.py, as questions of a running agent",
    "overlay.answers.own_keys": "tests/netns/test_rotation.py asks running agents in each step",
    "overlay.answers.status": "tests/overlay/agent/test_questions.py, as questions of a running agent",
    "overlay.supervision.introduction": "tests/overlay/agent/test_forwarders.py, by what the forwarder is told",
    "overlay.provisioning.underlay_sockets": "test_setup opens, replaces, renews and marks them",
    "overlay.provisioning.upkeep": "tests/overlay/agent/test_peers.py has peers move, test_network.py routes and settings change",
    "overlay.supervision.supervisor": "tests/overlay/agent/test_forwarders.py ends them, has them hang and report without end",
    "overlay.__main__": "one call of the command line; test_main runs it as a process",
    "overlay.cli": "tests/overlay/cli/test_main.py runs the whole command line",
    "overlay.doors.accepting": "tests/overlay/test_questions.py has more connections than there is room or descriptors for",
    "overlay.answers.readiness": "tests/overlay/doors/test_metrics.py asks a running agent by HTTP",
    "overlay.doors.metrics_pages": "tests/overlay/doors/test_metrics.py asks for each of them",
    "overlay.metrics.node": "tests/overlay/metrics/test_collecting.py has all that it tells",
    "overlay.metrics.peers": "tests/overlay/metrics/test_collecting.py has all that it tells",
    "overlay.cli.agents": "each command that asks an agent is tested with a fake one",
    "overlay.cli.exits": "each command is tested for its exit codes",
    "overlay.cli.keyfiles": "test_keygen and test_genpsk write and refuse files",
    "overlay.cli.one_peer": "test_status shows peers well and in trouble",
    "overlay.cli.options": "test_main completes and refuses options",
    "overlay.cli.surroundings": "it is what tests hand to commands",
    "overlay.diagnosis.device": "test_registry makes devices that lack something",
    "overlay.uapi.errors": "values; test_language and test_amendments have each refused",
    "overlay.defaults": "constants; tests of the commands go by them",
    "overlay.uapi.amended": "values; test_amendments has them",
    "overlay.uapi.drafts": "test_amendments applies changes through it",
    "overlay.diagnosis.fault": "values; test_setup and tests/overlay/diagnosis/test_services.py run the commands",
    "overlay.diagnosis.facts": "values; test_registry makes them",
    "overlay.diagnosis.finding": "values; test_registry compares them",
    "overlay.diagnosis.settings": "test_setup changes the settings of real hosts",
    "overlay.errors": "a tree of classes, drawn in its docstring; whoever raises one tests its sentence",
    "overlay.encap.encapsulation": "values; test_encap holds what all encapsulations have in common",
    "overlay.encap.ethernet": "test_vxlan and test_geneve, behind the headers of both",
    "overlay.encap.wireguard": "test_encap runs the shared contract over it",
    "overlay.forwarding.batch": "a protocol; Outbound is one, as mypy says",
    "overlay.forwarding.underlay.udp_socket": "test_sender sends from them, and test_discovery pairs them",
    "overlay.forwarding.upcalls": "a protocol; Core is one, as mypy says",
    "overlay.host.sockets.bpf": "test_reuseport and test_neighbours have a real kernel run its programs",
    "overlay.host.netlink.addresses": "test_routing gives them to a real device and takes them back",
    "overlay.host.netlink.codec": "test_routing says all of it to a real kernel",
    "overlay.host.netlink.fib": "test_routing asks a real kernel; tests/overlay/diagnosis/test_routes.py too",
    "overlay.host.netlink.kernel": "test_routing says all of it to a real kernel",
    "overlay.host.netlink.link": "test_routing sets up real devices and sets them back",
    "overlay.host.netlink.path_mtu_exceptions": "tests/netns/test_forged_path_mtu.py has a real kernel be told",
    "overlay.host.netlink.routes": "test_routing looks for them in a real kernel",
    "overlay.host.netlink.rtnetlink": "test_routing says all of it to a real kernel",
    "overlay.host.netlink.rules": "test_routing looks for them in a real kernel",
    "overlay.host.netlink.watch": "test_routing tells changes of others from our own",
    "overlay.host.leftovers": "tests/netns/test_ending.py ends agents and removes what they left",
    "overlay.host.nftables": "test_tunnel_errors has a real kernel carry out all of it",
    "overlay.host.sockets.socket_options": "test_underlay sets them on the sockets that it opens, and reads them",
    "overlay.host.ownership": "numbers; test_routing and test_guards find them in a real kernel",
    "overlay.host.sockets.neighbour_filters": "test_neighbours and test_claims have a real kernel run its programs",
    "overlay.host.sockets.packet_socket": "test_neighbours and test_claims hear and send by it on a real link",
    "overlay.host.plan": "values; test_config makes them and test_routing carries them out",
    "overlay.host.netlink.lan_interfaces": "tests/netns/test_vrrp.py takes interfaces down and gives them addresses",
    "overlay.host.sockets.vrrp_sockets": "tests/netns/test_vrrp.py talks to keepalived, test_vrrp_attacks.py floods them",
    "overlay.lan.lan": "tests/netns/test_vrrp.py has whole groups, with keepalived as the other end",
    "overlay.lan.presence": "tests/netns/test_vrrp.py asks for the addresses on a LAN",
    "overlay.linux": "numbers; tests of the modules that use them ask a real kernel",
    "overlay.balancing.traffic": "test_counting asks for it",
    "overlay.link.service_messages": "values; test_codec sends and reads each of them",
    "overlay.link.messages": "values; test_codec sends and reads each of them",
    "overlay.services.schedulers.buckets": "test_schedulers, as sh and dh",
    "overlay.services.schedulers.dh": "test_schedulers has it choose as the kernel did",
    "overlay.services.schedulers.fo": "test_schedulers has it choose as the kernel did",
    "overlay.services.schedulers.lc": "test_schedulers has it choose as the kernel did",
    "overlay.services.schedulers.nq": "test_schedulers has it choose as the kernel did",
    "overlay.services.schedulers.ovf": "test_schedulers has it choose as the kernel did",
    "overlay.services.schedulers.rr": "test_schedulers has it choose as the kernel did",
    "overlay.services.schedulers.sed": "test_schedulers has it choose as the kernel did",
    "overlay.services.schedulers.sh": "test_schedulers has it choose as the kernel did",
    "overlay.services.schedulers.wlc": "test_schedulers has it choose as the kernel did",
    "overlay.services.schedulers.wrr": "test_schedulers has it choose as the kernel did",
    "overlay.services.schedulers.scheduler": "test_schedulers holds what all schedulers have in common",
    "overlay.cli.services": "test_importing runs the group; its commands have tests of their own",
    "overlay.services.importing.calls": "test_rules writes and refuses calls of every kind",
    "overlay.services.importing.keepalived_addresses": "test_keepalived and its examples write all kinds of addresses",
    "overlay.services.importing.keepalived_checks": "test_keepalived and its examples have all kinds of checkers",
    "overlay.services.importing.keepalived_services": "test_keepalived and its examples have all settings of services",
    "overlay.services.importing.keepalived_vrrp": "test_composing and the example lan.conf have all settings of VRRP",
    "overlay.wireguard.events": "values; test_device has devices report each",
    "overlay.wireguard.peer": "test_device has peers of every state",
    "overlay.wireguard": "tests/netns/test_library.py runs the programs of docs/library.md beside wireguard-go",
    "overlay.wg_quick.naming": "test_conf has comments of each habit",
    "overlay.wg_quick.node": "values; test_importing makes them",
    "overlay.wg_quick.topology": "test_importing joins hosts whose files differ",
    "overlay.wg_quick.unsupported": "test_importing has each setting",
    "overlay.importing.places": "values; all tests of importing compare them",
    "overlay.services.importing.plan": "values; test_composing writes what they plan",
    "overlay.services.importing.settings": "test_keepalived asks for each, and gives it what it refuses",
    "overlay.session.constants": "test_sessions shortens each of them",
    "overlay.session.outputs": "values; test_sessions compares them",
    "overlay.services.checks": "test_checks has what all kinds have in common",
    "overlay.services.checks.dns": "test_checks asks a server of its own",
    "overlay.services.checks.ping": "test_checks asks the kernel",
    "overlay.services.checks.tcp": "test_checks connects to a server of its own",
    "overlay.services.checks.udp": "test_checks asks a server of its own",
    "overlay.services.checks.searching": "test_http has servers whose pages take years to search",
    "overlay.services.checks.tls": "test_http has certificates of all kinds",
    "overlay.services.checks.dialer": "a protocol; the tests of the checks have one that leads to this host",
    "overlay.wire.bounds": "test_codec has each check refuse what is out of its bounds",
    "overlay.wire.ethernet": "numbers; test_frames and test_neighbours read and build with them",
    "overlay.wire.tcp": "numbers; test_mss reads and changes with them",
    "overlay.wire.virtio": "one format; test_segments reads and builds it",
    "peers.encapsulation": "test_tunnel asks for what its names say",
    "peers.key": "test_toml reads keys of every kind",
    "peers.kinds": "a registry; test_kind adds to it, and test_docs holds the docs to its keys",
    "peers.peer_section": "test_toml reads and refuses each of its keys",
    "peers.hint": "test_hints groups hints of every kind",
    "peers.services.checks": "test_reading has every sentence of it",
    "peers.services.keys": "test_reading reads, bounds and refuses each of them",
    "peers.services.names": "test_reading reads names right and wrong",
    "peers.services.sections": "test_reading reads all of them",
    "peers.services.values": "test_reading has every sentence of it",
    "peers.services.vrrp": "test_reading has every sentence of it",
    "peers.toml_section": "test_toml has every sentence of it",
    "peers.stores.etcd.remarks": "test_attendance has hosts that say each of them",
    "peers.stores.etcd.following": "test_attendance has every end of a watch",
    "peers.stores.etcd.holding": "test_attendance has etcd answer, refuse and ignore each call",
    "peers.stores.etcd.in_force": "test_attendance has documents that change, are malformed, and are deleted",
    "peers.stores.etcd.keeping": "test_attendance has hosts start with what is kept",
    "peers.stores.etcd.tenant": "test_leases has what tenancies of two layouts have in common",
    "peers.stores.etcd.network_store": "test_store and test_attendance of both layouts have what it does for each",
    "peers.stores.etcd.participant": "test_attendance has hosts take part in the networks of one layout",
    "peers.stores.etcd.slices": "test_attendance has hosts read many keys with little at a time",
    "peers.stores.etcd.failures": "test_gateway has etcd fail in each way",
    "peers.stores": "tests/peers/stores/test_stores.py holds what all stores have in common",
    "peers.stores.memory": "test_stores runs the shared contract over it",
}

MORE_TESTS = {
    "tests/peers/stores/etcd/test_rotating_keys.py": "of several modules: hosts whose key is replaced, and what is left after an interruption",
    "tests/overlay/forwarding/services/test_sync_astray.py": "of sync.py: flows that another director would lead elsewhere",
    "tests/overlay/forwarding/services/test_vip_icmp.py": "of vip.py: fragments, and ICMP",
    "tests/overlay/forwarding/services/test_vip_servers.py": "of vip.py: health checks, and servers that fail by one IP version",
    "tests/overlay/doors/test_page_in_browser.py": "of overlay/doors/static, which a browser runs",
    "tests/overlay/host/netlink/test_routing_left.py": "of overlay/host/netlink/routing.py: what killed agents leave",
    "tests/overlay/host/netlink/test_routing_watched.py": "of it: changes by others that are noticed",
    "tests/overlay/forwarding/test_link_end.py": "of loop.py: the forwarder's end of the link",
    "tests/overlay/forwarding/test_loop_sockets.py": "of loop.py: sockets that are full, replaced or closed",
    "tests/overlay/agent/test_ending.py": "of overlay/agent.py: starts that are refused, and how it ends",
    "tests/overlay/agent/test_forwarders.py": "of overlay/agent.py and its forwarder",
    "tests/overlay/agent/test_idle.py": "of overlay/agent.py and all that it runs, when nothing happens",
    "tests/overlay/agent/test_network.py": "of overlay/agent.py, and changes of the host's network and clock",
    "tests/overlay/agent/test_peers.py": "of overlay/agent.py, and where peers are",
    "tests/overlay/agent/test_questions.py": "of overlay/agent.py, by its control socket",
    "tests/overlay/agent/test_reloads.py": "of overlay/agent.py, and peers files that change",
    "tests/overlay/provisioning/test_setup_settings.py": "of overlay/provisioning/setup.py, and the settings of the host",
    "tests/overlay/forwarding/bulk/test_units_bounded.py": "of what is never whole, in bounds",
    "tests/overlay/forwarding/bulk/test_units_properties.py": "of units, by any fragments in any weather",
    "tests/overlay/forwarding/bulk/test_units_refused.py": "of claims that do not hold, and forged datagrams",
    "tests/overlay/forwarding/clear/test_raw_receives.py": "of what one receive of raw sockets holds",
    "tests/overlay/forwarding/native/test_pointers.py": "of the C: where pointers are computed",
    "tests/overlay/forwarding/test_compiled_services.py": "of compiled.py: flows of services, whatever server has them",
    "tests/overlay/forwarding/test_core_commands.py": "of what a core is told, and its timers",
    "tests/overlay/forwarding/underlay/test_sender_options.py": "of sends with an option of the socket changed",
    "tests/overlay/forwarding/underlay/test_sender_ways.py": "of ways that take less than is sent",
    "tests/overlay/session/test_sessions_in_trouble.py": "of sessions: losses, crossings, clocks and restarts",
    "tests/overlay/cli/test_wrong_services.py": "of all wrong input about services, in overlay check and up",
    "tests/overlay/services/importing/test_against_keepalived.py": "of the whole import, against keepalived itself",
    "tests/overlay/forwarding/offload/test_segments.py": "of split and join, which undo each other",
    "tests/overlay/forwarding/offload/test_segments_joined.py": "of join, beside what the kernel would do",
    "tests/overlay/cli/test_check_in_etcd.py": "of overlay/cli/check.py, with networks in etcd",
    "tests/overlay/metrics/test_alerts.py": "of docs/alerts.yml and docs/grafana.json, which name metrics",
    "tests/overlay/cli/test_main.py": "of overlay/cli/__init__.py",
    "tests/overlay/forwarding/test_key_lifetime.py": "of keypairs in overlay/forwarding/core.py",
    "tests/overlay/forwarding/test_padding.py": "of what is around a packet in overlay/forwarding/core.py",
    "tests/overlay/forwarding/test_every_path.py": "of every way of a packet into overlay/forwarding/core.py",
    "tests/overlay/forwarding/test_every_way_out.py": "of every way of a packet out of it",
    "tests/overlay/session/test_sessions_properties.py": "of overlay/session/sessions.py, by generated stories",
    "tests/overlay/services/checks/test_checks.py": "of all kinds that are a few lines",
    "tests/peers/services/test_reading_properties.py": "of peers/services/reading.py, by generated files",
    "tests/overlay/cli/network/test_network.py": "of overlay/cli/network/__init__.py",
    "tests/peers/stores/etcd/test_gateway_login.py": "of peers/stores/etcd/gateway.py, with users and roles",
    "tests/peers/stores/etcd/test_gateway_tls.py": "of peers/stores/etcd/gateway.py and failures.py, with certificates",
    "tests/peers/stores/flannel/test_beside_flanneld.py": "of agents beside a second implementation of flanneld's rules",
    "tests/peers/stores/test_stores.py": "of peers/stores/__init__.py",
}


@dataclass(frozen=True)
class Imports:
    """What a module imports, by dotted name, when it runs and for type checking alone."""

    loaded: frozenset[str]
    typed: frozenset[str]


@cache
def modules():
    """Return all source modules by dotted name, each with its path."""
    paths = [path for package in ("overlay", "peers") for path in sorted((ROOT / package).rglob("*.py"))]
    return {dotted(path): path for path in paths}


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(module):
    """Return the syntax of *module*."""
    return ast.parse(modules()[module].read_text())


@pytest.fixture(scope="module", autouse=True)
def _trees_are_forgotten():
    """All of them are most of a million objects: they are excluded from garbage collection, and from other tests."""
    with without_collector():
        yield
    tree_of.cache_clear()


@contextlib.contextmanager
def without_collector():
    """Look for no garbage: a tree has no cycles."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def statements(node):
    """Yield each statement in *node*, and the parts of those that have parts; expressions are nine of ten nodes."""
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        for inner in getattr(node, block, ()):
            yield inner
            yield from statements(inner)


@cache
def imports(module):
    everything = list(statements(tree_of(module)))
    typed_nodes = {
        id(inner)
        for node in everything
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in statements(ast.Module(node.body))
    }
    loaded, typed = set(), set()
    for node in everything:
        found = typed if id(node) in typed_nodes else loaded
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in modules() else node.module)
    return Imports(frozenset(loaded), frozenset(typed))


def room(module):
    return max((name for name in ROOMS if is_in(module, name)), key=len)


def is_in(module, package):
    return module == package or module.startswith(f"{package}.")


def is_ours(module):
    return is_in(module, "overlay") or is_in(module, "peers")


def test_every_module_has_a_room():
    assert all(room(module) for module in modules())


def test_imports_run_one_way():
    """cli, agent, host and session machines, crypto, wire: lower layers never import upper ones."""
    assert not {module: found for module in modules() if (found := strangers(module))}


def strangers(module):
    """Return what *module* imports from packages that its own may not import."""
    known, imported = ROOMS[room(module)], imports(module)
    return {
        other
        for other in imported.loaded | imported.typed
        if is_ours(other) and room(other) != room(module) and room(other) not in known and other not in known
    }


def test_no_module_takes_part_in_a_circle():
    """Imports for type checking count: code that needs another's type cannot be read without it."""
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path, module])
        if module in done:
            return
        path.append(module)
        found = imports(module)
        for other in sorted((found.loaded | found.typed) & modules().keys()):
            visit(other)
        done.add(path.pop())

    for module in modules():
        visit(module)


@pytest.mark.parametrize("rule", CORE, ids=lambda rule: rule.modules[0])
def test_core_imports_only_what_computes(rule):
    for module in modules():
        is_meant = any(is_in(module, package) for package in rule.modules)
        if is_meant and not any(is_in(module, other) for other in rule.but):
            edge = {
                name
                for name in imports(module).loaded
                if not is_ours(name) and name not in COMPUTE and name.partition(".")[0] not in rule.libraries
            }
            assert not edge, f"{module} imports {edge}, but {rule.reason}"


def test_packet_path_uses_numbers_of_the_socket_module_and_calls_nothing_of_it():
    """Its sockets are passed in, so that a test can pass others."""
    called = {
        (module, node.attr)
        for module in modules()
        if is_in(module, "overlay.forwarding") and module.rpartition(".")[2] not in {"loop", "__main__"}
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "socket"
        and not node.attr.isupper()
    }

    assert not called


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_stays_in_its_rooms(library):
    rooms, reason = ONLY_IN[library]

    users = {
        module
        for module in modules()
        if any(is_in(name, library) for name in imports(module).loaded)
        and not any(is_in(module, where) for where in rooms)
    }

    assert not users, reason


SECTION = re.compile(r"# (Specification|Ours)\b")


def specified(module):
    """Yield the name and value of each constant of *module* that a document or a header defines, not this project."""
    text = modules()[module].read_text()
    sections = [match and match[1] for match in map(SECTION.match, text.splitlines())]
    for node in tree_of(module).body:
        above = [section for section in sections[: getattr(node, "lineno", 0) - 1] if section]
        if not isinstance(node, ast.Assign) or above[-1:] == ["Ours"]:
            continue
        names, values = node.targets, [node.value]
        if isinstance(names[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
            names, values = names[0].elts, node.value.elts
        for name, value in zip(names, values, strict=True):
            is_literal = isinstance(value, ast.Constant | ast.Tuple)
            if (
                isinstance(name, ast.Name)
                and name.id.isupper()
                and (is_literal or "Struct(" in ast.unparse(value))
            ):
                yield name.id.strip("_"), ast.unparse(value)


def test_what_a_document_defines_stands_in_one_module():
    """Numbers of the kernel are in overlay/linux.py, or in the only module that needs them; a protocol's
    are in wire.
    """
    places = defaultdict(set)
    for module in modules():
        if is_in(module, "overlay") and not is_in(module, "overlay.cni"):
            for constant in specified(module):
                places[constant].add(module)

    assert not {constant: found for constant, found in places.items() if len(found) > 1}


@pytest.mark.parametrize("package", ["overlay.crypto", "overlay.wire", "overlay.session"])
def test_core_reads_no_clock_and_draws_no_randomness(package):
    """Not even through a name that some allowed module re-exports."""
    for module, path in modules().items():
        if is_in(module, package):
            names = {
                node.attr if isinstance(node, ast.Attribute) else node.id
                for node in ast.walk(tree_of(module))
                if isinstance(node, ast.Attribute | ast.Name)
            }
            forbidden = {"urandom", "time_ns", "monotonic", "clock_gettime", "getrandbits", "token_bytes"}
            assert not names & forbidden, module
            assert "X25519PrivateKey.generate" not in path.read_text()


@pytest.mark.parametrize("module", NOT_LOADED)
def test_process_loads_only_what_it_needs(module):
    unwanted, reason = NOT_LOADED[module]
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert not unwanted & set(done.stdout.split()), reason


# Tests mirror the tree


def mirror(module):
    """Return where the tests of *module* are expected."""
    *packages, name = module.split(".")
    return ROOT.joinpath("tests", *packages, f"test_{name.strip('_')}.py")


def test_module_has_its_test_file():
    tested = {module for module in modules() if mirror(module).exists()}
    described_only = {
        module for module in modules() if len(tree_of(module).body) <= 1
    }  # a package's docstring
    missing = modules().keys() - tested - described_only - TESTED_ELSEWHERE.keys()

    assert not [f"write {mirror(module).relative_to(ROOT)}" for module in sorted(missing)]
    assert not tested & TESTED_ELSEWHERE.keys(), "they have test files: take them out of TESTED_ELSEWHERE"


def test_test_file_has_its_module():
    expected = {mirror(module) for module in modules()}
    for package in ("overlay", "peers"):
        for path in sorted((ROOT / "tests" / package).rglob("test_*.py")):
            name = str(path.relative_to(ROOT))
            assert (path in expected) != (name in MORE_TESTS), name


def test_exceptions_name_modules_and_files_that_exist():
    assert modules().keys() >= TESTED_ELSEWHERE.keys()
    assert all((ROOT / name).exists() for name in MORE_TESTS)
    assert set(ROOMS) <= modules().keys()
