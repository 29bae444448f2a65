"""Where a host listens for who wants to know how it is: an address and a port, or a unix socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from peers.addresses import parse_address

if TYPE_CHECKING:
    from peers.addresses import Address

# Specification: unix(7)
UNIX_PATH_SIZE = 107  # bytes

# Ours
EXAMPLE = "127.0.0.1:9586 or /run/overlay/metrics.sock"


@dataclass(frozen=True, slots=True)
class TcpPlace:
    """A TCP port at one address of the host, or at every one (0.0.0.0, ::)."""

    address: Address
    port: int

    def __str__(self) -> str:
        host = str(self.address)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this host reaches it."""
        return self.address.is_loopback


@dataclass(frozen=True, slots=True)
class UnixPlace:
    """A unix socket by its path."""

    path: str

    def __str__(self) -> str:
        return self.path

    @property
    def is_local(self) -> bool:
        """Whether only this host reaches it."""
        return True


Listening: TypeAlias = TcpPlace | UnixPlace


def parse_place(text: str, example: str = EXAMPLE) -> Listening:
    """Read ADDRESS:PORT, [IPV6]:PORT or an absolute path.

    Raises ValueError; its message continues after *text*, and may have *example* of what to write.
    """
    if text.startswith("/"):
        if not text.isprintable() or len(text.encode(errors="surrogateescape")) > UNIX_PATH_SIZE:
            raise ValueError(f"is not the path of a socket; write one of at most {UNIX_PATH_SIZE} bytes")
        return UnixPlace(text)
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not host.startswith("[")):
        raise ValueError(f"is not an address with a port; write {example}")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError("has no valid port; write one from 1 to 65535 after the colon")
    if host == "localhost":
        raise ValueError(f"has a name for an address; write 127.0.0.1:{port}")
    if host in {"", "*"}:
        raise ValueError(f"has no address; write 127.0.0.1:{port}, or 0.0.0.0:{port} for every address")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = parse_address(bare)
    except ValueError:
        raise ValueError(f"has no valid address; write {example}") from None
    if address.is_multicast or (":" in bare) != (bare is not host):
        raise ValueError(f"has no valid address; write {example}")
    return TcpPlace(address, int(port))
