"""What a program that speaks WireGuard's interface may send, applied to a table."""

from __future__ import annotations

import contextlib

from overlay.uapi.amended import NOTHING
from overlay.uapi.amendments import apply, merge
from overlay.uapi.errors import RefusedError
from overlay.uapi.language import parse_set
from peers.errors import KeyProblem
from tests.overlay.uapi.test_amendments import LIMA, OWN, PARIS, TOKYO, file

FILED = file()


def requests(data):
    """Apply one request, and check that the result holds when the same file is read again."""
    try:
        merged = merge(FILED, NOTHING)
        change = parse_set(data.decode(errors="replace").split("\n"))
        with contextlib.suppress(KeyProblem):
            merged = merge(FILED, apply(FILED, merged, change))
    except RefusedError:
        return
    again = merge(FILED, merged.amendments)
    assert again.table.peers == merged.table.peers
    assert again.peers == merged.peers


def seeds():
    paris, tokyo, lima = (key.hex() for key in (PARIS, TOKYO, LIMA))
    yield b"listen_port=51820\nfwmark=1"
    yield f"private_key={OWN.to_hex()}\nreplace_peers=true\npublic_key={lima}\nallowed_ip=10.9.0.0/16".encode()
    yield f"private_key={'00' * 32}\npublic_key={paris}\nremove=true".encode()
    yield (
        f"public_key={paris}\nupdate_only=true\nreplace_allowed_ips=true\nallowed_ip=10.244.2.0/24\nallowed_ip=-10.244.2.0/24\n"
        f"endpoint=[2001:db8::1]:51820\npublic_key={tokyo}\npreshared_key={lima}\npersistent_keepalive_interval=25\n"
        "protocol_version=1"
    ).encode()
