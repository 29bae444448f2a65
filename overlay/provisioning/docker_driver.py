"""Serves Docker while the agent runs: the driver of its interface, its socket, and its files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from overlay.docker import http
from overlay.docker.driver import Driver
from overlay.docker.record import RECORD_SIZE, Endpoints, Networks
from overlay.errors import HostError
from overlay.host import advice, control, docker_plugin, records
from overlay.starting.membership import state_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from overlay.config import Node
    from overlay.docker.calls import Published
    from overlay.provisioning.attaching import Containers
    from overlay.provisioning.filtering import Filtering

# Ours
NETWORKS, ENDPOINTS = ".docker.json", ".docker"  # suffixes of the names of two files

log = logging.getLogger("overlay")


class Files:
    """The files of the driver of *interface*, and what else it asks of the host."""

    def __init__(self, interface: str, filtering: Filtering, state: Path) -> None:
        self._filtering = filtering
        self._networks = state / f"{interface}{NETWORKS}"
        self._endpoints = control.control_path(interface, control.own_directory()).with_suffix(ENDPOINTS)
        self._boot = records.own_namespace()

    def load_networks(self) -> Networks:
        """Return the networks that Docker made before.  Raises HostError for a file that is not ours."""
        data = records.read(self._networks, RECORD_SIZE)
        try:
            return Networks() if data is None else Networks.decode(data)
        except ValueError as error:
            raise HostError(
                f"{self._networks} does not contain what an agent writes there: remove it, and Docker's networks "
                "that were in it"
            ) from error

    def load_endpoints(self) -> Endpoints:
        """Return the endpoints of containers that may still run.  Raises HostError for a file that is not ours."""
        data = records.read(self._endpoints, RECORD_SIZE)
        try:
            return Endpoints() if data is None else Endpoints.decode(data, self._boot)
        except ValueError as error:
            raise HostError(
                f"{self._endpoints} does not contain what an agent writes there: "
                "remove it and start the containers again"
            ) from error

    def save_networks(self, networks: Networks) -> None:
        """Write the networks.  Raises HostError."""
        try:
            self._networks.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HostError(
                f"{self._networks.parent} could not be made ({error.strerror}): {advice.after(error)}"
            ) from error
        records.write(self._networks, networks.encode(), is_durable=True)

    def save_endpoints(self, endpoints: Endpoints) -> None:
        """Write the endpoints.  Raises HostError."""
        records.write(self._endpoints, endpoints.encode(self._boot))

    async def publish(self, rules: str) -> None:
        """Put these chains into force.  Raises HostError."""
        await self._filtering.publish(rules)

    def is_free(self, port: Published) -> bool:
        """Return whether nothing on the host listens at the port."""
        return docker_plugin.is_free(port.protocol, port.host_port, port.host)


async def serve(
    interface: str,
    node: Callable[[], Node],
    containers: Containers,
    filtering: Filtering,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer Docker until cancelled.  Raises HostError if that cannot start, or the files cannot be read."""
    files = Files(interface, filtering, state_directory())
    networks, endpoints = files.load_networks(), files.load_endpoints()
    driver = Driver(interface, containers, files, networks, endpoints, lambda: node().table.network.prefixes)
    with docker_plugin.listening(interface) as listener:
        try:
            await driver.set_up([each.holder for each in await containers.all()])
        except HostError as error:
            log.error("ports of containers are not published: %s", error)  # noqa: TRY400  it says enough
        task_status.started()
        log.info("docker is served driver=%s networks=%d", interface, len(networks.by_id))
        raw = trio.socket.from_stdlib_socket(listener.dup())
        async with trio.SocketListener(raw) as incoming:
            await http.serve(incoming, driver.answer)
