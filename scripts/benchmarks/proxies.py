"""Proxies that balance TCP connections by accepting them, HAProxy and nginx; and the client and server for them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.benchmarks.console import progress
from scripts.benchmarks.contenders import Program
from tests.netns.topology import CommandError, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.netns.topology import Namespace

WRK = Program("wrk", "wrk")
NGINX = Program("nginx", "nginx-light", "-v")
HAPROXY = Program("haproxy", "haproxy", "-v")
# In Debian's nginx, TCP proxying is a separate module.
NGINX_STREAM = Program("nginx", "libnginx-mod-stream", "-v")

MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"

# One worker: the balancer in front of it is measured, and gets the rest of the processors.
PAGES = """
daemon off;
worker_processes 1;
pid {folder}/pages.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/pages;
    server {{
        listen 80 backlog=4096;
        keepalive_requests 1000000000;
        root {folder}/www;
        location = / {{ return 200 "ok"; }}
    }}
}}
"""
STREAM = """
load_module {module};
daemon off;
worker_processes auto;
pid {folder}/stream.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
stream {{
    server {{
        listen {listen}:{port} backlog=4096;
        proxy_pass {server}:80;
    }}
}}
"""
TCP_MODE = """
global
    maxconn 4096
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend client
    bind {listen}:{port} backlog 4096
    default_backend servers
backend servers
    server one {server}:80
"""


@dataclass(frozen=True)
class Proxy:
    """A program that accepts connections at *port*, and makes one to the server for each."""

    name: str
    program: Program
    port: int
    configuration: str
    command: tuple[str, ...]  # before the path of the configuration
    parts: tuple[str, ...] = ()  # files that are needed besides the program

    def is_installed(self) -> bool:
        """Return whether the program and its files are installed."""
        return self.program.is_installed() and all(map(os.path.exists, self.parts))

    def start(self, host: Namespace, folder: Path, listen: str, server: str) -> None:
        """Start it on *host*, and wait until it listens."""
        path = folder / f"{self.program.command}-{self.port}.conf"
        path.write_text(
            self.configuration.format(
                folder=folder, listen=listen, server=server, port=self.port, module=MODULE
            )
        )
        _start(host, folder, path, *self.command, port=self.port)


PROXIES = (
    Proxy("haproxy, mode tcp", HAPROXY, 8001, TCP_MODE, ("haproxy", "-db", "-f")),
    Proxy("nginx, stream", NGINX_STREAM, 8002, STREAM, ("nginx", "-c"), (MODULE,)),
)


def start_pages(host: Namespace, folder: Path, sizes: Iterable[int] = ()) -> None:
    """Make *host* answer requests at port 80 of all its addresses: ``/`` with two bytes, ``/1024`` with 1024.

    The pages have the *sizes* given, in bytes.
    """
    (folder / "www").mkdir()
    for size in sizes:
        (folder / "www" / str(size)).write_bytes(bytes(size))
    path = folder / "pages.conf"
    path.write_text(PAGES.format(folder=folder))
    # Its workers are not root.
    for each in (folder, folder / "www"):
        each.chmod(0o755)
    _start(host, folder, path, "nginx", "-c", port=80)


def _start(host: Namespace, folder: Path, path: Path, *command: str, port: int) -> None:
    with (folder / f"{path.stem}.log").open("w") as log:
        host.popen(*command, path, stdout=log, stderr=log)
    wait_until(lambda: f":{port} " in host.run("ss", "-Htln"), 10, f"{command[0]} listens at {port}")


def requests(
    client: Namespace, url: str, seconds: float, at_once: int, *, is_kept: bool = False
) -> tuple[float, float]:
    """Return how many requests per second *client* makes, and how many in total, with *at_once* connections at a time.

    Each request has its own connection, unless connections are kept.
    """
    told = client.run(
        *("wrk", "-t", "1", "-c", str(at_once), "-d", f"{seconds:g}s", "--timeout", "5s"),
        *(() if is_kept else ("-H", "Connection: close")),
        url,
        timeout=seconds + 30,
    )
    rate, count, errors = counted(told)
    if not rate:
        raise CommandError(f"wrk: no answer from {url}")
    if errors:
        progress(f"{url}: {errors}")
    return rate, count


def counted(told: str) -> tuple[float, int, str]:
    """Return what wrk printed, *told*: requests per second, requests, and failures, if any."""
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", told, re.MULTILINE)
    count = re.search(r"^\s*(\d+) requests in ", told, re.MULTILINE)
    errors = re.search(r"^\s*Socket errors: (.*)$", told, re.MULTILINE)
    return float(rate[1]) if rate else 0.0, int(count[1]) if count else 0, errors[1] if errors else ""
