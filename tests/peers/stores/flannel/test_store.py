"""A flannel network as a store that is only read, as by ``overlay check``, from the real etcd if it is installed."""

from __future__ import annotations

import pytest
import trio

from peers.errors import StoreError, TableError
from peers.stores import Location
from peers.stores.etcd.gateway import Gateway
from peers.stores.etcd.location import EtcdLocation
from tests.peers.stores.flannel.forms import KEYS, LITERAL, config, lease_key


@pytest.fixture
def store_and_put(real_etcd):
    """The store, and a function that writes a key, with an empty etcd."""
    url = f"flannel+etcd://{real_etcd.url}/coreos.com/network"

    def call(method, *arguments):
        async def make():
            gateway = Gateway(EtcdLocation.parse("etcd", f"//{real_etcd.url}/x"), patience=60.0)
            await getattr(gateway, method)(*arguments)
            await gateway.aclose()

        trio.run(make)

    call("delete", b"/", b"0")
    return Location.parse(url).open(), lambda key, value: call("put", key, value)


def test_leases_in_flannelds_literal_form_make_a_table(store_and_put):
    store, put = store_and_put
    put(KEYS.config, config("vxlan"))
    put(lease_key("10.244.7.0/24"), (LITERAL["vxlan"] % "192.0.2.7").encode())
    put(lease_key("10.244.8.0/24"), (LITERAL["udp"] % "192.0.2.8").encode())

    table = store.load()

    assert list(table.peers) == ["flannel-192.0.2.7"]
    assert store.problems(9) == []
    assert list(map(str, store.notes())) == [
        "the lease of 10.244.8.0/24 (192.0.2.8) is left out: its backend is udp, and the network's vxlan"
    ]
    assert (store.files(), store.secrets(), store.is_absent()) == ((), (), False)


def test_a_network_without_a_config_is_not_there(store_and_put):
    store, _ = store_and_put

    with pytest.raises(StoreError, match=r"etcd has no key /coreos\.com/network/config; write its"):
        store.load()


def test_a_network_without_a_lease_has_nobody(store_and_put):
    store, put = store_and_put
    put(KEYS.config, config())

    with pytest.raises(
        StoreError, match="has a valid config, and no lease yet; a host joins with `overlay up --peers"
    ):
        store.load()


def test_a_config_that_agents_cannot_follow_is_the_one_problem(store_and_put):
    store, put = store_and_put
    put(KEYS.config, config("host-gw"))

    [problem] = store.problems(9)
    assert "Backend.Type is 'host-gw'" in problem.problem
    with pytest.raises(TableError, match=r"/coreos\.com/network/config: Backend\.Type"):
        store.load()


def test_the_url_without_a_path_is_where_flanneld_has_its_keys():
    location = Location.parse("flannel+etcd://10.0.0.5")

    assert str(location.absolute()) == "flannel+etcd://10.0.0.5:2379/coreos.com/network"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "flannel+etcd:x",
            "flannel+etcd: needs a URL; write flannel+etcd://10.0.0.5:2379/coreos.com/network",
        ),
        (
            "flannel+etcd://h/x?admin-key=a",
            "admin-key is not known; accepted are ca, cert, key, password-file and user",
        ),
        ("flannel+etcd://h/x?ca=a", "names certificates, which are for TLS; write flannel+etcds://h/x?ca=a"),
        ("flannel+etcd:///x", "names no host; write flannel+etcd://10.0.0.5:2379/coreos.com/network"),
    ],
)
def test_a_wrong_url_is_refused_with_what_to_write(url, sentence):
    with pytest.raises(StoreError) as refused:
        Location.parse(url)

    assert sentence in str(refused.value)
