"""An agent's answers about services, as the commands read them."""

SERVER = {
    "name": "web1",
    "peer": "web1",
    "address": None,
    "port": None,
    "weight": 2,
    "effective_weight": 2,
    "state": "up",
    "reason": "answers 200",
    "since_s": 75.2,
    "set_by_hand": False,
    "active_flows": 12,
    "inactive_flows": 3,
    "packets": 1234,
    "bytes": 56_789,
    "connections": 99,
    "connections_per_s": 0.4,
    "packets_per_s": 20.6,
    "bytes_per_s": 2048.0,
    "takes": "new",
    "takes_by": {},
    "upper": 0,
    "lower": 0,
    "real_addresses": ["10.244.2.0", "fd00:244:2::"],
    "tunnel": "wireguard",
    "differs_at": [],
}
UNKNOWN = {
    key: None
    for key in SERVER
    if key.endswith(("_per_s", "_flows")) or key in {"packets", "bytes", "connections"}
}
SERVICE = {
    "name": "web",
    "addresses": ["203.0.113.80"],
    "ports": ["80", "443"],
    "protocols": ["tcp"],
    "scheduler": "wlc",
    "persistence": 0,
    "persistence_prefix": {"ipv4": 32, "ipv6": 128},
    "one_packet": False,
    "state": "up",
    "reason": "",
    "director": {
        "directors": ["lb1", "lb2"],
        "active": "lb1",
        "is_here": True,
        "reason": "it is the first of its directors",
    },
    "vrrp": [],
    "not_heard": [],
    "quorum": {
        "has_quorum": True,
        "live_weight": 3,
        "quorum": 1,
        "hysteresis": 0,
        "gained_at": 1,
        "lost_below": 1,
    },
    "active_flows": 12,
    "inactive_flows": 3,
    "connections": 120,
    "packets": 1334,
    "bytes": 66_789,
    "connections_per_s": 0.4,
    "packets_per_s": 20.6,
    "bytes_per_s": 2048.0,
    "drops": {},
    "servers": [SERVER],
}
ANSWER = {
    "ok": True,
    "services": [SERVICE],
    "notes": [],
    "rates_over_s": 2.34,
    "drops": {},
    "is_complete": True,
}


def flow(**fields):
    return {
        "service": "web",
        "protocol": "tcp",
        "client": "192.0.2.7",
        "client_port": 40000,
        "address": "203.0.113.80",
        "port": 80,
        "state": "ESTABLISHED",
        "server": "web1",
        "idle_s": 1.0,
        "left_s": 899.0,
    } | fields
