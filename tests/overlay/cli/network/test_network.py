"""``overlay network``, with the command line and a real etcd."""

from __future__ import annotations

import json
import re
import stat
import tempfile

import pytest
import trio

from overlay.crypto.keys import PrivateKey
from peers.addresses import parse_prefix
from peers.stores.etcd.administration import Administration
from peers.stores.etcd.gateway import Gateway
from peers.stores.etcd.layout import Keys, NodeValue
from peers.stores.etcd.location import EtcdLocation
from peers.stores.etcd.signatures import SigningKey
from tests.peers.examples import key, key_text

ROUTER = f'[peers.router]\npublic_key = "{key_text("router")}"\nsubnets = ["10.244.9.0/24"]\n'


def put_node(office, name, subnet, public_key=None, other_key=None):
    """Write a node's key, as its agent does."""
    value = NodeValue(
        name,
        public_key or key(name),
        (parse_prefix(subnet),),
        "0" * 32,
        ("192.0.2.1",),
        other_key=other_key,
    )
    put(office, Keys(office.name).node(value.subnets[0]), value.build())


def put(office, name, value):
    async def main():
        gateway = Gateway(EtcdLocation.parse("etcd", office.url.removeprefix("etcd:")))
        await gateway.put(name, value)
        await gateway.aclose()

    trio.run(main)


@pytest.fixture
def created(office):
    office("create", "--prefix", "10.244.0.0/16")
    return office


def shown(office):
    return json.loads(office("show", "--json").stdout)


def test_network_is_created_and_shown(office):
    result = office(
        "create",
        "--prefix",
        "10.244.0.0/16",
        "--prefix",
        "fd00:244::/48",
        "--length",
        "26",
        "--seconds",
        "90",
    )

    assert result.stdout == f"a host joins with `overlay up --peers {office.url}`\n"
    found = shown(office)
    assert found["prefixes"] == ["10.244.0.0/16", "fd00:244::/48"]
    assert found["leases"] == {
        "prefix": ["10.244.0.0/16", "fd00:244::/48"], "length": [26, 64], "seconds": 90, "subnets": 1023,
    }  # fmt: skip
    put_node(office, "paris", "10.244.0.64/26")
    assert re.search(r"paris +10\.244\.0\.64/26 +192\.0\.2\.1 ", office("show").stdout)


def test_other_key_of_a_node_that_replaces_its_key_is_shown(created):
    put_node(created, "paris", "10.244.5.0/24", other_key=key("other"))
    put_node(created, "tokyo", "10.244.6.0/24")

    told = created("show").stdout

    assert told.count("is replacing its key") == 1
    other = key_text("other")
    assert (
        f"\nparis is replacing its key: it also answers to {other}, its next key or its former one\n" in told
    )
    assert {node["name"]: node["other_public_key"] for node in shown(created)["nodes"]} == {
        "paris": other,
        "tokyo": None,
    }


def test_network_that_is_there_is_not_made_again(created):
    assert "there is a network" in created.fails("create", "--prefix", "10.9.0.0/16")
    assert shown(created)["prefixes"] == ["10.244.0.0/16"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prefix", "10.244.0.1/16"], "has host bits; write 10.244.0.0/16"),
        (
            ["--prefix", "10.244.0.0/16", "--length", "12"],
            "leases.length is 12; write a prefix length from 17 to 30",
        ),
        (["--prefix", "10.244.0.0/16", "--seconds", "1"], "leases.seconds is 1"),
        (["--prefix", "10.244.0.0/31"], "prefix"),
    ],
)
def test_network_that_cannot_be_is_not_created(office, arguments, said):
    assert said in office.fails("create", *arguments, code=2)
    assert "there is no network" in office.fails("show")


def test_every_command_says_that_there_is_no_network(office, tmp_path):
    (tmp_path / "peers.toml").write_text('[network]\nprefix = "10.244.0.0/16"\n')
    for name, *arguments in (
        ["show"], ["export"], ["edit"], ["import", str(tmp_path / "peers.toml")],
        ["reserve", "10.244.1.0/24", "--node", "a"], ["release", "a"],
    ):  # fmt: skip
        assert "there is no network" in office.fails(name, *arguments), name


def test_file_is_not_a_network(overlay, tmp_path):
    result = overlay("network", "show", "--peers", str(tmp_path / "peers.toml"))

    assert result.exit_code == 2
    assert "this is not a network in etcd; write etcd://HOST:2379/NAME" in result.stderr


def test_peers_file_goes_in_and_comes_out(created, tmp_path):
    path = tmp_path / "peers.toml"
    path.write_text('[network]\nprefix = "10.244.0.0/16"\nmtu = 1400\n\n' + ROUTER)
    created("import", str(path))
    put_node(created, "paris", "10.244.7.0/24")

    assert created("export", "--document").stdout == path.read_text()
    exported = tmp_path / "all.toml"
    exported.write_text(created("export").stdout)
    from peers.toml import load

    table = load(exported)
    assert {name: list(map(str, peer.subnets)) for name, peer in table.peers.items()} == {
        "router": ["10.244.9.0/24"],
        "paris": ["10.244.7.0/24"],
    }
    assert table.network.mtu == 1400


def test_wrong_peers_file_is_refused_with_all_that_is_wrong(created, tmp_path):
    path = tmp_path / "peers.toml"
    path.write_text('[network]\nprefix = "10.244.0.0/16"\ncolour = 1\n' + ROUTER + "taste = 1\n")
    said = created.fails("import", str(path), code=2)

    assert "config, line 3: network.colour is not known" in said
    assert "line 7: peers.router.taste is not known" in said
    assert "there is no such file" in created.fails("import", str(tmp_path / "none"), code=2)


def editor(tmp_path, monkeypatch, program):
    path = tmp_path / "editor"
    path.write_text(f"#!/bin/sh\n{program}\n")
    path.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(path))
    monkeypatch.setenv("VISUAL", str(path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_document_is_edited(created, tmp_path, monkeypatch):
    editor(tmp_path, monkeypatch, 'echo "mtu = 1400" >> "$1"')
    created("edit")
    assert created("export", "--document").stdout.endswith("mtu = 1400\n")

    editor(tmp_path, monkeypatch, "true")
    assert created("edit").stdout == "nothing was changed\n"


def test_wrong_edit_is_refused_and_kept(created, tmp_path, monkeypatch):
    editor(tmp_path, monkeypatch, 'echo "colour = 1" >> "$1"')
    said = created.fails("edit", code=2)

    assert "line 3: network.colour is not known" in said
    kept = re.search(r"your text is kept in (\S+)", said)[1]
    with open(kept) as file:
        assert file.read().endswith("colour = 1\n")
    assert "colour" not in created("export", "--document").stdout


@pytest.mark.slow
def test_of_two_edits_at_once_the_second_is_refused(created, tmp_path, monkeypatch):
    (tmp_path / "peers.toml").write_text('[network]\nprefix = "10.244.0.0/16"\nmtu = 1300\n')
    import sys

    other = f"{sys.executable} -m overlay network import --peers {created.url} {tmp_path}/peers.toml"
    editor(tmp_path, monkeypatch, f'{other}; echo "mtu = 1400" >> "$1"')

    assert "was changed by somebody else meanwhile" in created.fails("edit")
    assert "mtu = 1300" in created("export", "--document").stdout


def test_editor_that_is_not_there_is_one_sentence(created, monkeypatch):
    monkeypatch.setenv("EDITOR", "/nonexistent/editor")
    monkeypatch.setenv("VISUAL", "/nonexistent/editor")

    assert "set EDITOR to the program that you edit with" in created.fails("edit", code=2)


def test_subnet_is_reserved_and_released(created):
    created("reserve", "10.244.7.0/24", "--node", "paris")
    created("reserve", "10.244.8.0/24", "--public-key", key_text("x"))
    assert shown(created)["reserved"] == [
        {"subnet": "10.244.7.0/24", "name": "paris", "public_key": None},
        {"subnet": "10.244.8.0/24", "name": None, "public_key": key_text("x")},
    ]

    assert created("release", "paris").stdout == "removed the reservation of 10.244.7.0/24\n"
    created("release", "10.244.8.0/24")
    assert shown(created)["reserved"] == []
    assert "has no node, reservation, enrolment or join token paris" in created.fails("release", "paris")


def test_node_is_released_by_its_name_or_subnet(created):
    put_node(created, "paris", "10.244.7.0/24")
    assert created("release", "10.244.7.0/24").stdout == "removed the node paris with 10.244.7.0/24\n"
    assert shown(created)["nodes"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ["10.9.0.0/24", "--node", "a"],
            1,
            "not one of the subnets that are given out; reserve a /24 of 10.244.0.0/16",
        ),
        (["10.244.7.0/25", "--node", "a"], 1, "not one of the subnets that are given out"),
        (["10.244.5.0/24", "--node", "a"], 1, "10.244.5.0/24 belongs to the node paris"),
        (["10.244.9.0/24", "--node", "a"], 1, "10.244.9.0/24 overlaps a prefix of peers.router"),
        (["x", "--node", "a"], 2, "is not a prefix"),
        (["10.244.7.0/24"], 2, "either --node NAME or --public-key KEY"),
        (["10.244.7.0/24", "--node", "a b"], 2, "is not a peer name"),
        (["10.244.7.0/24", "--public-key", "a"], 2, "the public key has 1 characters"),
    ],
)
def test_reservation_that_cannot_be_is_refused(created, tmp_path, arguments, code, said):
    (tmp_path / "peers.toml").write_text('[network]\nprefix = "10.244.0.0/16"\n' + ROUTER)
    created("import", str(tmp_path / "peers.toml"))
    put_node(created, "paris", "10.244.5.0/24")

    assert said in created.fails("reserve", *arguments, code=code)


# Signed


@pytest.fixture
def signed(office, tmp_path):
    """A signed network, and its administrator's key; *more* ends the URL of those who trust it."""
    office.admin = tmp_path / "admin.key"
    said = office("create", "--prefix", "10.244.0.0/16", "--sign", "--admin-key", str(office.admin)).stdout
    office.more = "?admin-key=" + re.search(r"public key is (\S+),", said)[1]
    assert f"overlay up --peers '{office.url}{office.more}'" in said
    return office


def peers(office):
    return set(office.table(office.more).peers)


def test_only_hosts_that_are_vouched_for_take_part(signed):
    assert stat.S_IMODE(signed.admin.stat().st_mode) == 0o600
    put_node(signed, "paris", "10.244.5.0/24")
    put_node(signed, "tokyo", "10.244.6.0/24")
    assert "nobody has joined yet" in signed.refusal(signed.more)
    assert "its public key is not enrolled" in signed("show").stderr

    signed("enroll", key_text("paris"), "--node", "paris", "--admin-key", str(signed.admin))
    signed("enroll", key_text("tokyo"), "--node", "another", "--admin-key", str(signed.admin))

    assert peers(signed) == {"paris"}
    assert set(signed.table().peers) == {"paris", "tokyo"}  # those that only trust etcd see both
    assert "enrolled as another" in signed("show").stderr
    assert "removed the enrolment of paris" in signed("release", "paris").stdout
    put_node(signed, "paris", "10.244.5.0/24")
    assert "nobody has joined yet" in signed.refusal(signed.more)


def test_overwritten_administrators_key_hides_nothing(signed):
    put_node(signed, "paris", "10.244.5.0/24")
    signed("reserve", "10.244.6.0/24", "--node", "tokyo")
    put(signed, Keys(signed.name).admin, b"rubbish\xff")

    done = signed("show")

    assert "paris" in done.stdout
    assert "10.244.6.0/24" in done.stdout
    assert f"/overlay/{signed.name}/admin has no public key any more" in done.stderr
    assert "put the administrator's public key back with `etcdctl put" in done.stderr
    assert shown(signed)["remarks"]
    assert "is signed with" in signed.fails("enroll", key_text("a"), "--admin-key", str(signed.admin))


def test_document_takes_the_administrators_key(signed, tmp_path):
    (tmp_path / "peers.toml").write_text('[network]\nprefix = "10.244.0.0/16"\n' + ROUTER)
    other = tmp_path / "other.key"
    other.write_text(PrivateKey(b"\x05" * 32).to_base64())
    path = str(tmp_path / "peers.toml")

    assert "is signed with" in signed.fails("import", path, "--admin-key", str(other))
    assert "cannot be read: No such file" in signed.fails("import", path, "--admin-key", "/none", code=2)
    signed("import", path, "--admin-key", str(signed.admin))
    assert peers(signed) == {"router"}


def test_join_token_enrolls_one_host(signed, tmp_path):
    token, own, other = tmp_path / "token", tmp_path / "own.key", tmp_path / "other.key"
    private = PrivateKey(b"\x07" * 32)
    for path, secret in ((own, private), (other, PrivateKey(b"\x08" * 32))):
        path.touch(0o600)
        path.write_text(secret.to_base64())
    token.write_text(signed("join-token", "--admin-key", str(signed.admin)).stdout)
    assert "1 join token unused" in signed("show").stdout

    signed("enroll", "--token", str(token), "--node", "paris", "--key", str(own))
    put_node(signed, "paris", "10.244.5.0/24", private.public)
    assert peers(signed) == {"paris"}
    assert "does not have that join token (any more)" in signed.fails(
        "enroll", "--token", str(token), "--node", "tokyo", "--key", str(other)
    )


def test_join_token_that_has_expired_enrolls_nobody(signed, tmp_path):
    network = Administration(EtcdLocation.parse("etcd", signed.url.removeprefix("etcd:")))
    admin, own = SigningKey.parse(signed.admin.read_text()), tmp_path / "own.key"
    own.touch(0o600)
    own.write_text(PrivateKey(b"\x07" * 32).to_base64())
    (tmp_path / "token").write_text(network.make_token(admin, SigningKey(b"\x09" * 32), -1, None, None))

    assert (
        "that join token has expired; make another with `overlay network join-token --peers etcd:"
        in signed.fails("enroll", "--token", str(tmp_path / "token"), "--node", "paris", "--key", str(own))
    )
    assert shown(signed)["vouched"] == []


def test_wrong_enrolments_are_one_sentence_each(signed, tmp_path):
    (tmp_path / "token").write_text("rubbish")
    key_path = ["--admin-key", str(signed.admin)]
    assert "is not a join token" in signed.fails("enroll", "--token", str(tmp_path / "token"), code=2)
    assert "name the public key of the host" in signed.fails("enroll", code=2)
    assert "the public key has 1 characters" in signed.fails("enroll", "x", *key_path, code=2)
    assert "has no administrator's key" in signed.fails(
        "enroll", key_text("a"), "--admin-key", str(tmp_path / "token"), code=2
    )


@pytest.mark.parametrize(
    ("subnet", "said"),
    [
        ("10.9.0.0/24", "not one of the subnets that are given out; name one such as 10.244.1.0/24"),
        ("10.244.5.0/24", "10.244.5.0/24 belongs to the node paris; let it go with `overlay network release"),
        (
            "10.244.6.0/24",
            "10.244.6.0/24 is reserved for the node tokyo; let it go with `overlay network release",
        ),
        ("10.244.7.0/24", f"10.244.7.0/24 is reserved for the public key {key_text('x')}"),
        (
            "10.244.8.0/24",
            "10.244.8.0/24 is what the node rome is enrolled with; let it go with `overlay network release",
        ),
        (
            "10.244.10.0/24",
            "10.244.10.0/24 is what a join token for any node promises; let it go with `overlay network release",
        ),
        ("10.244.9.0/24", "10.244.9.0/24 overlaps a prefix of peers.router; name another with --subnet"),
    ],
)
def test_nobody_is_enrolled_with_what_another_has(signed, tmp_path, subnet, said):
    admin = ["--admin-key", str(signed.admin)]
    (tmp_path / "peers.toml").write_text('[network]\nprefix = "10.244.0.0/16"\n' + ROUTER)
    signed("import", str(tmp_path / "peers.toml"), *admin)
    put_node(signed, "paris", "10.244.5.0/24")
    signed("reserve", "10.244.6.0/24", "--node", "tokyo")
    signed("reserve", "10.244.7.0/24", "--public-key", key_text("x"))
    signed("enroll", key_text("rome"), "--node", "rome", "--subnet", "10.244.8.0/24", *admin)
    signed("join-token", "--subnet", "10.244.10.0/24", *admin)

    assert said in signed.fails("enroll", key_text("a"), "--node", "a", "--subnet", subnet, *admin)
    assert said in signed.fails("join-token", "--subnet", subnet, *admin)
    assert shown(signed)["vouched"] == [key_text("rome")]
    assert shown(signed)["tokens"] == 1


def test_enrolment_of_a_host_that_never_joined_is_released(signed):
    admin = ["--admin-key", str(signed.admin)]
    for name, subnet in (("rome", "10.244.8.0/24"), ("lima", "10.244.9.0/24"), ("oslo", "10.244.10.0/24")):
        signed("enroll", key_text(name), "--node", name, "--subnet", subnet, *admin)

    removed = "removed the enrolment of the node"
    assert signed("release", "rome").stdout == f"{removed} rome\n"
    assert signed("release", "10.244.9.0/24").stdout == f"{removed} lima\n"
    assert signed("release", key_text("oslo")).stdout == f"{removed} oslo\n"
    assert shown(signed)["vouched"] == []
    assert "has no node" in signed.fails("release", "None")


def test_promise_of_a_join_token_holds_until_it_is_released_or_has_expired(signed):
    admin = ["--admin-key", str(signed.admin)]
    network = Administration(EtcdLocation.parse("etcd", signed.url.removeprefix("etcd:")))
    signer, subnet = SigningKey.parse(signed.admin.read_text()), parse_prefix("10.244.10.0/24")
    network.make_token(signer, SigningKey(b"\x09" * 32), -1, None, subnet)
    signed("join-token", "--node", "rome", "--subnet", "10.244.10.0/24", *admin)
    lima = ["enroll", key_text("lima"), "--subnet", "10.244.10.0/24", *admin]

    assert "what a join token for the node rome promises" in signed.fails(*lima)
    signed("enroll", key_text("rome"), "--node", "rome", "--subnet", "10.244.10.0/24", *admin)
    said = signed("release", "rome").stdout
    assert said == "removed the enrolment of the node rome\nremoved the join token for the node rome\n"
    signed(*lima)


def test_hosts_are_enrolled_with_what_they_have(signed):
    admin = ["--admin-key", str(signed.admin)]
    put_node(signed, "paris", "10.244.5.0/24", other_key=key("new"))
    signed("reserve", "10.244.5.0/24", "--public-key", key_text("paris"))
    signed("reserve", "10.244.6.0/24", "--node", "tokyo")

    assert "its next key or its former one, which is not enrolled\n" in signed("show").stdout
    for subnet, *enrolled in (
        ("10.244.5.0/24", key_text("paris")),
        ("10.244.5.0/24", key_text("paris"), "--node", "paris"),
        ("10.244.5.0/24", key_text("new")),  # of the same node, as it claims
        ("10.244.6.0/24", key_text("tokyo"), "--node", "tokyo"),
        ("10.244.6.0/24", key_text("another"), "--node", "tokyo"),
    ):
        signed("enroll", *enrolled, "--subnet", subnet, *admin)
    assert "its next key or its former one\n" in signed("show").stdout


def test_network_without_signatures_enrolls_nobody(created):
    assert "is not signed, so every host that etcd lets write may join" in created.fails(
        "enroll", key_text("a")
    )
    assert "is not signed" in created.fails("join-token")


def test_accepting_asks_the_agent(overlay):
    result = overlay("network", "accept", "--interface", "nowhere0")

    assert result.exit_code == 1
    assert "no overlay agent runs for nowhere0" in result.stderr
