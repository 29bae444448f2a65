"""Agents in flannel's network beside hosts of flanneld, and each thing that may happen to them there."""

from __future__ import annotations

import json
import re

import pytest

from peers.errors import StoreError
from peers.peer import format_public_key
from peers.stores.flannel.config import SECONDS
from tests.peers.stores.flannel.network import KEYS, Network, config, key, lease_key, settle, until

BACKENDS = ("udp", "vxlan", "ipip", "wireguard")


@pytest.fixture
def network(tmp_path):
    return Network(tmp_path, config())


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_agent_joins_beside_a_host_of_flanneld(tmp_path, backend):
    async def main(network):
        network.flanneld("10.244.7.0/24", "192.0.2.77", backend)
        paris = network.host("paris")
        await paris.start()

        [subnet] = paris.subnets
        assert paris.state == "held"
        peers = paris.table().peers
        other = next(peer for name, peer in peers.items() if name == "flannel-192.0.2.77")
        assert [str(each) for each in other.subnets] == ["10.244.7.0/24"]
        between = paris.table().encapsulation_between(peers["paris"], other)
        assert between == backend
        written = network.leases()[subnet.replace("/", "-")]
        assert written["PublicIP"] == "192.0.2.10"
        assert written["PublicIPv6"] is None
        assert written.get("BackendType") == (None if backend == "udp" else backend)

    Network(tmp_path, config(backend)).run(main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_agents_are_encrypted_between_each_other_whatever_the_backend_is(tmp_path, backend):
    async def main(network):
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        await until(lambda: "tokyo" in paris.sees())

        table = paris.table()
        assert table.encapsulation_between(table.peers["paris"], table.peers["tokyo"]) == "wireguard"
        assert table.peers["tokyo"].endpoint.port == 51820

    Network(tmp_path, config(backend)).run(main)


def test_a_host_that_had_flanneld_keeps_its_subnet(network):
    async def main(network):
        network.flanneld("10.244.7.0/24", "192.0.2.10", lease=0)
        lease = int(network.etcd.call("/v3/lease/grant", {"TTL": str(SECONDS)})["ID"])
        network.flanneld("10.244.8.0/24", "192.0.2.11", lease=lease)
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()

        assert paris.subnets == ["10.244.7.0/24"]
        assert tokyo.subnets == ["10.244.8.0/24"]
        await until(lambda: set(paris.sees()) == {"paris", "tokyo"})
        # A reservation, which has no lease, remains one.
        assert network.etcd.keys[lease_key("10.244.7.0/24")].lease == 0
        assert network.etcd.keys[lease_key("10.244.8.0/24")].lease not in {0, lease}

    network.run(main)


def test_a_lease_that_does_not_fit_the_config_is_deleted(network):
    async def main(network):
        network.flanneld("10.244.7.0/25", "192.0.2.10")
        paris = network.host("paris")
        await paris.start()

        assert paris.subnets != ["10.244.7.0/25"]
        assert "10.244.7.0-25" not in network.leases()

    network.run(main)


def test_subnets_of_others_are_not_taken(tmp_path):
    async def main(network):
        network.flanneld("10.244.1.0/24", "192.0.2.77")
        network.flanneld("10.244.2.0/25", "192.0.2.78")
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        assert paris.subnets == ["10.244.3.0/24"]

        await tokyo.launch()
        await settle()
        assert tokyo.state == "full"
        assert any("no subnet is free in 10.244.0.0/16" in note for note in tokyo.notes)

        network.delete(lease_key("10.244.1.0/24"))
        await tokyo.store.joined(tokyo.told.append)
        assert tokyo.subnets == ["10.244.1.0/24"]

    Network(tmp_path, config(SubnetMin="10.244.1.0", SubnetMax="10.244.3.0")).run(main)


def test_an_agent_that_starts_again_has_its_subnet_even_at_another_address(network):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        had = paris.subnets
        await paris.kill()
        paris.address = "192.0.2.99"
        await paris.start()

        await settle(15)
        assert paris.subnets == had
        assert [value["PublicIP"] for value in network.leases().values()] == ["192.0.2.99"]

    network.run(main)


def test_a_lease_that_was_deleted_is_claimed_again(network):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        [had] = paris.subnets
        network.delete(lease_key(had))

        await settle()
        assert paris.subnets == [had]
        assert paris.state == "held"
        assert had.replace("/", "-") in network.leases()

    network.run(main)


def test_a_subnet_that_another_took_is_lost_and_told(network):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        [had] = paris.subnets
        network.served.stop()
        network.delete(lease_key(had))
        network.flanneld(had, "192.0.2.77")
        network.served.start()

        await until(lambda: paris.state == "held" and paris.subnets != [had])
        assert paris.sees()["flannel-192.0.2.77"] == [had]
        assert any(f"{had} is not this host's any more" in note for note in paris.notes)

    network.run(main)


def test_of_two_agents_at_one_address_the_second_lets_it_be(network):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        await settle(100)
        tokyo = network.host("tokyo", address=paris.address)
        await tokyo.launch()

        await settle(30)
        assert (paris.state, tokyo.state) == ("held", "copy")
        assert any("somebody else holds the lease of 192.0.2.10" in note for note in tokyo.notes)
        assert len(network.leases()) == 1

    network.run(main)


@pytest.mark.slow
def test_leaving_gives_the_lease_back(network):
    async def main(network):
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        await until(lambda: "tokyo" in paris.sees())

        assert await tokyo.store.leave() is None
        await until(lambda: paris.sees().get("tokyo") == [])
        await settle(70)
        assert set(paris.sees()) == {"paris"}
        assert len(network.leases()) == 1

    network.run(main)


def test_the_table_stays_while_etcd_is_away_and_a_start_without_it_has_the_last_one(network):
    async def main(network):
        network.flanneld("10.244.7.0/24", "192.0.2.77")
        paris = network.host("paris")
        await paris.start()
        had = paris.sees()
        await until(lambda: list(paris.directory.glob("flannel-coreos.com%2Fnetwork-*.json")))
        network.served.stop()
        await settle(100)
        assert paris.sees() == had
        await paris.kill()
        await paris.start()

        assert paris.sees() == had
        assert any("when this host last ran stays in force" in note for note in paris.notes)

    network.run(main)


def test_leases_of_another_backend_and_what_is_no_lease_are_left_out_and_told(network):
    async def main(network):
        network.flanneld("10.244.7.0/24", "192.0.2.77", "vxlan")
        network.flanneld("10.245.7.0/24", "192.0.2.78")
        network.put(lease_key("10.244.209.0/24"), b"{")
        network.put(KEYS.prefix + b"subnets/notes", b"{}")
        network.put(KEYS.prefix + b"overlay/notes", b"{")
        network.flanneld("10.244.8.0/24", "192.0.2.79")
        paris = network.host("paris")
        await paris.start()

        assert set(paris.sees()) == {"paris", "flannel-192.0.2.79"}
        assert paris.store.standing().left_out == 4
        notes = "\n".join(paris.notes)
        assert "the lease of 10.244.7.0/24 (192.0.2.77) is left out: its backend is vxlan" in notes
        assert "the lease of 10.245.7.0/24 (192.0.2.78) is left out: it is not in Network" in notes
        assert "10.244.209.0-24 is left out: it is not JSON" in notes
        assert "subnets/notes is left out: its key is not a subnet" in notes

    network.run(main)


def test_a_host_that_no_table_can_have_harms_no_other(tmp_path):
    async def main(network):
        network.flanneld("10.244.7.0/24", "192.0.2.77", "vxlan")
        network.flanneld("10.244.8.0/24", "192.0.2.78", "vxlan")  # with the same Ethernet address
        paris = network.host("paris")
        await paris.start()

        assert set(paris.sees()) == {"paris", "flannel-192.0.2.77"}
        said = "the lease of 10.244.8.0/24 (192.0.2.78) is left out: its VtepMAC is also that of 192.0.2.77"
        assert said in paris.notes

    Network(tmp_path, config("vxlan")).run(main)


def test_a_wrong_config_keeps_the_last_good_one_in_force(network):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        had = paris.sees()
        network.put(KEYS.config, b'{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}')
        await settle()
        assert paris.sees() == had
        assert any("Backend.Type is 'host-gw'" in note for note in paris.notes)
        network.delete(KEYS.config)
        await settle()
        assert paris.sees() == had
        assert any("is gone; write flannel's config there again" in note for note in paris.notes)

    network.run(main)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "there is no network of flannel's at flannel+etcd://10.0.0.5:2379/coreos.com/network"),
        (b"{", "/coreos.com/network/config: it is not JSON"),
        (config("host-gw"), "Backend.Type is 'host-gw'"),
    ],
)
def test_a_host_does_not_join_where_a_person_has_to_act(tmp_path, value, sentence):
    async def main(network):
        paris = network.host("paris")
        with pytest.raises(StoreError, match=re.escape(sentence)):
            await paris.start()

    Network(tmp_path, value).run(main)


def test_a_port_of_wireguard_and_an_address_may_be_named(tmp_path):
    async def main(network):
        paris = network.host("paris", endpoint="198.51.100.7:4500")
        await paris.start()

        [written] = network.leases().values()
        assert written["PublicIP"] == "198.51.100.7"
        assert written["BackendData"]["Port"] == 4500

    Network(tmp_path, config("wireguard")).run(main)


def test_flannels_wireguard_port_is_that_of_agents(tmp_path):
    async def main(network):
        paris = network.host("paris")
        await paris.start()

        assert json.dumps(network.leases()).count("51999") == 2
        assert paris.table().network.ports["wireguard"] == 51999

    Network(tmp_path, config("wireguard", options={"ListenPort": 51999})).run(main)


def test_a_lease_that_ended_while_etcd_was_away_is_had_anew(network):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        [had] = paris.subnets
        before = network.etcd.keys[lease_key(had)].lease
        network.served.stop()
        network.etcd._end(before)
        network.served.start()

        await until(lambda: lease_key(had) in network.etcd.keys and paris.state == "held")
        assert network.etcd.keys[lease_key(had)].lease != before
        assert paris.subnets == [had]

    network.run(main)


def test_an_agent_whose_lease_is_handed_over_stays_a_peer(network):
    async def main(network):
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        [had] = tokyo.subnets
        await until(lambda: paris.sees().get("tokyo") == [had])
        key = paris.table().peers["tokyo"].public_key
        await tokyo.kill()
        value = network.etcd.keys[lease_key(had)].value
        network.delete(lease_key(had))
        await until(lambda: paris.sees().get("tokyo") == [])
        assert paris.table().peers["tokyo"].public_key == key
        network.put(lease_key(had), value)

        await until(lambda: paris.sees().get("tokyo") == [had])

    network.run(main)


def test_another_etcd_is_not_followed_until_somebody_says_so(network):
    async def main(network):
        network.flanneld("10.244.7.0/24", "192.0.2.77")
        paris = network.host("paris")
        await paris.start()
        had = paris.sees()
        network.served.stop()
        network.etcd.cluster = 7
        network.etcd.delete(lease_key("10.244.7.0/24"))
        network.served.start()
        await settle(60)
        assert paris.sees() == had
        assert any("it is another cluster" in note for note in paris.notes)
        assert "it is another cluster" in paris.store.accept()

        await until(lambda: set(paris.sees()) == {"paris"})

    network.run(main)


def test_leases_that_changed_while_etcd_forgot_are_known_after_a_listing(network):
    async def main(network):
        network.flanneld("10.244.7.0/24", "192.0.2.77")
        paris = network.host("paris")
        await paris.start()
        network.served.stop()
        network.etcd.delete(lease_key("10.244.7.0/24"))
        network.flanneld("10.244.208.0/24", "192.0.2.78")
        network.etcd._compact({"revision": str(network.etcd.revision)})
        network.served.restart()

        await until(lambda: set(paris.sees()) == {"paris", "flannel-192.0.2.78"})
        assert paris.state == "held"

    network.run(main)


# Another key


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_key_is_replaced_in_the_lease_and_the_subnet_stays(tmp_path, backend):
    async def main(network):
        old, new = key("paris"), key("paris, later")
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        await until(lambda: "paris" in tokyo.sees())
        before = tokyo.sees()

        paris.use_keys(old, new)
        await until(lambda: tokyo.table().peers["paris"].public_key == new)

        written = network.leases()[paris.subnets[0].replace("/", "-")]
        assert written["Overlay"]["PublicKey"] == format_public_key(new)
        if backend == "wireguard":
            assert written["BackendData"]["PublicKey"] == format_public_key(new)
        await until(
            lambda: paris.store.key_delay() is None and paris.table().peers["paris"].public_key == new
        )
        assert paris.notes == []

        paris.use_keys(old)
        assert paris.table().peers["paris"].public_key == old
        await until(lambda: tokyo.table().peers["paris"].public_key == old)
        paris.use_keys(old, new)
        await until(lambda: tokyo.table().peers["paris"].public_key == new)
        paris.use_keys(new)
        await until(lambda: "OtherKey" not in str(network.leases()))
        await until(lambda: (tokyo.sees(), paris.sees(), paris.state) == (before, before, "held"))

    Network(tmp_path, config(backend)).run(main)


@pytest.mark.parametrize("left", ["both", "new", "old"])
def test_killed_agent_finds_its_lease_by_whatever_keys_it_has_then_at_another_address(tmp_path, left):
    async def main(network):
        old, new = key("paris"), key("paris, later")
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        paris.use_keys(old, new)
        await until(lambda: "paris" in tokyo.sees() and tokyo.table().peers["paris"].public_key == new)
        before = tokyo.sees()
        await paris.kill()

        paris.use_keys(*{"both": (old, new), "new": (new,), "old": (old,)}[left])
        paris.address = "192.0.2.99"  # so that it is only known by the key
        await paris.start()
        told = old if left == "old" else new
        await until(lambda: tokyo.table().peers["paris"].public_key == told)
        await until(lambda: tokyo.table().peers["paris"].endpoint.host == "192.0.2.99")

        await until(lambda: tokyo.sees() == paris.sees() == before)

    Network(tmp_path, config("wireguard")).run(main)
