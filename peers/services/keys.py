"""The keys of ``[services.NAME]``, its servers, ``[checks.NAME]`` and ``[vrrp.NAME]``: one row for each.

A key is a row here and a field in peers.service; what is refused, suggested for a misspelt key and demanded of the
documentation follows from the row.
"""

from __future__ import annotations

from peers.key import Key, choice, integer
from peers.service import (
    ALIASES,
    DIRECT,
    DIRECTOR,
    DOWN,
    KEEP,
    MOST_WEIGHT,
    PROTOCOLS,
    REMOVE,
    SCHEDULERS,
    UP,
)
from peers.services.values import (
    addresses,
    command,
    digest,
    hexadecimal,
    interface_name,
    names,
    path_of_url,
    persistence_prefix,
    ports,
    protocols,
    regex,
    scheduler,
    seconds,
    server_address,
    service_name,
    status,
    text,
    unicast,
)
from peers.toml_section import Section

# Ours
MOST_SECONDS = 31 * 86400  # as ipvsadm has it for persistence
MOST_FLOWS = 4_000_000
MOST_SUM = 2**31 - 1  # of weights

_PORT = integer(1, 65535, "a port")
_FLOWS = integer(0, MOST_FLOWS, "a number of flows")

SERVICE = (
    Key("address", addresses, "addresses"),
    Key("ports", ports),
    Key("protocol", protocols(tuple(PROTOCOLS)), "protocols"),
    Key("directors", None),
    Key("scheduler", scheduler(SCHEDULERS, ALIASES)),
    Key("persistence", integer(0, MOST_SECONDS, "seconds")),
    Key("persistence_prefix", persistence_prefix(4, 32)),
    Key("persistence_prefix_v6", persistence_prefix(6, 128)),
    Key("servers", None),
    Key("check", None),
    Key("sorry", None),
    Key("quorum", integer(1, MOST_SUM, "a sum of weights")),
    Key("hysteresis", integer(0, MOST_SUM, "a sum of weights")),
    Key("on_failure", choice(REMOVE, KEEP)),
    Key("reply", choice(DIRECT, DIRECTOR)),
    Key("one_packet", Section.boolean),
    Key("slow_start", seconds(0, 86400)),
    Key("idle_tcp", seconds(1, MOST_SECONDS)),
    Key("idle_fin", seconds(1, MOST_SECONDS)),
    Key("idle_udp", seconds(1, MOST_SECONDS)),
    Key("new_flows_per_second", integer(1, 10_000_000, "a number of flows")),
    Key("most_flows", integer(1, MOST_FLOWS, "a number of flows")),
    Key("recent_flows", _FLOWS),
    Key("up_command", command),
    Key("down_command", command),
    Key("quorum_up_command", command),
    Key("quorum_down_command", command),
    Key("vrrp", None),
)
"""The keys of each [services.NAME]."""

SERVER = (
    Key("peer", None),
    Key("name", None),
    Key("address", server_address),
    Key("port", _PORT),
    Key("weight", integer(0, MOST_WEIGHT, "a weight")),
    Key("upper_threshold", _FLOWS, "upper"),
    Key("lower_threshold", _FLOWS, "lower"),
    Key("check", None),
)
"""The keys of each entry of servers, and of sorry."""

CHECK = (
    Key("kind", None),
    Key("port", _PORT),
    Key("every", seconds(0.1, 86400)),
    Key("timeout", seconds(0.1, 3600)),
    Key("retries", integer(0, 1000, "a number of tries")),
    Key("fall", None),
    Key("retry_delay", seconds(0, 86400)),
    Key("warmup", seconds(0, 86400)),
    Key("rise", integer(1, 1000, "a number of successes")),
    Key("start", choice(UP, DOWN)),
)
"""The keys of checks of every kind."""

_HTTP = (
    Key("path", path_of_url),
    Key("status", status),
    Key("regex", regex),
    Key("digest", digest),
    Key("host", text("the name of a host", 253)),
)
KINDS: dict[str, tuple[Key, ...]] = {
    "tcp": (),
    "http": _HTTP,
    "https": (
        *_HTTP,
        Key("sni", text("the name of a host", 253)),
        Key("verify", Section.boolean),
        Key("ca_file", None),
        Key("certificate_file", None),
        Key("key_file", None),
    ),
    "udp": (
        Key("send", text("what is sent", 1400, encoding="utf-8")),
        Key("send_hex", hexadecimal, "send"),
        Key("expect", text("how the answer begins", 1400, encoding="utf-8", least=0)),
        Key("expect_hex", hexadecimal, "expect"),
    ),
    "dns": (
        Key("query", text("a DNS name", 253)),
        Key(
            "query_type",
            choice("A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"),
        ),
    ),
    "ping": (),
    "script": (Key("command", command), Key("weight_from_exit", Section.boolean)),
}
"""The kinds of checks, and what keys each has in addition to those of all."""

EVERY_CHECK = tuple({key.name: key for keys in (CHECK, *KINDS.values()) for key in keys}.values())
"""The keys that checks of some kind have."""

FILES = ("ca_file", "certificate_file", "key_file")
"""Keys whose value is the path of a file, relative to the directory of the peers file."""

VRRP = (
    Key("router", integer(1, 255, "a virtual router identifier")),
    Key("interface", None),
    Key("version", integer(2, 3, "a version")),
    Key("priority", None),
    Key("interval", seconds(0.01, 255)),
    Key("preempt", Section.boolean),
    Key("preempt_delay", seconds(0, 1000)),
    Key("unicast", unicast),
    Key("password", text("up to 8 characters", 8)),
    Key("track_interfaces", names("the name of an interface", interface_name)),
    Key("track_overlay", Section.boolean),
    Key("track_services", names("the name of a service", service_name)),
    Key("track_weight", integer(0, 253, "a part of the priority")),
)
"""The keys of each [vrrp.NAME] and of [services.NAME.vrrp]."""
