"""flannel's values in etcd, literally."""

from __future__ import annotations

import json

from peers.stores.flannel.lease import Keys

KEYS = Keys("coreos.com/network")
PUBLIC_KEY = "AY1X6q7LmSThjaSdMPmTs7LTkI971d+0dxdtL8ZfTH4="
# As flanneld writes them (flannel-io/flannel pkg/lease/lease.go, pkg/backend)
LITERAL = {
    "udp": '{"PublicIP":"%s","PublicIPv6":null}',
    "ipip": '{"PublicIP":"%s","PublicIPv6":null,"BackendType":"ipip"}',
    "vxlan": (
        '{"PublicIP":"%s","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,'
        '"VtepMAC":"aa:bb:cc:dd:ee:ff"}}'
    ),
    "wireguard": (
        '{"PublicIP":"%s","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"'
        + PUBLIC_KEY
        + '","Port":51820}}'
    ),
}


def config(backend="udp", **more):
    options = {"Type": backend, **more.pop("options", {})}
    return json.dumps({"Network": "10.244.0.0/16", "Backend": options, **more}).encode()


def lease_key(subnet):
    return KEYS.prefix + f"subnets/{subnet.replace('/', '-')}".encode()
