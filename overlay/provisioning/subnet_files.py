"""Files that tell container tools the subnet of this host, in flannel's formats: units made for flannel keep working.

``subnet.env`` is written by flanneld, and the other file is made from it by flannel's mk-docker-opts.sh for dockerd.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import advice
from overlay.provisioning.filtering import wanted_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from overlay.config import Node, Options
    from overlay.host.plan import IPNetwork

# Specification: flannel's pkg/subnet/subnet.go and dist/mk-docker-opts.sh
NETWORK = {4: "FLANNEL_NETWORK", 6: "FLANNEL_IPV6_NETWORK"}
SUBNET = {4: "FLANNEL_SUBNET", 6: "FLANNEL_IPV6_SUBNET"}


def subnet_env(node: Node, mtu: int, *, masquerade: bool) -> str | None:
    """Return the subnet.env of *node*, whose tunnel has *mtu* bytes; None if it has no subnet for containers.

    A subnet is given as its first host address, which is the bridge's.  There is one for each IP version.
    """
    lines = []
    for version in (4, 6):
        subnet = _subnet_of(node, version)
        if subnet is not None:
            network = next((each for each in node.table.network.prefixes if _holds(each, subnet)), subnet)
            lines += [f"{NETWORK[version]}={network}", f"{SUBNET[version]}={_bridge(subnet)}"]
    if not lines:
        return None
    lines += [f"FLANNEL_MTU={mtu}", f"FLANNEL_IPMASQ={'true' if masquerade else 'false'}"]
    return "\n".join(lines) + "\n"


def docker_options(node: Node, mtu: int, *, masquerade: bool) -> str | None:
    """Return the options of dockerd for the same, as variables; None if *node* has no IPv4 subnet for containers.

    Docker is told not to masquerade if this agent does: it would hide containers from each other.
    """
    subnet = _subnet_of(node, 4)
    if subnet is None:
        return None
    options = {"BIP": f"--bip={_bridge(subnet)}"}
    if masquerade:
        options["IPMASQ"] = "--ip-masq=false"
    options["MTU"] = f"--mtu={mtu}"
    lines = [f'DOCKER_OPT_{name}="{option}"' for name, option in options.items()]
    lines.append(f'DOCKER_OPTS=" {" ".join(options.values())} "')
    return "\n".join(lines) + "\n"


class SubnetFiles:
    """The files that *options* name, if any, rewritten whenever their content changes."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._written: dict[Path, str] = {}

    def write(self, node: Node, mtu: int) -> None:
        """Write the files for *node*.  Raises HostError for one that cannot be written, which then stays unchanged.

        Without a subnet for containers nothing is written: the former content still applies to running ones.
        """
        for path, text in self._texts(node, mtu):
            if text is not None and self._written.get(path) != text:
                _write(path, text)
                self._written[path] = text

    def _texts(self, node: Node, mtu: int) -> Iterator[tuple[Path, str | None]]:
        masquerade = wanted_of(node, self._options).masquerade
        if self._options.subnet_file is not None:
            yield self._options.subnet_file, subnet_env(node, mtu, masquerade=masquerade)
        if self._options.docker_options is not None:
            yield self._options.docker_options, docker_options(node, mtu, masquerade=masquerade)


def _subnet_of(node: Node, version: int) -> IPNetwork | None:
    """Return the first subnet of *node* with addresses for containers, preferably one inside the network over a LAN."""
    behind = [each for each in node.own.subnets if each.version == version and each.num_addresses > 2]
    inside = (each for each in behind if any(_holds(prefix, each) for prefix in node.table.network.prefixes))
    return next(inside, next(iter(behind), None))


def _holds(network: IPNetwork, subnet: IPNetwork) -> bool:
    return network.version == subnet.version and subnet.network_address in network


def _bridge(subnet: IPNetwork) -> str:
    return f"{subnet.network_address + 1}/{subnet.prefixlen}"


def _write(path: Path, text: str) -> None:
    """Replace the file *path* by *text* atomically; its directory is created.  Raises HostError."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(fresh, flags, 0o644), "w") as file:
            file.write(text)
        fresh.rename(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise HostError(f"{path} could not be written ({error.strerror}): {advice.after(error)}") from error
