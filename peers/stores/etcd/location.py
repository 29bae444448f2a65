"""Where an etcd is, and how to log in there: what a URL says, and the files that it names.

    etcd://HOST[:PORT][,HOST[:PORT]...]/PATH[?ca=FILE&cert=FILE&key=FILE&user=NAME&password-file=FILE&admin-key=...]

``etcds`` in place of ``etcd`` is TLS.  Secrets are kept in files: a URL can be seen by anyone who can list processes.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl, quote, unquote

from peers.addresses import parse_address
from peers.errors import StoreError
from peers.files import UnfitFileError, read_regular
from peers.peer import KEY_TEXT_SIZE, Endpoint

if TYPE_CHECKING:
    from collections.abc import Collection

# Specification
PORT = 2379  # IANA: etcd-client

# Ours
MOST_ENDPOINTS = 16
SECRET_SIZE = 4096  # bytes of a file with a password
FILES = ("ca", "cert", "key", "password-file")
PARAMETERS = (*FILES, "user")


@dataclass(frozen=True, slots=True)
class EtcdLocation:
    """An etcd and a *path* in it, without slashes around; *more* are parameters of the store that asked for
    them, each a key or the path of a file.

    Prints as the URL that it was read from, which has no secrets.
    """

    scheme: str
    endpoints: tuple[Endpoint, ...]
    path: str
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str | None = None
    password_file: Path | None = None
    more: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(
        cls, scheme: str, place: str, more: Collection[str] = (), example: str = "etcd://10.0.0.5:2379/office"
    ) -> Self:
        """Read what follows *scheme* and its colon; *more* are further parameters that are accepted.

        Raises StoreError, whose sentence names the URL and what to write, but no password put there by mistake.
        """
        text = f"{scheme}:{place}"
        if not place.startswith("//"):
            raise StoreError(f"{scheme}: needs a URL; write {example}")
        authority, _, rest = place[2:].partition("/")
        if "@" in authority:
            raise StoreError(
                f"a URL of {scheme}: has no place for a login, because everybody can read it in the list of processes; "
                "write ?user=NAME&password-file=FILE at its end"
            )
        path, mark, query = rest.partition("?")
        path = unquote(path).strip("/")
        if "?" in authority:
            raise StoreError(f"{text} names no network; write {example}")
        values = _read_parameters(query, text, (*PARAMETERS, *more)) if mark else {}
        paths = {name: Path(values[name]) for name in FILES if name in values}
        found = cls(
            scheme,
            _read_endpoints(authority, text, example),
            path,
            paths.get("ca"),
            paths.get("cert"),
            paths.get("key"),
            values.get("user"),
            paths.get("password-file"),
            tuple((name, value) for name, value in values.items() if name in more),
        )
        found._check(text)
        return found

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme.endswith("etcds")

    @property
    def place(self) -> str:
        """What follows the scheme and its colon."""
        named = [(name, path) for name, path in zip(FILES, self._paths(), strict=True) if path is not None]
        values = [(name, str(path)) for name, path in named]
        values += [("user", self.user)] if self.user is not None else []
        query = "&".join(f"{name}={quote(value, safe='/:+=,')}" for name, value in (*values, *self.more))
        hosts = ",".join(map(str, self.endpoints))
        return f"//{hosts}/{quote(self.path)}{'?' if query else ''}{query}"

    def files(self) -> tuple[Path, ...]:
        """Return the files that it names: who can write them decides which etcd is trusted."""
        return tuple(path for path in self._paths() if path is not None)

    def secrets(self) -> tuple[Path, ...]:
        """Return those of the files that no other user may read."""
        return tuple(path for path in (self.key, self.password_file) if path is not None)

    def absolute(self) -> Self:
        """Return the location for a reader in another directory."""
        ca, cert, key, password_file = (path and path.absolute() for path in self._paths())
        more = tuple(
            (name, value if is_key(value) else str(Path(value).absolute())) for name, value in self.more
        )
        return replace(self, ca=ca, cert=cert, key=key, password_file=password_file, more=more)

    def context(self) -> ssl.SSLContext | None:
        """Return how TLS is spoken there; None without TLS.  Reads files.  Raises StoreError."""
        if not self.is_tls:
            return None
        context = ssl.create_default_context()
        if self.ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            try:
                context.load_verify_locations(cadata=_read_text(self.ca, "ca", 1024 * 1024))
            except (ssl.SSLError, ValueError):
                raise StoreError(
                    f"{self.ca} has no certificates; name the PEM file of the authority as ca"
                ) from None
        if self.cert is not None:
            _ = _read_text(self.cert, "cert", 1024 * 1024)
            if self.key is not None:
                _ = _read_text(self.key, "key", 1024 * 1024)
            try:
                context.load_cert_chain(self.cert, self.key, password=lambda: b"")
            except (ssl.SSLError, OSError):
                pair = f"{self.cert} and {self.key}" if self.key is not None else f"{self.cert}"
                raise StoreError(
                    f"{pair} are not a certificate and its unencrypted private key; name the PEM files of this host's"
                    " as cert and key"
                ) from None
        return context

    def password(self) -> str | None:
        """Return the password of the user; None without one.  Reads its file.  Raises StoreError."""
        if self.password_file is None:
            return None
        text = _read_text(self.password_file, "password-file", SECRET_SIZE).rstrip("\r\n")
        if not text or "\n" in text:
            raise StoreError(f"{self.password_file} has not one line with a password; write it there alone")
        return text

    def __str__(self) -> str:
        return f"{self.scheme}:{self.place}"

    def _paths(self) -> tuple[Path | None, Path | None, Path | None, Path | None]:
        return self.ca, self.cert, self.key, self.password_file

    def _check(self, text: str) -> None:
        if not self.is_tls and (self.ca or self.cert or self.key):
            secure = text.replace("etcd:", "etcds:", 1)
            raise StoreError(f"{text} names certificates, which are for TLS; write {secure}")
        if self.key is not None and self.cert is None:
            raise StoreError(f"{text} names a key without its certificate; write cert=FILE too")
        if (self.user is None) != (self.password_file is None):
            missing = "user=NAME" if self.user is None else "password-file=FILE"
            raise StoreError(f"{text} logs in by half; write {missing} too")


def is_key(value: str) -> bool:
    """Return whether a parameter is a public key itself, and not a file that has one."""
    return len(value) == KEY_TEXT_SIZE and value.endswith("=")


def _read_endpoints(authority: str, text: str, example: str) -> tuple[Endpoint, ...]:
    endpoints = []
    for each in authority.split(","):
        if not each:
            raise StoreError(f"{text} names no host; write {example}")
        try:
            bare = each[1:-1] if each.startswith("[") and each.endswith("]") else each
            if each.count(":") > 1 and not each.startswith("["):
                parse_address(each)
                raise StoreError(f"{text}: write the IPv6 address as [{each}]:{PORT}")
            endpoints.append(Endpoint.parse(bare if bare != each else each, PORT))
        except ValueError as error:
            raise StoreError(f"{text}: {each!r} {error}") from None
    if len(endpoints) > MOST_ENDPOINTS:
        raise StoreError(f"{text} names more than {MOST_ENDPOINTS} hosts; name those of one cluster")
    return tuple(dict.fromkeys(endpoints))


def _read_parameters(query: str, text: str, accepted: Collection[str]) -> dict[str, str]:
    if "password=" in f"&{query}".replace("&password=", "password="):
        raise StoreError(
            "a URL has no place for a password, because everybody can read it in the list of processes; "
            "write password-file=FILE"
        )
    try:
        # A plus sign is one: base64 has them, and no file name needs it for a blank.
        pairs = parse_qsl(
            query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=True, max_num_fields=20
        )
    except ValueError:
        raise StoreError(f"{text}: what follows the ? is not NAME=VALUE&NAME=VALUE") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in accepted:
            raise StoreError(
                f"{text}: {name} is not known; accepted are {', '.join(accepted[:-1])} and {accepted[-1]}"
                if isinstance(accepted, tuple)
                else f"{text}: {name} is not known"
            )
        if name in values:
            raise StoreError(f"{text}: {name} is here twice; write it once")
        if not value or not value.isprintable():
            raise StoreError(f"{text}: {name} has no value; write {name}=VALUE, or remove it")
        values[name] = value
    return values


def _read_text(path: Path, what: str, most: int) -> str:
    try:
        return read_regular(path, most)[0].decode("utf-8")
    except UnfitFileError as error:
        raise StoreError(f"{path} {error}; name the file with the {what}") from None
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist; name the file as {what}") from None
    except IsADirectoryError:
        raise StoreError(f"{path} is a directory; name the file in it as {what}") from None
    except PermissionError:
        raise StoreError(f"{path} cannot be read: permission denied; change its mode or owner") from None
    except UnicodeDecodeError:
        raise StoreError(f"{path} is not text; name the file as {what}, in the form of PEM") from None
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise StoreError(f"{path} cannot be read ({reason}); name a readable file as {what}") from None
