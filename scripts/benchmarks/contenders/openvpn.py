"""OpenVPN between two static peers: a tun, UDP, AES-256-GCM, keys by TLS, without the kernel's data channel."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scripts.benchmarks.contenders.contender import (
    INTERFACE,
    OVERHEAD,
    Contender,
    Program,
    lead,
    write_secret,
)

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.benchmarks.nodes import Pair, Underlay

PROGRAM = Program("openvpn", "openvpn")
LIFETIME = datetime.timedelta(days=1)


def contenders() -> list[Contender]:
    """Return it."""
    return [Contender("openvpn", start, PROGRAM)]


def start(pair: Pair, folder: Path, underlay: Underlay) -> None:
    """Start both ends, which know each other's certificate by its fingerprint."""
    fingerprints = {node.number: certify(folder / f"{node.number}") for node in pair.nodes}
    mtu = underlay.mtu - OVERHEAD
    for node, other, role in (
        (pair.a, pair.b, ("--tls-server", "--dh", "none")),
        (pair.b, pair.a, ("--tls-client",)),
    ):
        node.start(
            *(PROGRAM.command, "--dev", INTERFACE, "--dev-type", "tun", "--disable-dco", *role),
            *("--proto", "udp4", "--local", node.underlay_address, "--remote", other.underlay_address),
            *("--cert", folder / f"{node.number}.crt", "--key", folder / f"{node.number}.key"),
            *("--peer-fingerprint", fingerprints[other.number], "--data-ciphers", "AES-256-GCM"),
            *("--tun-mtu", str(mtu), "--mssfix", "0"),
            log=folder / f"{node.number}.log",
        )
    for node in pair.nodes:
        lead(node, INTERFACE, mtu)


def certify(stem: Path) -> str:
    """Write a new private key and a self-signed certificate to *stem*.key and .crt; return the fingerprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"bench {stem.name}")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - LIFETIME)
        .not_valid_after(now + LIFETIME)
        .sign(key, hashes.SHA256())
    )
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_secret(stem.with_suffix(".key"), text.decode())
    stem.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return certificate.fingerprint(hashes.SHA256()).hex(":")
