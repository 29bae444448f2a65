"""The store like any other store: what it reads while no agent takes part."""

from __future__ import annotations

import base64
import threading

import pytest
import trio

from peers.errors import StoreError, TableError
from peers.stores import Location
from peers.stores.etcd.gateway import Gateway
from peers.stores.etcd.location import EtcdLocation
from peers.stores.etcd.messages import prefix_end
from peers.stores.etcd.signatures import SigningKey, sign_document
from tests.peers.examples import key_text
from tests.peers.stores.etcd.network import DOCUMENT, KEYS

LISTED = DOCUMENT + f'[peers.router]\npublic_key = "{key_text("router")}"\nsubnets = ["10.244.9.0/24"]\n'


@pytest.fixture
def write(real_etcd):
    def put(**values):
        async def main():
            gateway = Gateway(EtcdLocation.parse("etcd", f"//{real_etcd.url}/office"), patience=60.0)
            await gateway.delete(KEYS.prefix, prefix_end(KEYS.prefix))
            for name, value in values.items():
                await gateway.put(KEYS / name.replace("_", "."), value)
            await gateway.aclose()

        trio.run(main)

    return put


@pytest.fixture
def store(real_etcd):
    return Location.parse(f"etcd://{real_etcd.url}/office").open()


def test_table_is_read_without_taking_part(store, write):
    write(config=LISTED.encode())

    assert list(store.load().peers) == ["router"]
    assert store.problems(9) == []
    assert not store.changed()
    assert not store.is_absent()
    assert store.notes() == []


def test_wrong_document_is_told_with_its_lines(store, write):
    write(config=LISTED.encode() + b"colour = 1\ntaste = 2\n")

    with pytest.raises(
        TableError, match=r"^/overlay/office/config, line 6: peers.router.colour is not known"
    ):
        store.load()
    assert [problem.line for problem in store.problems(9)] == [6, 7]


def test_network_without_members_is_not_wrong(store, write):
    write(config=DOCUMENT.encode())
    with pytest.raises(StoreError, match="has a valid document, and nobody has joined yet"):
        store.load()

    write(config=b"\xff")
    with pytest.raises(TableError, match="not UTF-8"):
        store.load()

    write()
    with pytest.raises(StoreError, match="there is no network office"):
        store.load()


def test_nothing_is_read_in_the_middle_of_a_loop(store):
    async def main():
        with pytest.raises(StoreError, match="was not read yet"):
            store.load()

    trio.run(main)


def test_document_that_nobody_signed_is_not_taken_where_an_administrator_is_known(real_etcd, write, tmp_path):
    admin = SigningKey(b"\x01" * 32)
    (tmp_path / "admin.pub").write_text(key_text("wrong") + "\n")
    text = base64.b64encode(admin.public).decode()
    store = Location.parse(f"etcd://{real_etcd.url}/office?admin-key={text}").open()
    write(config=LISTED.encode())
    with pytest.raises(StoreError, match="is not to be trusted: it is not signed"):
        store.load()
    write(config=LISTED.encode(), config_signature=sign_document(admin, "office", 1, LISTED))
    assert list(store.load().peers) == ["router"]
    other = Location.parse(f"etcd://{real_etcd.url}/office?admin-key={tmp_path}/admin.pub").open()
    assert other.files() == (tmp_path / "admin.pub",)
    with pytest.raises(StoreError, match="is not that of the administrator"):
        other.load()


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, r"cannot be read \(No such file"), ("x", "is not the administrator's public key")],
)
def test_admin_key_that_is_none_is_one_sentence(real_etcd, write, tmp_path, content, said):
    path = tmp_path / "admin.pub"
    if content:
        path.write_text(content)
    write(config=LISTED.encode())

    with pytest.raises(StoreError, match=said):
        Location.parse(f"etcd://{real_etcd.url}/office?admin-key={path}").open().load()


def test_store_can_be_read_in_a_thread(store, write):
    write(config=LISTED.encode())
    found = []
    thread = threading.Thread(target=lambda: found.append(store.load()))
    thread.start()
    thread.join(30)

    assert list(found[0].peers) == ["router"]
