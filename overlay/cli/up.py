"""``overlay up``: run the agent of this host."""

# ruff: noqa: PLC0415  the agent takes long to load; see overlay/cli/__init__.py

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import click

from overlay import defaults
from overlay.cli.options import (
    FILE,
    LOG_LEVELS,
    InterfaceName,
    ListenPlace,
    key_option,
    peers_option,
)
from overlay.hooks.happening import HOOKS
from peers.encapsulation import ENCAPSULATIONS


@click.command("up", epilog="Example: overlay up --peers /etc/overlay/peers.toml")
@peers_option
@key_option("The private key of this host.")
@click.option(
    "--interface",
    type=InterfaceName(),
    default=defaults.INTERFACE,
    metavar="NAME",
    help="The network interface to create, or a persistent tun device to use.",
)
@click.option(
    "--node",
    metavar="NAME",
    help="The peer that this host is, or in etcd its name; its key must match, if it has one.  [default: by the key]",
)
@click.option(
    "--fix-sysctl",
    is_flag=True,
    help="Correct the sysctls that would block traffic (forwarding, rp_filter), and restore them at the end.",
)
@click.option(
    "--masquerade",
    is_flag=True,
    help="Give packets that leave the overlay here an address of this host (masquerading), while the agent runs.",
)
@click.option(
    "--forward",
    is_flag=True,
    help="Let packets from and to the subnets of this host pass its packet filters, while the agent runs.",
)
@click.option(
    "--endpoint",
    metavar="ADDRESS[:PORT]",
    help="In a network in etcd: where others reach this host, by default the address from which it reaches etcd.",
)
@click.option(
    "--encapsulation",
    type=click.Choice(ENCAPSULATIONS),
    help="In a network in etcd: the encapsulation of tunnels with this host, by default the network's.",
)
@click.option(
    "--subnet-file",
    type=FILE,
    metavar="FILE",
    help="Write this host's subnet to this file for container tools, as flanneld does to /run/flannel/subnet.env.",
)
@click.option(
    "--docker-options",
    type=FILE,
    metavar="FILE",
    help="Write the options of dockerd to this file, as flannel's mk-docker-opts.sh does to /run/docker_opts.env.",
)
@click.option(
    "--docker",
    is_flag=True,
    help="Act as a network driver for Docker, named after the interface.",
)
@click.option(
    "--metrics",
    type=ListenPlace(),
    metavar="ADDRESS:PORT|PATH",
    help="Serve metrics for Prometheus and health checks here, such as 127.0.0.1:9586 or the path of a unix socket.",
)
@click.option(
    "--hooks",
    type=FILE,
    default=HOOKS,
    metavar="DIRECTORY",
    help="Run the programs in this directory when a node, a peer or a service goes up or down.",
)
@click.option(
    "--lanes",
    type=click.Choice(("1", "2", "4", "8")),
    callback=lambda _, __, chosen: None if chosen is None else int(chosen),
    metavar="N",
    help="How many processors may carry packets: 1, 2, 4 or 8; by default half of them, at most 4.",
)
@click.option("--log-level", type=click.Choice(LOG_LEVELS, case_sensitive=False), default="info")
def command(log_level: str, **given: Any) -> None:
    """Connect this host to the overlay.

    Runs in the foreground, logs to stderr and reports when it is ready.  SIGINT, SIGTERM and `overlay down` stop it,
    and it leaves the host as it was.  The peers file is read again when it changes, and on SIGHUP.

    With --peers etcd://HOST:2379/NAME this host joins the network NAME in etcd: it takes a subnet and finds the others.
    With --peers flannel+etcd://HOST:2379/coreos.com/network it joins a flannel network, next to hosts with flanneld.

    A persistent tun device of that name (ip tuntap add) is used and left in place.  Its owner may run the agent without
    root, provided that root has configured the device; anything missing is reported.
    """
    # Checked before the agent listens: the remedy names a file that will exist by then.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from overlay import lifecycle
    from overlay.config import Options

    # Readers of the log, or of the status, may be in another directory.
    options = Options(**{name: _absolute(value) for name, value in given.items()})
    lifecycle.run(options, log_level)


def _absolute(value: Any) -> Any:
    """Return *value*, a path as an absolute path; unchanged if the current directory is gone."""
    from peers.stores import Location

    if isinstance(value, Location):
        return value.absolute()
    try:
        return value.absolute() if isinstance(value, Path) else value
    except OSError:
        return value
