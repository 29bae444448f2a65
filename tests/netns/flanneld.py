"""A flannel network in a real etcd, and hosts in it that are set up by hand as flanneld does it.

VXLAN is the kernel's, WireGuard is wireguard-go; programs of the tests stand in for udp and ipip.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.joined import ETCD, EtcdNetwork, Joining
from tests.netns.network import WIREGUARD_SOCKETS
from tests.netns.topology import PATIENCE, CommandError, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.netns.topology import Lab

HERE = Path(__file__).parent
PREFIX = "/coreos.com/network"
MAC = "02:00:5e:10:00:77"
TTL = 24 * 3600
DEVICES = {"udp": "flannel0", "vxlan": "flannel.1", "ipip": "tunnel0"}


class FlannelNetwork(EtcdNetwork):
    """An underlay with an etcd, and flannel's config in it."""

    def __init__(self, lab: Lab, directory: Path, backend: str, **options: Any) -> None:
        super().__init__(lab, directory)
        self.backend = backend
        self.url = f"flannel+etcd://{ETCD}:2379{PREFIX}"
        self.put("config", json.dumps({"Network": "10.244.0.0/16", "Backend": {"Type": backend, **options}}))

    def put(self, key: str, value: str) -> None:
        """Write a key of the network, as etcdctl does."""
        self.etcdctl("put", f"{PREFIX}/{key}", value)

    def leases(self) -> dict[str, dict[str, Any]]:
        """Return the value at the key of each subnet."""
        lines = self.etcdctl("get", "--prefix", f"{PREFIX}/subnets/").splitlines()
        return {
            key.rpartition("/")[2].replace("-", "/"): json.loads(value)
            for key, value in zip(lines[::2], lines[1::2], strict=True)
        }


class Flanneld:
    """flanneld on a *host* with the *subnet*."""

    process: subprocess.Popen[str] | None = None

    def __init__(self, host: Joining, subnet: str) -> None:
        assert isinstance(host.network, FlannelNetwork)
        self.host, self.subnet, self.network = host, subnet, host.network
        self.backend = self.network.backend
        self.device = DEVICES.get(self.backend) or f"fw{host.namespace.inode % 10**10}"
        self.address = subnet.partition("/")[0]
        self._socket = WIREGUARD_SOCKETS / f"{self.device}.sock"
        host.network.lab.on_exit(lambda: self._socket.unlink(missing_ok=True))

    def join(self) -> None:
        """Write the lease, and create the device."""
        data = {
            "vxlan": {"VNI": 1, "VtepMAC": MAC},
            "wireguard": {"PublicKey": self.host.public_key, "Port": 51820},
        }.get(self.backend)
        value: dict[str, Any] = {"PublicIP": self.host.outside, "PublicIPv6": None}
        if self.backend != "udp":
            value["BackendType"] = self.backend
        if data is not None:
            value["BackendData"] = data
        granted = re.search(r"lease ([0-9a-f]+) granted", self.network.etcdctl("lease", "grant", str(TTL)))
        assert granted is not None
        key = f"{PREFIX}/subnets/{self.subnet.replace('/', '-')}"
        self.network.etcdctl("put", f"--lease={granted[1]}", key, json.dumps(value, separators=(",", ":")))
        self.follow()

    def follow(self) -> None:
        """Add routes to all other leases, as flanneld does after an event for each."""
        others = {
            subnet: value
            for subnet, value in self.network.leases().items()
            if value["PublicIP"] != self.host.outside
        }
        getattr(self, f"_follow_{self.backend}")(others)

    def leave(self) -> None:
        """Stop: the lease remains, and the device is removed."""
        if self.process is not None:
            self.host.network.lab.end_process(self.process)
            self.process = None
        self._socket.unlink(missing_ok=True)
        if self.backend == "vxlan":
            self.host.namespace.run("ip", "link", "delete", self.device)

    def _follow_vxlan(self, others: dict[str, Any]) -> None:
        host = self.host.namespace
        if host.completed("ip", "link", "show", self.device).returncode:
            try:
                host.run(
                    *f"ip link add {self.device} address {MAC} type vxlan id 1 dstport 8472 nolearning".split(),
                    *f"local {self.host.outside} dev eth0".split(),
                )
            except CommandError:
                pytest.skip("this kernel has no VXLAN")
            host.run("ip", "address", "add", f"{self.address}/32", "dev", self.device)
            host.run("ip", "link", "set", self.device, "mtu", "1450", "up")
        for subnet, value in others.items():
            assert value["BackendType"] == "vxlan"
            via, mac = subnet.partition("/")[0], value["BackendData"]["VtepMAC"]
            for command in (
                f"ip neighbor replace {via} lladdr {mac} dev {self.device} nud permanent",
                f"bridge fdb replace {mac} dev {self.device} dst {value['PublicIP']} self permanent",
                f"ip route replace {subnet} via {via} dev {self.device} onlink",
            ):
                host.run(*command.split())

    def _follow_udp(self, others: dict[str, Any]) -> None:
        routes = [f"{subnet}={value['PublicIP']}" for subnet, value in others.items()]
        self._run(HERE / "flannel_udp.py", "8285", f"{self.address}/32", *routes)

    def _follow_ipip(self, others: dict[str, Any]) -> None:
        """Add routes to one other host: there is one tunnel."""
        if not others:
            return
        [(subnet, value)] = others.items()
        assert value["BackendType"] == "ipip"
        self._run(HERE / "raw_tunnel.py", "ipip", value["PublicIP"], f"{self.address}/32", "-", subnet)

    def _follow_wireguard(self, others: dict[str, Any]) -> None:
        host = self.host.namespace
        if self.process is None:
            self.process = host.popen(
                "wireguard-go",
                "-f",
                self.device,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1"},
            )
            private = str(self.host.key_path)
            command = ["wg", "set", self.device, "private-key", private, "listen-port", "51820"]
            _retry(lambda: host.run(*command))
            host.run("ip", "address", "add", f"{self.address}/32", "dev", self.device)
            host.run("ip", "link", "set", self.device, "mtu", "1420", "up")
            host.run("ip", "route", "add", "10.244.0.0/16", "dev", self.device)
        for subnet, value in others.items():
            data = value["BackendData"]
            endpoint = f"{value['PublicIP']}:{data['Port']}"
            peer = ["wg", "set", self.device, "peer", data["PublicKey"], "allowed-ips", subnet]
            host.run(*peer, "endpoint", endpoint)

    def _run(self, program: Path, *arguments: str) -> None:
        if self.process is not None:
            self.host.network.lab.end_process(self.process)
        self.process = self.host.namespace.popen(
            sys.executable, program, *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"


def _retry(attempt: Callable[[], object]) -> None:
    def succeeds() -> bool:
        try:
            attempt()
        except CommandError:
            return False
        return True

    wait_until(succeeds, PATIENCE, "wireguard-go to answer")
