"""Data in etcd, which others write: answers of its gateway, and the keys of networks of both layouts.

A host of a network has a table whatever others write beside the document: what is wrong is left out.
"""

from __future__ import annotations

import contextlib
import json
from ipaddress import IPv4Address, ip_network
from pathlib import Path

from peers.errors import TableError
from peers.stores.etcd import messages
from peers.stores.etcd.commands import Commands
from peers.stores.etcd.document import check_document, read_document
from peers.stores.etcd.layout import Keys, NodeValue
from peers.stores.etcd.location import EtcdLocation
from peers.stores.etcd.members import Own, Snapshot, read_members
from peers.stores.etcd.messages import CallRefusedError, GarbledError, KeyValue
from peers.stores.etcd.signatures import JoinToken, SigningKey, Trust, vouch, vouch_by_token
from peers.stores.etcd.store import EtcdStore
from peers.stores.flannel import members as flannels
from peers.stores.flannel.config import read_config
from peers.stores.flannel.lease import AgentData, Lease, locate
from peers.stores.flannel.lease import Keys as FlannelKeys
from peers.stores.flannel.store import FlannelStore
from peers.stores.membership import OwnKeys
from tests.fuzz.target import join, split
from tests.peers.examples import key
from tests.peers.stores.flannel.forms import LITERAL, config

PATH = Path("/overlay/office/config")
DOCUMENT = b'[network]\nprefix = "10.244.0.0/16"\n'
MOST = 64  # pieces of an input: a key and a value each
KEYS, FLANNEL = Keys("office"), FlannelKeys("coreos.com/network")
STORE = EtcdStore(EtcdLocation.parse("etcd", "//10.0.0.5:2379/office"))
FLANNEL_STORE = FlannelStore(locate(EtcdLocation.parse("flannel+etcd", "//10.0.0.5:2379/coreos.com/network")))
ADMIN = SigningKey(b"\x01" * 32)
TRUST = Trust(ADMIN.public, "office", Commands(STORE.location))
OWN = Own("oslo", OwnKeys(key("oslo")), key("oslo"), (ip_network("10.244.250.0/24"),))
FLANNEL_OWN = flannels.Own(
    AgentData("oslo", key("oslo"), "0" * 32, 51820),
    IPv4Address("192.0.2.250"),
    (ip_network("10.244.250.0/24"),),
)
PARSERS = (
    messages.parse_page,
    messages.parse_header,
    messages.parse_outcome,
    messages.parse_lease,
    messages.parse_notice,
)


def answers(data):
    """Read an answer of the gateway in each way."""
    for first in (messages.parse_object, messages.parse_line):
        for parse in PARSERS:
            with contextlib.suppress(GarbledError, CallRefusedError):
                parse(first(data))


def network(data):
    """Make the table of a host of the overlay's own layout, with and without an administrator's key: there is one
    whatever others wrote.
    """
    kvs = _keys(KEYS.prefix, data)
    document = read_document(DOCUMENT.decode(), PATH)
    for trust in (None, TRUST):
        members = read_members(KEYS, kvs, document, trust)
        table = STORE.make_table(Snapshot(document, members, OWN))
        assert any(peer.public_key == OWN.public_key for peer in table.peers.values())


def document(data):
    """Read a document, which is valid or reported as invalid."""
    text = data.decode(errors="replace")
    try:
        read_document(text, PATH)
    except TableError:
        assert check_document(text, PATH, 3)


def flannel(data):
    """Make the table of a host in flannel's network: there is one whatever the leases are."""
    first, _, rest = data.partition(b"\0")
    try:
        read = read_config(first, PATH)
    except TableError:
        return
    members = flannels.read_members(FLANNEL, _keys(FLANNEL.prefix, rest), read)
    own = FLANNEL_OWN if FLANNEL_OWN.subnets[0].subnet_of(read.network) else None
    if own is not None:
        table = FLANNEL_STORE.make_table(flannels.Snapshot(read, members, own))
        assert any(peer.public_key == own.agent.public_key for peer in table.peers.values())


def _keys(prefix, data):
    pieces = split(data, MOST)
    pairs = zip(pieces[::2], pieces[1::2], strict=False)
    return [
        KeyValue(prefix + name, value, number, number, 1, 0) for number, (name, value) in enumerate(pairs, 1)
    ]


def answer_seeds():
    kv = {
        "key": "YQ==",
        "value": "Yg==",
        "create_revision": "2",
        "mod_revision": "3",
        "version": "1",
        "lease": "7",
    }
    header = {"cluster_id": "1", "member_id": "2", "revision": "3", "raft_term": "2"}
    for found in (
        {"header": header, "kvs": [kv], "count": "1"},
        {
            "header": header,
            "succeeded": True,
            "responses": [{"response_range": {"header": header, "kvs": [kv]}}],
        },
        {"header": header, "ID": "7", "TTL": "60"},
        {"result": {"header": header, "events": [{"kv": kv}, {"type": "DELETE", "kv": kv}]}},
        {"result": {"header": header, "canceled": True, "compact_revision": "5", "cancel_reason": "x"}},
        {"error": "etcdserver: requested lease not found", "code": 5, "message": "x"},
    ):
        yield json.dumps(found).encode()


def network_seeds():
    node = NodeValue("paris", key("paris"), (ip_network("10.244.7.0/24"),), "0" * 32, ("192.0.2.1",))
    name = KEYS.node(node.subnets[0]).removeprefix(KEYS.prefix)
    vouched = KEYS.vouched(node.public_key).removeprefix(KEYS.prefix)
    token = JoinToken(SigningKey(b"\x03" * 32), 2_000_000_000)
    by_token = vouch_by_token(token.key, token.value(ADMIN, "office"), "office", node.public_key, "paris")
    yield join([name, node.build(), vouched, vouch(ADMIN, "office", node.public_key, "paris"), b"", b""])
    yield join(
        [name, node.build(), vouched, by_token, b"reserved/10.244.8.0-24", b'{"name":"rome"}', b"", b""]
    )
    yield join([b"nodes/10.244.250.0-24", node.build(), b"nodes/0.0.0.0-0", node.build(), b"", b""])


def document_seeds():
    yield DOCUMENT
    yield DOCUMENT + b'[leases]\nlength = 26\nseconds = 60\nprefix = "10.244.128.0/17"\n'
    yield (
        DOCUMENT
        + b'[services.web]\naddress = "10.244.0.80"\nports = 80\nservers = ["web1"]\ndirectors = "all"\n'
    )


def flannel_seeds():
    for backend, text in LITERAL.items():
        lease = (text % "192.0.2.7").encode()
        agent = Lease(
            IPv4Address("192.0.2.8"), "udp", agent=AgentData("paris", key("paris"), "1" * 32, 51820)
        ).build()
        rows = [b"subnets/10.244.7.0-24", lease, b"subnets/10.244.8.0-24", agent, b"", b""]
        yield config(backend) + b"\0" + join(rows)
