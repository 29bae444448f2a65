"""Hosts that share a flannel network in an etcd in memory, in simulated time; some of them have flanneld."""

from __future__ import annotations

import json

from peers.stores.etcd.location import EtcdLocation
from peers.stores.flannel.lease import locate
from peers.stores.flannel.store import FlannelStore
from tests.peers.stores.etcd import network
from tests.peers.stores.etcd.network import key, settle, until
from tests.peers.stores.flannel.forms import KEYS, LITERAL, config, lease_key

URL = "//10.0.0.5:2379/coreos.com/network"


class Host(network.Host):
    """A host with an agent; its disk is *directory*."""

    def __init__(self, network, name, directory, *, address=None, url=URL, public_key=None, endpoint=None):
        super().__init__(network, name, directory, url, public_key)
        self.address, self.endpoint = address or f"192.0.2.{len(network.hosts) + 10}", endpoint

    def make_store(self, opener):
        return FlannelStore(locate(EtcdLocation.parse("flannel+etcd", self.url)), opener)


class Network(network.Network):
    """An etcd and its hosts."""

    host_class = Host

    def __init__(self, directory, value=None):
        super().__init__(directory, None if value is None else value.decode(), KEYS.config)

    def flanneld(self, subnet, address, backend="udp", lease=0):
        """Write a lease as flanneld does."""
        self.put(lease_key(subnet), (LITERAL[backend] % address).encode(), lease)

    def put(self, key, value, lease=0):
        """Write a key, as anybody may."""
        self.etcd.put(key, value, lease)
        self.served.tell()

    def delete(self, key):
        """Remove a key, as anybody may."""
        self.etcd.delete(key)
        self.served.tell()

    def leases(self):
        """Return the value at the key of each subnet."""
        folder = KEYS.prefix + b"subnets/"
        return {
            name.removeprefix(folder).decode(): json.loads(kv.value)
            for name, kv in sorted(self.etcd.keys.items())
            if name.startswith(folder)
        }


__all__ = ["KEYS", "LITERAL", "Host", "Network", "config", "key", "lease_key", "settle", "until"]
