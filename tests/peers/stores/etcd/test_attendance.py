"""Whole hosts with an etcd in memory: what must happen when something fails, row by row."""

from __future__ import annotations

import base64
import gc
import logging
import os
import shlex

import pytest
import trio

from peers.addresses import parse_prefix
from peers.errors import StoreError
from peers.peer import format_public_key
from peers.stores.etcd.layout import NodeValue, Reservation
from peers.stores.etcd.messages import GatewayError
from peers.stores.etcd.signatures import SigningKey, sign_document, vouch
from tests.peers.stores.etcd.network import DOCUMENT, KEYS, URL, Network, key, on_disk, settle, until


@pytest.fixture
def network(tmp_path):
    return Network(tmp_path)


@pytest.mark.slow
def test_hosts_find_each_other_and_one_that_leaves_is_gone(network):
    async def main(network):
        paris, tokyo, oslo = (network.host(name) for name in ("paris", "tokyo", "oslo"))
        for host in (paris, tokyo, oslo):
            await host.start()
        await settle()
        assert len({tuple(host.subnets) for host in (paris, tokyo, oslo)}) == 3
        assert paris.sees() == tokyo.sees() == oslo.sees() | {}
        assert paris.sees()["oslo"] == oslo.subnets
        assert str(paris.table().peers["tokyo"].endpoint) == "192.0.2.2:51820"

        assert await oslo.store.leave() is None
        await settle()
        assert paris.sees()["oslo"] == []  # its session remains for a minute, its route does not
        await settle(65)
        assert set(paris.sees()) == {"paris", "tokyo"}

    network.run(main)


class Turns(trio.abc.Instrument):
    """Records how many nodes are read before other tasks get their turn."""

    def __init__(self):
        self.read, self.turns = 0, []

    def note(self, node):
        self.read += 1
        return node

    def before_io_wait(self, timeout):
        self.turns.append(self.read)
        self.read = 0


def test_other_tasks_have_their_turn_while_many_keys_are_read(network, monkeypatch):
    monkeypatch.setattr("peers.stores.etcd.slices.SLICE", 10)
    turns, parse = Turns(), NodeValue.parse
    collects = []

    def note(name, value):
        collects.append(gc.isenabled())
        return turns.note(parse(name, value))

    monkeypatch.setattr(NodeValue, "parse", note)

    async def main(network):
        for number in range(200):
            subnet = parse_prefix(f"10.244.{number}.0/24")
            node = NodeValue(f"many{number}", key(f"many{number}"), (subnet,), f"{number:032}")
            network.etcd.put(KEYS.node(subnet), node.build())
        trio.lowlevel.add_instrument(turns)
        paris = network.host("paris")
        await paris.start()
        assert len(paris.sees()) == 201

    network.run(main)
    assert sum(turns.turns) >= 200
    assert max(turns.turns) <= 20
    assert not any(collects)  # a garbage collection that visits all of them takes one long turn


# etcd away


@pytest.mark.slow
def test_etcd_away_later_changes_nothing_however_long(network):
    async def main(network):
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        await settle()
        before = paris.sees()

        network.served.stop()
        await settle(600)

        assert paris.sees() == before
        assert paris.state == "held"
        assert paris.store.standing().silent > 550
        assert any(
            "cannot be reached: Connection refused" in note and "stays in force" in note
            for note in paris.notes
        )
        network.served.restart()
        await until(lambda: paris.store.standing().silent is None)
        assert paris.sees() == before
        assert paris.notes == []

    network.run(main)


def test_silent_etcd_is_noticed_though_its_connections_stay(network):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        network.served.is_silent = True
        await settle(60)

        assert paris.store.standing().silent is not None
        assert paris.sees() == {"paris": paris.subnets}

        network.served.is_silent = False
        await until(lambda: paris.store.standing().silent is None)

    network.run(main)


def test_etcd_that_the_tunnel_hides_is_told_of_while_it_is_silent(tmp_path):
    network = Network(tmp_path, '[network]\nprefix = ["fd00::/16", "10.0.0.0/8"]\n')  # etcd is at 10.0.0.5

    async def main(network):
        paris = network.host("paris")
        await paris.start()
        assert paris.notes == []

        network.served.stop()
        await settle(60)

        assert any(
            "etcd at 10.0.0.5 has an address of the network 10.0.0.0/8" in note for note in paris.notes
        )

    network.run(main)


def test_start_while_etcd_is_away_uses_what_was_known(network):
    async def main(network):
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        await settle(5)
        before = paris.sees()
        await paris.saved()
        await paris.kill()
        network.served.stop()

        await paris.start()

        assert paris.sees() == before
        standing = paris.store.standing()
        assert (standing.is_saved, standing.state) == (True, "lost")
        assert standing.silent is not None
        assert any("that was in force when this host last ran stays in force" in note for note in paris.notes)
        network.served.restart()
        await until(lambda: paris.state == "held")
        assert paris.sees() == before
        assert paris.notes == []

    network.run(main)


def test_host_whose_start_fails_right_after_joining_has_the_same_subnet_again(network):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        had = paris.subnets
        await paris.kill()
        await on_disk(lambda: list(paris.directory.glob("office-*.json")))
        await settle(100)  # its lease ends
        network.served.delete(KEYS.node(parse_prefix(had[0])))
        await paris.start()
        assert paris.subnets == had

    network.run(main)


def test_start_without_etcd_and_without_anything_known_waits_and_says_why(network):
    async def main(network):
        network.served.stop()
        paris = network.host("paris")
        await paris.launch()
        with trio.move_on_after(30) as scope:
            await paris.store.joined(paris.told.append)
        assert scope.cancelled_caught
        assert paris.told == [
            "etcd at 10.0.0.5:2379 cannot be reached: Connection refused; see that it runs and that this host may reach it"
        ]

        network.served.start()
        await paris.store.joined(paris.told.append)
        assert paris.subnets

    network.run(main)


def test_subnet_that_was_held_days_ago_is_not_used_without_asking(network):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        await settle(5)
        had = paris.subnets
        file = await paris.saved()
        await paris.kill()
        network.served.stop()
        assert file.stat().st_mode & 0o777 == 0o600
        os.utime(file, (1.6e9, 1.6e9))

        await paris.start()

        assert paris.sees() == {"paris": []}
        network.served.restart()
        await until(lambda: paris.subnets == had)  # it is requested before any other

    network.run(main)


def test_disk_that_keeps_nothing_is_told_until_it_does(network):
    def is_told(host):
        return any("cannot be kept" in note for note in host.notes)

    async def main(network):
        paris = network.host("paris")
        paris.directory.write_text("a file in the place of the directory")
        await paris.start()
        await on_disk(lambda: is_told(paris))

        paris.directory.unlink()
        await paris.saved()

        await on_disk(lambda: not is_told(paris))

    network.run(main)


@pytest.mark.parametrize("garbage", ["", "{}", "[1]", '{"format":1,"keys":[["a"]]}', "\0" * 100])
def test_garbage_on_disk_is_nothing_known(network, garbage):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        file = await paris.saved()
        await paris.kill()
        file.write_text(garbage)

        await paris.start()
        assert paris.subnets

    network.run(main)


# The lease


@pytest.mark.slow
def test_lease_that_ended_is_had_anew_with_the_same_subnet(network):
    async def main(network):
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        await settle()
        had = paris.subnets

        network.served.is_silent = True
        await settle(120)
        network.served._tick()
        network.served.etcd.expire()
        assert not [name for name in network.served.etcd.keys if b"nodes/" in name]
        network.served.is_silent = False

        await until(lambda: paris.state == "held" and tokyo.sees().get("paris") == had)
        assert paris.subnets == had

    network.run(main)


def test_own_key_that_an_administrator_deleted_is_written_again(network):
    async def main(network):
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        await settle()
        had = paris.subnets

        network.served.delete(KEYS / f"nodes/{had[0].replace('/', '-')}")
        await settle(3)

        assert paris.subnets == had
        assert tokyo.sees()["paris"] == had

    network.run(main)


def test_table_has_the_own_subnet_while_it_is_claimed_again(network):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        await settle()
        had, seen = paris.subnets, []
        network.served.delete(KEYS / f"nodes/{had[0].replace('/', '-')}")
        for _ in range(30):
            seen.append(paris.sees()["paris"])
            await trio.sleep(0.1)
        assert set(map(tuple, seen)) == {tuple(had)}

    network.run(main)


def value(name, subnet, instance="0" * 32, public_key=None):

    return NodeValue(
        name, public_key or key(name), (parse_prefix(subnet),), instance, ("192.0.2.99",)
    ).build()


def test_subnet_that_another_has_now_is_left_to_it_and_a_second_one_taken(network):
    async def main(network):
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        await settle()
        (had,) = paris.subnets
        network.served.etcd.delete(KEYS / f"nodes/{had.replace('/', '-')}")
        network.served.put(KEYS / f"nodes/{had.replace('/', '-')}", value("oslo", had))
        await settle(5)

        assert paris.state == "held"
        assert paris.subnets != [had]
        assert [str(each) for each in paris.store.standing().lost] == [had]
        assert any(f"{had} is not this host's any more, and what runs here" in note for note in paris.notes)
        assert tokyo.sees() == paris.sees()
        assert tokyo.sees()["oslo"] == [had]

    network.run(main)


def test_full_prefix_is_said_and_waited_for(tmp_path):
    network = Network(tmp_path, '[network]\nprefix = "10.244.0.0/23"\n')

    async def main(network):
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        assert paris.subnets == ["10.244.1.0/24"]  # the first one has the network's address
        await tokyo.launch()
        with trio.move_on_after(30):
            await tokyo.store.joined(tokyo.told.append)
        (said,) = tokyo.told
        assert said.startswith(
            "no subnet is free in 10.244.0.0/23: release one with `overlay network release --peers etcd:"
        )
        assert tokyo.state == "full"
        await paris.store.leave()
        await tokyo.store.joined(tokyo.told.append)
        assert tokyo.subnets == ["10.244.1.0/24"]

    network.run(main)


def test_subnet_is_kept_for_whom_it_is_reserved(network):

    async def main(network):
        subnet = parse_prefix("10.244.200.0/24")
        network.served.put(KEYS.reserved(subnet), Reservation(subnet, "tokyo").build())
        tokyo = network.host("tokyo")
        await tokyo.start()
        assert tokyo.subnets == ["10.244.200.0/24"]

    network.run(main)


# Copies and restarts


@pytest.mark.slow
def test_killed_agent_takes_its_key_over_at_once(network):
    async def main(network):
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        await settle(5)
        had = paris.subnets
        await paris.kill()
        await paris.start()
        assert paris.subnets == had
        await settle(200)  # the lease of the killed one ends
        assert tokyo.sees()["paris"] == had

    network.run(main)


def test_copy_of_a_host_leaves_the_subnet_to_the_one_that_had_it(network, caplog):
    async def main(network):
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        await settle(100)
        had = paris.subnets
        copy = network.host("copy", public_key=key("paris"))
        await copy.launch()
        with trio.move_on_after(60):
            await copy.store.joined(copy.told.append)
        await settle(60)

        assert paris.subnets == had
        assert paris.state == "held"
        assert copy.state == "copy"
        assert any("another host takes part with the private key of this one" in note for note in copy.notes)
        assert tokyo.sees()["paris"] == had
        await paris.store.leave()
        await paris.kill()
        await until(lambda: copy.state == "held")

    with caplog.at_level(logging.WARNING):
        network.run(main)


# Histories


def test_compaction_is_followed_by_a_listing(network):
    async def main(network):
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        await settle()
        network.served.stop()
        network.served.etcd.put(KEYS / "nodes/10.244.177.0-24", value("oslo", "10.244.177.0/24"))
        network.served.etcd.put(KEYS / "nodes/10.244.178.0-24", value("rome", "10.244.178.0/24"))
        network.served.etcd.delete(KEYS / "nodes/10.244.178.0-24")
        network.served.etcd._compact({"revision": str(network.served.etcd.revision)})
        network.served.restart()
        await until(lambda: "oslo" in paris.sees() and paris.state == "held")
        assert set(paris.sees()) == {"paris", "tokyo", "oslo"}

    network.run(main)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["cluster", "revision", "rewritten"])
def test_etcd_with_another_past_is_not_followed_until_somebody_says_so(network, change):
    said = {
        "cluster": "it is another cluster",
        "revision": "its revision went back from",
        "rewritten": "is not as it was at revision",
    }[change]

    async def main(network):
        backup = network.served.etcd.backup()
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        await settle(5)
        before = paris.sees()
        network.served.stop()
        if change == "cluster":
            backup.cluster, backup.revision = 7, 1000
        if change == "rewritten":
            backup.put(KEYS / "nodes/10.244.177.0-24", value("oslo", "10.244.177.0/24"))
            backup.put(KEYS.config, DOCUMENT.encode() + b"# other\n")
            for _ in range(50):
                backup.put(b"/else", b"")
        network.served.etcd = backup
        network.served.restart()
        await settle(60)

        assert paris.sees() == before
        assert any(said in note and "run `overlay network accept`" in note for note in paris.notes), (
            paris.notes
        )
        calls = len(network.served.etcd.calls)
        await settle(600)
        assert paris.sees() == before
        assert not {"/v3/kv/put", "/v3/lease/grant"} & set(network.served.etcd.calls[calls:])

        for host in (paris, tokyo):
            assert said in host.store.accept()
        await until(lambda: paris.state == "held" and tokyo.state == "held" and paris.notes == [])
        await settle(3)
        assert paris.subnets == before["paris"]
        assert tokyo.subnets == before["tokyo"]
        assert paris.store.accept() is None

    network.run(main)


def test_another_past_is_noticed_at_a_start_too(network):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        await settle(5)
        before = paris.sees()
        await paris.saved()
        await paris.kill()
        network.served.etcd.cluster = 7
        await paris.start()
        assert paris.sees() == before
        await settle(60)
        assert any("another cluster" in note for note in paris.notes)

    network.run(main)


# The document


def test_document_that_is_wrong_keeps_nodes_from_nothing(network):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        await settle()
        network.served.put(KEYS.config, DOCUMENT.encode() + b"colour = 1\n")
        tokyo = network.host("tokyo")
        await settle()
        assert any("colour is not known" in note and "stays in force" in note for note in paris.notes)
        network.served.put(KEYS / "nodes/10.244.177.0-24", value("oslo", "10.244.177.0/24"))
        await settle()
        assert "oslo" in paris.sees()
        network.served.put(KEYS.config, DOCUMENT.encode() + b"mtu = 1400\n")
        await settle()
        assert paris.table().network.mtu == 1400
        assert paris.notes == []
        await tokyo.start()

    network.run(main)


def test_document_that_contradicts_nodes_keeps_them_from_nothing(network):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        await settle()
        wrong = DOCUMENT + '[peers.phone]\npublic_key = "' + "A" * 43 + '="\n'
        network.served.put(KEYS.config, wrong.replace("A" * 43, "B" * 42 + "A").encode())
        await settle()
        assert set(paris.sees()) == {"paris"}
        assert any("peers.phone has neither subnets nor an address" in note for note in paris.notes)

    network.run(main)


def test_network_that_nobody_created_is_an_error(tmp_path):
    network = Network(tmp_path, None)

    async def main(network):
        paris = network.host("paris")
        with pytest.raises(StoreError, match=r"there is no network office at .*overlay network create"):
            await paris.start()

    network.run(main)


def test_login_that_is_refused_is_an_error(tmp_path):
    network = Network(tmp_path)
    network.served.password = ("ann", "secret")

    async def main(network):
        with pytest.raises(GatewayError, match="asks for a login"):
            await network.host("paris").start()

    network.run(main)


def test_host_that_may_not_write_says_so_once_and_hears_of_the_others(network, caplog):
    """Before, it took etcd for silent, aborted its watch, and wrote two lines into the log every few seconds."""
    network.served.forbids = True

    async def main(network):
        paris = network.host("paris")
        await paris.launch()
        await until(lambda: any("does not permit this host to do that" in note for note in paris.notes))
        watches = network.served.etcd.calls.count("/v3/watch")
        written = network.served.etcd.calls.count("/v3/kv/txn")
        network.served.put(KEYS / "nodes/10.244.177.0-24", value("oslo", "10.244.177.0/24"))

        await settle(60)

        assert "oslo" in paris.sees()
        assert paris.store.standing().silent is None
        assert network.served.etcd.calls.count("/v3/watch") == watches
        assert network.served.etcd.calls.count("/v3/kv/txn") - written < 20
        network.served.forbids = False
        await until(lambda: paris.state == "held")
        assert paris.notes == []

    with caplog.at_level(logging.INFO):
        network.run(main)
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


def test_host_that_the_document_lists_needs_no_lease(tmp_path):

    text = f'[peers.router]\npublic_key = "{format_public_key(key("paris"))}"\nsubnets = ["10.244.9.0/24"]\n'
    network = Network(tmp_path, DOCUMENT + text)

    async def main(network):
        paris = network.host("paris")
        await paris.start()
        assert paris.state == "listed"
        assert paris.sees() == {"router": ["10.244.9.0/24"]}
        assert not network.served.etcd.leases

    network.run(main)


def test_service_goes_on_while_one_of_its_servers_is_away(tmp_path):
    text = (
        '[services.web]\naddress = "10.244.0.80"\nports = 80\nservers = ["web1", "web2"]\ndirectors = "all"\n'
    )
    network = Network(tmp_path, DOCUMENT + text)

    async def main(network):
        one, two = network.host("web1"), network.host("web2")
        await one.start()
        assert set(one.sees()) == {"web1", "web2"}
        assert one.sees()["web2"] == []
        await two.start()
        await settle()
        assert one.sees()["web2"] == two.subnets
        await two.store.leave()
        await two.kill()
        await settle(70)
        assert one.sees()["web2"] == []
        assert one.notes == []

    network.run(main)


def test_two_hosts_of_one_name_are_told_apart(network):
    async def main(network):
        first = network.host("paris")
        second = network.host("paris", public_key=key("other"))
        await first.start()
        await second.start()
        await settle(15)
        (other,) = second.subnets
        name = f"paris-{other.removesuffix('/24')}"
        assert first.sees() == {"paris": first.subnets, name: second.subnets}

    network.run(main)


# Signed networks


@pytest.fixture
def signed(tmp_path):
    admin = SigningKey(b"\x01" * 32)
    network = Network(tmp_path)
    network.admin = admin
    network.url = f"{URL}?admin-key={base64.b64encode(admin.public).decode()}"
    network.served.etcd.put(KEYS.signature, sign_document(admin, "office", 5, DOCUMENT))
    return network


def commands(note):
    """Return the words of the commands in a note, split as by a shell."""
    return [shlex.split(command) for command in note.split("`")[1::2]]


def enroll(network, name, subnet=None, as_name=None):
    given = None if subnet is None else parse_prefix(subnet)
    network.served.put(
        KEYS.vouched(key(name)), vouch(network.admin, "office", key(name), as_name or name, given)
    )


def test_host_that_nobody_vouches_for_waits_and_is_absent_elsewhere(signed):
    async def main(network):
        paris, tokyo = network.host("paris", url=network.url), network.host("tokyo", url=network.url)
        enroll(network, "paris")
        await paris.start()
        await tokyo.launch()
        with trio.move_on_after(30):
            await tokyo.store.joined(tokyo.told.append)
        assert tokyo.state == "unvouched"
        assert commands(tokyo.told[0]) == [
            [
                "overlay",
                "network",
                "enroll",
                "--peers",
                f"etcd:{network.url}",
                format_public_key(key("tokyo")),
            ],
            [
                *("overlay", "network", "enroll", "--peers", f"etcd:{network.url}"),
                *("--token", "FILE", "--key", "/keys/own.key", "--node", "tokyo"),
            ],
        ]
        assert set(paris.sees()) == {"paris"}
        (note,) = paris.notes
        assert note.startswith("the node tokyo (")
        assert "is left out: its public key is not enrolled: if it is to take part, run" in note
        assert commands(note) == [
            [
                *("overlay", "network", "enroll", "--peers", f"etcd:{network.url}"),
                *(format_public_key(key("tokyo")), "--node", "tokyo"),
            ]
        ]

        enroll(network, "tokyo")
        await tokyo.store.joined(tokyo.told.append)
        await settle()
        assert paris.sees() == {"paris": paris.subnets, "tokyo": tokyo.subnets}
        assert paris.notes == []

    signed.run(main)


def test_host_that_was_never_vouched_for_waits_while_etcd_is_away_too(signed):
    async def main(network):
        paris, tokyo = (network.host(name, url=network.url) for name in ("paris", "tokyo"))
        enroll(network, "paris")
        await paris.start()
        await paris.saved()
        await tokyo.launch()
        with trio.move_on_after(30):
            await tokyo.store.joined(tokyo.told.append)
        assert tokyo.state == "unvouched"
        await tokyo.kill()
        await paris.kill()
        network.served.stop()

        await paris.start()
        await tokyo.launch()
        with trio.move_on_after(30) as waiting:
            await tokyo.store.joined(tokyo.told.append)

        assert waiting.cancelled_caught
        assert list(tokyo.directory.glob("office-*.json")) == []

    signed.run(main)


def test_host_takes_the_subnet_that_it_is_vouched_for_with(signed):
    async def main(network):
        tokyo = network.host("tokyo", url=network.url)
        enroll(network, "tokyo", "10.244.207.0/24")
        await tokyo.start()
        assert tokyo.subnets == ["10.244.207.0/24"]
        assert tokyo.notes == tokyo.told == []

    signed.run(main)


def test_host_moves_to_the_subnet_that_it_is_vouched_for_with_later(signed):
    async def main(network):
        paris, tokyo = network.host("paris", url=network.url), network.host("tokyo", url=network.url)
        enroll(network, "paris")
        await paris.start()
        await tokyo.launch()
        await until(lambda: tokyo.state == "unvouched")

        enroll(network, "tokyo", "10.244.207.0/24")
        await tokyo.store.joined(tokyo.told.append)
        assert tokyo.subnets == ["10.244.207.0/24"]
        await until(lambda: paris.sees() == {"paris": paris.subnets, "tokyo": ["10.244.207.0/24"]})
        assert paris.notes == tokyo.notes == []

    signed.run(main)


def test_subnet_of_a_vouched_host_that_is_reserved_for_it_is_taken(signed):
    async def main(network):
        tokyo = network.host("tokyo", url=network.url)
        subnet = parse_prefix("10.244.207.0/24")
        network.served.put(KEYS.reserved(subnet), Reservation(subnet, "rome").build())
        enroll(network, "tokyo", "10.244.207.0/24")
        await tokyo.launch()
        await until(lambda: tokyo.state == "taken")
        assert "with 10.244.207.0/24, which is reserved for rome:" in tokyo.notes[0]

        network.served.put(KEYS.reserved(subnet), Reservation(subnet, "tokyo").build())
        await tokyo.store.joined(tokyo.told.append)
        assert tokyo.subnets == ["10.244.207.0/24"]

    signed.run(main)


def test_host_that_is_vouched_for_with_the_subnet_of_another_says_whose_it_is(signed):
    async def main(network):
        paris, tokyo = network.host("paris", url=network.url), network.host("tokyo", url=network.url)
        enroll(network, "paris", "10.244.207.0/24")
        await paris.start()
        enroll(network, "tokyo", "10.244.207.0/24")
        with trio.move_on_after(30):
            await tokyo.start()
        assert tokyo.state == "taken"
        (said,) = tokyo.told
        assert said.startswith(
            "this host is enrolled in office with 10.244.207.0/24, which the node paris has: see `overlay network show "
        )
        assert commands(said)[2][-2:] == [f"etcd:{network.url}", "10.244.207.0/24"]

        await paris.store.leave()
        await tokyo.store.joined(tokyo.told.append)
        assert tokyo.subnets == ["10.244.207.0/24"]

    signed.run(main)


def test_member_that_is_vouched_for_with_another_subnet_moves_and_tells_of_the_former(signed):
    async def main(network):
        paris = network.host("paris", url=network.url)
        enroll(network, "paris")
        await paris.start()
        (had,) = paris.subnets
        enroll(network, "paris", "10.244.207.0/24")
        await until(lambda: paris.subnets == ["10.244.207.0/24"])
        assert paris.state == "held"
        assert paris.notes[0].startswith(f"{had} is not this host's any more, and")
        nodes = [each for each in network.served.etcd.keys if b"/nodes/" in each]
        assert nodes == [KEYS.node(parse_prefix("10.244.207.0/24"))]

    signed.run(main)


def test_host_that_is_vouched_for_by_another_name_says_so(signed):
    async def main(network):
        tokyo = network.host("tokyo", url=network.url)
        enroll(network, "tokyo", as_name="kyoto")
        with trio.move_on_after(30):
            await tokyo.start()
        (said,) = tokyo.told
        assert "which is this host, out, because its public key is enrolled as kyoto: run " in said

    signed.run(main)


def test_nodes_that_nobody_vouches_for_move_nobody(signed):
    async def main(network):
        paris = network.host("paris", url=network.url)
        enroll(network, "paris")
        await paris.start()
        await settle(100)
        had = paris.subnets
        written = {kv.version for kv in network.served.etcd.keys.values() if b"nodes" in kv.key}
        network.served.delete(KEYS.vouched(key("paris")))
        await settle(100)
        assert paris.state == "unvouched"
        assert paris.sees() == {"paris": had}
        assert {kv.version for kv in network.served.etcd.keys.values() if b"nodes" in kv.key} == written

    signed.run(main)


def test_document_without_the_administrators_signature_is_not_taken(signed):
    async def main(network):
        paris = network.host("paris", url=network.url)
        enroll(network, "paris")
        await paris.start()
        evil = DOCUMENT + "mtu = 1300\n"
        network.served.put(KEYS.config, evil.encode())
        await settle()
        assert paris.table().network.mtu is None
        assert any("is not to be trusted" in note for note in paris.notes)

        network.served.put(KEYS.signature, sign_document(network.admin, "office", 6, evil))
        await settle(5)
        assert paris.table().network.mtu == 1300
        assert paris.notes == []

        network.served.put(KEYS.config, DOCUMENT.encode())
        network.served.put(KEYS.signature, sign_document(network.admin, "office", 5, DOCUMENT))
        await settle()
        assert paris.table().network.mtu == 1300  # what was in force before is not accepted again
        await paris.saved()
        await paris.kill()
        with pytest.raises(StoreError, match="it is an earlier one"):
            await paris.start()  # nor after a start

    signed.run(main)


def test_host_whose_address_changed_says_so_when_it_is_back(network):
    async def main(network):
        paris, tokyo = network.host("paris"), network.host("tokyo")
        paris.address = "192.0.2.77"
        await paris.start()
        await tokyo.start()
        await settle()
        assert str(tokyo.table().peers["paris"].endpoint) == "192.0.2.77:51820"

        paris.address = "192.0.2.78"
        network.served.restart()
        await until(lambda: str(tokyo.table().peers["paris"].endpoint) == "192.0.2.78:51820")
        assert paris.sees()["paris"] == paris.subnets
        paris.address = "10.244.0.9"  # an address on the overlay itself is none for others
        network.served.restart()
        await settle(60)
        assert str(tokyo.table().peers["paris"].endpoint) == "192.0.2.78:51820"

    network.run(main)


@pytest.mark.parametrize(
    ("subnet", "endpoint", "encapsulation", "said"),
    [
        ("10.244.177.0/24", "10.244.177.5", None, "lies inside its own subnet"),
        ("10.244.177.0/24", None, "udp", "endpoint is missing"),
        ("10.244.177.0/24", "192.0.2.1:99", "ipip", "has a port, and ipip has none"),
        ("0.0.0.0/0", "192.0.2.1", None, "0.0.0.0/0 is not in the network's prefix"),
        ("192.168.0.0/16", "192.0.2.1", None, "192.168.0.0/16 is not in the network's prefix"),
    ],
)
def test_node_that_no_table_can_be_made_with_harms_nobody_else(
    network, subnet, endpoint, encapsulation, said
):
    async def main(network):
        paris = network.host("paris")
        await paris.start()
        prefix = parse_prefix(subnet)
        endpoints = (endpoint,) if endpoint else ()
        wrong = NodeValue("wrong", key("wrong"), (prefix,), "0" * 32, endpoints, encapsulation)
        network.served.put(KEYS.node(prefix), wrong.build())
        await settle()
        tokyo = network.host("tokyo")
        await tokyo.start()
        await settle()

        assert paris.sees() == tokyo.sees() == {"paris": paris.subnets, "tokyo": tokyo.subnets}
        assert any("the node wrong" in note and said in note for note in paris.notes), paris.notes
        network.served.delete(KEYS.node(prefix))
        await settle(65)
        paris.sees()
        assert paris.notes == []

    network.run(main)


@pytest.mark.slow
def test_very_many_nodes_that_no_table_can_be_made_with_harm_nobody_else(network):
    """Before, each caused a reading of the whole, and after a thousand of them no table was made any more."""

    async def main(network):
        for number in range(1200):
            prefix = parse_prefix(f"10.244.{number >> 4}.{(number & 15) << 4}/28")
            wrong = NodeValue(f"n{number}", key(f"n{number}"), (prefix,), "0" * 32, ("192.0.2.1:99",), "ipip")
            network.served.put(KEYS.node(prefix), wrong.build())
        paris = network.host("paris")
        await paris.start()
        assert paris.sees() == {"paris": paris.subnets}
        assert "and 1195 more are left out" in paris.notes

    network.run(main)


def test_network_that_somebody_deletes_as_a_whole_stays_in_force(network):
    async def main(network):
        paris, tokyo = network.host("paris"), network.host("tokyo")
        await paris.start()
        await tokyo.start()
        await settle()
        before = paris.sees()
        for name in list(network.served.etcd.keys):
            network.served.etcd.delete(name)
        network.served.tell()
        await settle(200)
        assert paris.sees() == before
        assert any("/overlay/office/config is gone" in note for note in paris.notes)

        network.served.put(KEYS.config, DOCUMENT.encode())
        await until(lambda: paris.notes == [] and len(network.served.etcd.keys) == 3)
        await settle()
        assert paris.state == tokyo.state == "held"
        assert paris.sees() == tokyo.sees() == before

    network.run(main)
