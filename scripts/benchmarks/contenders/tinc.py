"""tinc 1.0 as a router, with its default cipher and digest: AES-256-CBC and SHA-256."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from scripts.benchmarks.contenders.contender import (
    INTERFACE,
    OVERHEAD,
    Contender,
    Program,
    lead,
    wait_for_port,
    write_secret,
)

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.benchmarks.nodes import Node, Pair, Underlay

PROGRAM = Program("tincd", "tinc")
MTU_LIMIT = 1500  # Debian's tinc is built without jumbo frames
RSA_BITS = 2048  # as tincd --generate-keys does
# The MTU of the interface already fits the underlay.  While tinc searches for it, packets would travel by TCP.
HOST = """\
Address = {address}
Subnet = {subnet}
PMTUDiscovery = no
{public_key}"""
CONFIGURATION = """\
Name = {name}
Mode = router
Interface = {interface}
AddressFamily = ipv4
BindToAddress = {address}
"""


def contenders() -> list[Contender]:
    """Return it."""
    return [Contender("tinc", start, PROGRAM)]


def start(pair: Pair, folder: Path, underlay: Underlay) -> None:
    """Start both ends; the second calls the first."""
    for node in pair.nodes:
        make_keys(node, folder)
    for node, other in ((pair.a, None), (pair.b, pair.a)):
        own = folder / called(node)
        text = CONFIGURATION.format(name=called(node), interface=INTERFACE, address=node.underlay_address)
        (own / "tinc.conf").write_text(text + (f"ConnectTo = {called(other)}\n" if other else ""))
        (own / "hosts").symlink_to(folder / "hosts")
        node.start(
            *(PROGRAM.command, "--no-detach", f"--config={own}", f"--pidfile={own}/pid"), log=own / "log"
        )
        lead(node, INTERFACE, min(underlay.mtu - OVERHEAD, MTU_LIMIT))
        wait_for_port(node, 655, "tcp")


def called(node: Node) -> str:
    """Return the name of *node* for tinc, which does not allow hyphens."""
    return f"n{node.number}"


def make_keys(node: Node, folder: Path) -> None:
    """Write the private key of *node*, and the file about it for the other end."""
    key = rsa.generate_private_key(65537, RSA_BITS)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
    (folder / called(node)).mkdir()
    (folder / "hosts").mkdir(exist_ok=True)
    write_secret(folder / called(node) / "rsa_key.priv", private.decode())
    text = HOST.format(address=node.underlay_address, subnet=node.subnet, public_key=public.decode())
    (folder / "hosts" / called(node)).write_text(text)
