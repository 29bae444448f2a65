"""TLS contexts: one for all checks that use the same files in the same way."""

from __future__ import annotations

import functools
import os
import ssl
from typing import TYPE_CHECKING, TypeAlias

import trio

if TYPE_CHECKING:
    from pathlib import Path

    from peers.service import Check

Stamp: TypeAlias = "tuple[int, int, int] | None"
"""Shows whether a file has changed; None if there is no file."""


async def context_of(check: Check) -> ssl.SSLContext:
    """Return the context for *check*.  Raises OSError, which includes ssl.SSLError, for files that cannot be used."""
    files = check.ca_file, check.certificate_file, check.key_file
    if not check.verify and not any(files):
        return _context(False, files, ())
    return await trio.to_thread.run_sync(_context_of, check.verify, files)


def _context_of(verify: bool, files: tuple[Path | None, ...]) -> ssl.SSLContext:
    return _context(verify, files, tuple(_stamp(path) for path in files))


def _stamp(path: Path | None) -> Stamp:
    if path is None:
        return None
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size


@functools.lru_cache(maxsize=256)
def _context(verify: bool, files: tuple[Path | None, ...], _stamps: tuple[Stamp, ...]) -> ssl.SSLContext:
    ca_file, certificate_file, key_file = files
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif ca_file is not None:
        context.load_verify_locations(ca_file)
    else:
        context.load_default_certs()
    if certificate_file is not None:
        context.load_cert_chain(certificate_file, key_file, password="")
    return context
