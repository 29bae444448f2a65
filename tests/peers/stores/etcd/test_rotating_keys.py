"""A host in etcd whose key is replaced: what others learn when, and what is left after an interruption."""

from __future__ import annotations

import base64
import json
import shlex

import pytest
import trio

from peers.addresses import parse_prefix
from peers.peer import format_public_key
from peers.stores.etcd.layout import NodeValue, Reservation
from peers.stores.etcd.signatures import JoinToken, SigningKey, sign_document, vouch, vouch_by_token
from peers.stores.membership import AttendedStore
from tests.peers.stores.etcd.network import DOCUMENT, KEYS, URL, Network, key, on_disk, settle, until

OLD, NEW = key("paris"), key("paris, later")
ADMIN = SigningKey(b"\x07" * 32)
SIGNED = f"{URL}?admin-key={base64.b64encode(ADMIN.public).decode()}"


@pytest.fixture
def network(tmp_path):
    return Network(tmp_path)


async def joined(network, **options):
    """Return two hosts that have joined, the first of which is to get another key."""
    paris, tokyo = network.host("paris", **options), network.host("tokyo", **options)
    await paris.start()
    await tokyo.start()
    await settle(15)
    return paris, tokyo


def known(host, name="paris"):
    """Return the public key by which *host* knows another, or itself."""
    return host.table().peers[name].public_key


async def until_told(public_key, paris, tokyo):
    """Wait until both know the host by *public_key*: each learns of it at its own time."""
    await until(
        lambda: (
            "paris" in tokyo.sees()
            and known(paris) == known(tokyo) == public_key
            and paris.state in {"held", "listed"}
            and (len({*paris.keys}) == 1 or paris.store.key_delay() is None or public_key == OLD)
        )
    )


def value(network):
    """Return what etcd has of the host."""
    values = [json.loads(kv.value) for name, kv in network.served.etcd.keys.items() if b"/nodes/" in name]
    (found,) = [each for each in values if each["name"] == "paris"]
    return found


def test_others_are_told_of_the_new_key_in_the_place_of_the_old_one(network):
    async def main(network):
        paris, tokyo = await joined(network)
        before, leases = tokyo.sees(), {kv.lease for kv in network.served.etcd.keys.values()}

        paris.use_keys(OLD, NEW)
        assert "within seconds" in paris.store.key_delay()
        await until_told(NEW, paris, tokyo)

        assert (tokyo.sees(), paris.sees()) == (before, before)
        assert {kv.lease for kv in network.served.etcd.keys.values()} == leases
        assert known(paris) == NEW
        assert paris.store.key_delay() is None
        assert paris.notes == tokyo.notes == []

        paris.use_keys(NEW)
        await until(lambda: "other_key" not in value(network))
        assert known(paris) == known(tokyo) == NEW
        assert (tokyo.sees(), paris.sees(), paris.state) == (before, before, "held")

    network.run(main)


def test_abort_tells_the_old_key_again_and_the_host_finds_itself_at_once(network):
    async def main(network):
        paris, tokyo = await joined(network)
        before = tokyo.sees()
        paris.use_keys(OLD, NEW)
        await until(lambda: known(tokyo) == NEW)

        paris.use_keys(OLD)
        assert known(paris) == OLD  # at the moment when the agent reads its files again
        assert paris.sees() == before
        await until_told(OLD, paris, tokyo)
        await until(lambda: value(network).get("other_key") is None)

        assert (tokyo.sees(), paris.sees(), paris.state, paris.notes) == (before, before, "held", [])

    network.run(main)


@pytest.mark.slow
@pytest.mark.parametrize("pause", [1, 200], ids=["at once", "after its lease has ended"])
@pytest.mark.parametrize("is_told", [False, True], ids=["untold", "told"])
@pytest.mark.parametrize(
    ("files", "told"),
    [((OLD, NEW), NEW), ((NEW,), NEW), ((OLD,), OLD)],
    ids=["under way", "finished", "aborted"],
)
def test_killed_host_goes_on_with_its_subnet_by_whatever_keys_it_has_then(
    network, files, told, is_told, pause
):
    """Between the file and the report, after it, and where a command was run while no agent ran."""

    async def main(network):
        paris, tokyo = await joined(network)
        before = tokyo.sees()
        paris.use_keys(OLD, NEW)
        if is_told or files == (NEW,):
            await until(lambda: known(tokyo) == NEW)
        await on_disk(lambda: len(list(paris.directory.glob("office-*.json"))) == 2)
        await paris.saved()
        await paris.kill()
        await settle(pause)

        paris.use_keys(*files)
        await paris.start()
        await until_told(told, paris, tokyo)
        await until(lambda: (tokyo.sees(), paris.sees(), paris.notes) == (before, before, []))

        assert (tokyo.sees(), paris.sees(), paris.state) == (before, before, "held")
        assert (paris.store.standing().lost, paris.notes) == ((), [])

    network.run(main)


def test_file_of_a_key_that_is_withdrawn_goes(network):
    async def main(network):
        paris, _ = await joined(network)
        paris.use_keys(OLD, NEW)
        names = {f"office-{each[:8].hex()}.json" for each in (OLD, NEW)}
        await on_disk(lambda: {path.name for path in paris.directory.iterdir()} == names)

        paris.use_keys(NEW)
        await on_disk(
            lambda: {path.name for path in paris.directory.iterdir()} == {f"office-{NEW[:8].hex()}.json"}
        )

        await paris.store.leave()
        assert list(paris.directory.iterdir()) == []

    network.run(main)


def test_silent_etcd_is_told_when_it_answers_again(network):
    async def main(network):
        paris, tokyo = await joined(network)
        network.served.stop()
        await until(lambda: paris.store.standing().silent is not None)

        paris.use_keys(OLD, NEW)
        await settle(30)
        assert paris.store.key_delay().startswith("etcd is silent, so the new key of this host is published")
        assert paris.store.key_delay() in paris.notes
        assert known(paris) == OLD  # what others know

        network.served.restart()
        await until_told(NEW, paris, tokyo)
        assert paris.notes == []

    network.run(main)


def test_lease_that_is_lost_in_the_middle_is_claimed_again_by_the_new_key(network):
    async def main(network):
        paris, tokyo = await joined(network)
        before = tokyo.sees()
        paris.use_keys(OLD, NEW)
        await until(lambda: known(tokyo) == NEW)

        (own,) = [
            name
            for name, kv in network.served.etcd.keys.items()
            if b"paris" in kv.value and b"/nodes/" in name
        ]
        network.served.delete(own)
        await until(lambda: own in network.served.etcd.keys)
        await until_told(NEW, paris, tokyo)
        await until(lambda: (tokyo.sees(), paris.sees()) == (before, before))

    network.run(main)


def test_subnet_that_is_reserved_for_either_key_is_its(network):
    async def main(network):
        subnet = parse_prefix("10.244.200.0/24")
        network.served.put(KEYS.reserved(subnet), Reservation(subnet, public_key=NEW).build())
        paris = network.host("paris")
        paris.use_keys(OLD, NEW)
        await paris.start()
        assert paris.subnets == ["10.244.200.0/24"]

    network.run(main)


def test_store_that_nobody_attends_yet_is_known_as_one_to_attend(network):
    """An agent asks before it does, and Python looks at what a protocol has: a property of it failed."""
    store = network.host("paris").make_store(network.served.open)

    assert isinstance(store, AttendedStore)


# Signed networks


def sign(network, *vouched):
    network.served.put(KEYS.signature, sign_document(ADMIN, "office", 1, DOCUMENT))
    network.served.put(KEYS.admin, base64.b64encode(ADMIN.public))
    for public_key in vouched:
        network.served.put(KEYS.vouched(public_key), vouch(ADMIN, "office", public_key))


@pytest.mark.parametrize("url", [SIGNED, URL], ids=["verifying", "not verifying"])
def test_new_key_is_told_once_the_administrator_vouches_for_it(network, url):
    async def main(network):
        sign(network, OLD, key("tokyo"))
        paris = network.host("paris", url=url)
        tokyo = network.host("tokyo", url=SIGNED)
        await paris.start()
        await tokyo.start()
        await settle(15)

        paris.use_keys(OLD, NEW)
        await settle(30)
        assert known(tokyo) == known(paris) == OLD
        told = paris.store.key_delay()
        assert told.count("its public key is not enrolled") == told.count(f" {format_public_key(NEW)}`") == 1
        assert told.count(f" --peers {shlex.quote(f'etcd:{url}')} ") == 2
        assert "--token FILE --key /keys/own.key.new --node paris` here" in told
        assert value(network)["other_key"] == format_public_key(NEW)  # for the administrator to see

        network.served.put(KEYS.vouched(NEW), vouch(ADMIN, "office", NEW, "paris"))
        await until_told(NEW, paris, tokyo)
        assert (paris.store.key_delay(), paris.notes, tokyo.notes) == (None, [], [])

    network.run(main)


def test_new_key_that_is_vouched_for_under_another_name_is_not_told(network):
    async def main(network):
        sign(network, OLD, key("tokyo"))
        paris, tokyo = await joined(network, url=SIGNED)
        network.served.put(KEYS.vouched(NEW), vouch(ADMIN, "office", NEW, "rome"))

        paris.use_keys(OLD, NEW)
        await settle(30)

        assert known(tokyo) == OLD
        assert "its public key is enrolled as rome" in paris.store.key_delay()
        assert "paris" in tokyo.sees()

    network.run(main)


def test_token_that_the_old_key_has_used_does_not_serve_the_new_one(network):
    async def main(network):
        first, second = (JoinToken(SigningKey(bytes([number]) * 32), 2**40) for number in (1, 2))
        by_token = [
            vouch_by_token(token.key, token.value(ADMIN, "office"), "office", public_key, "paris")
            for token, public_key in ((first, OLD), (first, NEW), (second, NEW))
        ]
        sign(network, key("tokyo"))
        network.served.put(KEYS.vouched(OLD), by_token[0])
        paris, tokyo = await joined(network, url=SIGNED)

        paris.use_keys(OLD, NEW)
        network.served.put(KEYS.vouched(NEW), by_token[1])
        await settle(30)
        assert known(tokyo) == OLD
        assert "its join token has served another node" in paris.store.key_delay()

        network.served.put(KEYS.vouched(NEW), by_token[2])
        await until(lambda: known(tokyo) == NEW)
        network.served.delete(KEYS.vouched(OLD))
        paris.use_keys(NEW)
        await settle(15)
        assert (known(tokyo), paris.state, paris.notes) == (NEW, "held", [])

    network.run(main)


def test_vouching_that_is_taken_back_has_the_old_key_told_again(network):
    async def main(network):
        sign(network, OLD, NEW, key("tokyo"))
        paris, tokyo = await joined(network, url=SIGNED)
        before = tokyo.sees()
        paris.use_keys(OLD, NEW)
        await until(lambda: known(tokyo) == NEW)

        network.served.delete(KEYS.vouched(NEW))
        await until_told(OLD, paris, tokyo)
        await until(lambda: tokyo.sees() == before and "is not enrolled" in str(paris.store.key_delay()))

    network.run(main)


# Hosts of the document


def test_host_that_the_document_lists_is_told_of_by_the_document(tmp_path):
    document = '{}\n[peers.paris]\npublic_key = "{}"\nsubnets = ["10.244.9.0/24"]\n'
    network = Network(tmp_path, document.format(DOCUMENT, format_public_key(OLD)))

    async def main(network):
        paris, tokyo = await joined(network)
        assert paris.state == "listed"

        paris.use_keys(OLD, NEW)
        await settle(15)
        assert known(tokyo) == OLD
        assert "into peers.paris with `overlay network edit --peers etcd:" in paris.store.key_delay()

        network.served.put(KEYS.config, document.format(DOCUMENT, format_public_key(NEW)).encode())
        await until_told(NEW, paris, tokyo)
        assert (known(paris), paris.state, paris.store.key_delay()) == (NEW, "listed", None)

    network.run(main)


# What anybody may write


def test_value_of_another_that_names_our_key_takes_nothing_away(network):
    async def main(network):
        paris, tokyo = await joined(network)
        subnet = parse_prefix("10.244.177.0/24")
        thief = NodeValue("thief", key("thief"), (subnet,), "1" * 32, ("192.0.2.66",), None, OLD)
        network.served.put(KEYS.node(subnet), thief.build())
        await settle(30)

        assert paris.state == "held"
        assert known(tokyo) == OLD
        assert paris.sees()["paris"] == tokyo.sees()["paris"] == paris.subnets

    network.run(main)


@pytest.mark.parametrize(
    "name",
    ["x\n\nall is well\x1b[2J", "<img src=x onerror=alert(1)>", "n" * 1_000_000],
    ids=["lines", "markup", "long"],
)
@pytest.mark.parametrize("folder", ["nodes", "reserved"])
def test_key_of_any_name_is_one_line_of_a_note_and_no_long_one(network, name, folder):
    """Before, it was shown unchanged: a million characters, or lines that say that all is well."""

    async def main(network):
        paris = network.host("paris")
        await paris.start()
        network.served.put(KEYS / f"{folder}/{name}", b"{}")
        await until(lambda: paris.notes)

        (note,) = paris.notes
        assert note.startswith(f"/overlay/office/{folder}/{name[:1]}")
        assert len(note) < 300
        assert note.isprintable()

    network.run(main)


@pytest.mark.slow
def test_keys_that_alternate_every_10_ms_cost_a_table_as_seldom_as_other_changes(network):
    async def main(network):
        _, tokyo = await joined(network)
        subnet = parse_prefix("10.244.177.0/24")
        taken, take = [], tokyo.store.take

        def counted(snapshot):
            taken.append(snapshot)
            take(snapshot)

        tokyo.store._attendance._take = counted
        for number in range(500):
            node = NodeValue("rome", key(f"rome{number % 2}"), (subnet,), "1" * 32, ("192.0.2.66",))
            network.served.put(KEYS.node(subnet), node.build())
            await trio.sleep(0.01)
        await until(lambda: known(tokyo, "rome") == key("rome1"))

        assert len(taken) <= 5 / 0.1 + 5
        assert len(tokyo.store.known_keys()) == 4

    network.run(main)
