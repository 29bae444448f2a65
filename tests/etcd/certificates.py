"""A certificate authority, and certificates signed by it, for an etcd and its clients."""

from __future__ import annotations

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.UTC)


class Authority:
    """Signs certificates; everything is written into *directory*."""

    def __init__(self, directory, name="authority"):
        self.directory, self.name = directory, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(name, self._key, x509.BasicConstraints(ca=True, path_length=None), [])
        self.path = self._write(f"{name}.pem", self._certificate)

    def issue(self, name, *, is_server=False, is_client=False, address="127.0.0.1"):
        """Return the paths of a certificate and of its key."""
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] * is_server + [ExtendedKeyUsageOID.CLIENT_AUTH] * is_client
        key = ec.generate_private_key(ec.SECP256R1())
        more = [
            x509.ExtendedKeyUsage(usages),
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]),
        ]
        certificate = self._sign(name, key, x509.BasicConstraints(ca=False, path_length=None), more)
        private = self.directory / f"{name}.key"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        private.chmod(0o600)
        return self._write(f"{name}.pem", certificate), private

    def _sign(self, name, key, constraints, more):
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - datetime.timedelta(days=1))
            .not_valid_after(NOW + datetime.timedelta(days=1))
            .add_extension(constraints, critical=True)
        )
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, name, certificate):
        path = self.directory / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path
