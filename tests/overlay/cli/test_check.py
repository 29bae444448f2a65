import json
import time
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from click.testing import CliRunner

from overlay.cli import main
from overlay.crypto.keys import PrivateKey, encode_key
from overlay.defaults import PEERS
from peers.mac import derived_mac, format_mac
from tests.peers.examples import key_text

PRIVATE = PrivateKey(bytes(range(32)))
PUBLIC = encode_key(PRIVATE.public)

EXAMPLE = f"""\
[network]
prefix = "10.244.0.0/16"

[peers.paris]
public_key = "{PUBLIC}"
subnets = ["10.244.1.0/24"]

[peers.tokyo]
public_key = "{key_text("tokyo")}"
endpoint = "tokyo.example.net"
subnets = ["10.244.2.0/24", "10.244.3.0/24"]
"""


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(PRIVATE.to_base64() + "\n")
    return path


@pytest.fixture
def check(overlay, tmp_path, key):
    """Check a text as a peers file, on the host that has *key*."""

    def run(text, *arguments, key=key):
        (tmp_path / "peers.toml").write_text(text)
        return overlay("check", "--peers", tmp_path / "peers.toml", "--key", key, *arguments)

    return run


def test_a_right_file_is_listed_and_this_host_marked(check, tmp_path):
    result = check(EXAMPLE)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"{tmp_path}/peers.toml is valid: 2 peers, 3 subnets\n"
        "network 10.244.0.0/16, port 51820, MTU by the underlay\n"
        "\n"
        "   NAME   ADDRESS     ENDPOINT                 SUBNETS\n"
        "*  paris  10.244.1.0  -                        10.244.1.0/24\n"
        "   tokyo  10.244.2.0  tokyo.example.net:51820  10.244.2.0/24, 10.244.3.0/24\n"
        "\n"
        "* this host\n"
    )


def test_json_has_the_peers_this_node_and_the_warnings(check):
    result = check(EXAMPLE + 'preshared_key_file = "/nowhere/tokyo.psk"', "--json")

    report = json.loads(result.stdout)
    assert report["node"] == "paris"
    assert report["network"] == {
        "prefixes": ["10.244.0.0/16"],
        "port": 51820,
        "mtu": None,
        "fwmark": None,
        "encapsulation": "wireguard",
        "udp_port": 8285,
        "vxlan_port": 4789,
        "geneve_port": 6081,
        "vni": 1,
        "gre_key": None,
        "gre_checksum": False,
        "gre_sequence": False,
        "ttl": None,
        "device": "tun",
        "point_to_point": False,
        "stations": 4096,
    }
    assert report["peers"][1] == {
        "name": "tokyo",
        "public_key": key_text("tokyo"),
        "encapsulation": "wireguard",
        "endpoint": "tokyo.example.net:51820",
        "addresses": ["10.244.2.0"],
        "subnets": ["10.244.2.0/24", "10.244.3.0/24"],
        "keepalive": 0,
        "preshared_key_file": "/nowhere/tokyo.psk",
        "listen": [],
        "listen_port": 51820,
        "sources": [],
        "agent": True,
        "mac": None,
    }
    assert len(report["warnings"]) == 1
    assert report["warnings"][0] in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        (
            "10.244.2.0/24",
            "10.244.2.5/24",
            11,
            "peers.tokyo.subnets[0] '10.244.2.5/24' has host bits; write 10.244.2.0/24",
        ),
        (
            "10.244.2.0/24",
            "10.244.1.0/24",
            11,
            (
                "peers.tokyo.subnets[0] 10.244.1.0/24 is also a subnet of peers.paris; "
                "a prefix leads to one peer, so remove it from one of them"
            ),
        ),
        ("endpoint", "endpont", 10, "peers.tokyo.endpont is not known; did you mean endpoint?"),
        (
            key_text("tokyo"),
            "tooshort=",
            9,
            "peers.tokyo.public_key has 9 characters; a public key has 44 of base64, see overlay pubkey",
        ),
        (
            key_text("tokyo"),
            PUBLIC,
            9,
            "peers.tokyo.public_key is also the public key of peers.paris; each peer needs a key pair of its own",
        ),
        (
            "[peers.tokyo]",
            "[peers.tokyo",
            8,
            (
                "this is not TOML: expected ']' at the end of a table declaration; close the name of the table with a "
                "bracket, as in [peers.NAME]"
            ),
        ),
        (
            'subnets = ["10.244.2.0/24", "10.244.3.0/24"]',
            'address = "10.244.1.0"',
            11,
            (
                "peers.tokyo.address 10.244.1.0 is also the address of peers.paris; write one for each of them "
                "(by default it is the network address of the first subnet)"
            ),
        ),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(check, tmp_path, old, new, line, problem):
    result = check(EXAMPLE.replace(old, new))

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {tmp_path}/peers.toml, line {line}: {problem}\n"


def test_a_missing_file_gets_a_sentence(overlay):
    result = overlay("check", "--peers", "/nowhere/peers.toml")

    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        result.stderr
        == "Error: /nowhere/peers.toml: there is no such file; write it, or name the right one\n"
    )


def test_a_file_can_be_named_with_its_store(check, overlay, tmp_path, key):
    alone = check(EXAMPLE)

    named = overlay("check", "--peers", f"file:{tmp_path}/peers.toml", "--key", key)

    assert (named.exit_code, named.stdout) == (0, alone.stdout)


def test_a_store_that_is_not_known_is_a_wrong_use_with_the_known_ones(overlay):
    result = overlay("check", "--peers", "consul://127.0.0.1:2379/overlay")

    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        "'--peers': there is no store named consul; accepted are the path of a file and file:"
        in result.stderr
    )


def test_check_without_a_file_that_is_named_takes_the_one_in_etc(overlay):
    if Path(PEERS).exists():
        pytest.skip(f"this host has {PEERS}")

    result = overlay("check")

    assert result.exit_code == 2
    assert (
        result.stderr
        == "Error: /etc/overlay/peers.toml: there is no such file; write it, or name the right one\n"
    )


def test_without_a_key_check_says_that_it_cannot_tell_which_peer_this_host_is(check, tmp_path):
    missing = tmp_path / "none"

    result = check(EXAMPLE, key=missing)

    assert result.exit_code == 0
    assert "*" not in result.stdout
    assert result.stderr == (
        f"Warning: {missing} does not exist: make one with `overlay keygen --key {missing}`; "
        "until then it is not known which peer this host is\n"
    )


def test_without_a_key_node_says_which_peer_this_host_is(check, tmp_path):
    missing = tmp_path / "none"

    result = check(EXAMPLE, "--node", "tokyo", key=missing)

    assert result.exit_code == 0
    assert "*  tokyo" in result.stdout
    assert "* this host, according to --node\n" in result.stdout
    assert result.stderr.endswith("; until then it is not known whether tokyo has the key of this host\n")


def test_a_host_without_a_key_is_the_peer_without_one_whose_endpoint_is_its_address_as_for_up(
    check, tmp_path
):
    keyless = '[peers.rome]\nencapsulation = "udp"\nendpoint = "127.0.0.1"\naddress = "10.244.9.1"\n'

    result = check(EXAMPLE + keyless, key=tmp_path / "none")

    assert result.exit_code == 0
    assert "*  rome" in result.stdout
    assert str(tmp_path / "none") not in result.stderr


def test_a_key_that_no_peer_has_is_warned_of(check, tmp_path, key):
    result = check(EXAMPLE.replace(PUBLIC, key_text("paris")))

    assert result.exit_code == 0
    assert result.stderr == (
        f"Warning: no peer in {tmp_path}/peers.toml has this host's public key {PUBLIC}: "
        f"add it, or use a private key other than {key} with --key\n"
    )


def test_a_node_that_does_not_exist_gets_near_names(check, tmp_path):
    result = check(EXAMPLE, "--node", "toky")

    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        result.stderr == f"Error: --node toky: {tmp_path}/peers.toml has no such peer; did you mean tokyo?\n"
    )


def test_a_node_with_another_key_is_refused(check, tmp_path, key):
    result = check(EXAMPLE, "--node", "tokyo")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"Error: --node tokyo: its public_key in {tmp_path}/peers.toml is not that of {key}, "
        f"which is {PUBLIC}; correct one of them\n"
    )


def test_a_key_file_without_a_key_is_refused(check, key):
    key.write_text("nonsense\n")

    result = check(EXAMPLE)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"Error: {key} is not a private key: a key has 44 characters of base64, as `wg genkey` writes it; "
        f"this has 8; name another file with --key, or replace it with `overlay keygen --key {key} --force`\n"
    )


def test_preshared_keys_that_this_host_cannot_use_are_warned_of(check, tmp_path):
    (tmp_path / "broken.psk").write_bytes(b"\xff")
    (tmp_path / "short.psk").write_text("abc")
    (tmp_path / "directory.psk").mkdir()
    text = EXAMPLE
    for name in ("missing", "broken", "short", "directory"):
        text += f'\n[peers.{name}]\nendpoint = "{name}.example.net"\npublic_key = "{key_text(name)}"\npreshared_key_file = "{name}.psk"\n'
        text += f'address = "10.244.9.{len(name)}"\n'

    result = check(text)

    assert result.exit_code == 0
    assert result.stderr == (
        "Warning: 4 preshared key files that this host needs do not exist, cannot be read or contain no key: "
        f"{tmp_path}/missing.psk, {tmp_path}/broken.psk, {tmp_path}/short.psk and 1 more\n"
    )


REPLACED = (
    "name another file as preshared_key_file in the peers file, or remove it and make one with "
    "`overlay genpsk --out PATH`, or copy it from another host"
)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "missing",
            "does not exist: make one with `overlay genpsk --out PATH`, or copy it from another host",
        ),
        ("broken", f"is not a file with a key: it contains characters that are not base64; {REPLACED}"),
        (
            "short",
            (
                "is not a preshared key: a key has 44 characters of base64, as `wg genkey` writes it; this has 3; "
                f"{REPLACED}"
            ),
        ),
        ("directory", "is a directory: name another file as preshared_key_file in the peers file"),
    ],
)
def test_a_preshared_key_that_this_host_cannot_use_is_warned_of(check, tmp_path, name, problem):
    (tmp_path / "broken.psk").write_bytes(b"\xff")
    (tmp_path / "short.psk").write_text("abc")
    (tmp_path / "directory.psk").mkdir()

    result = check(EXAMPLE + f'preshared_key_file = "{name}.psk"\n')

    path = f"{tmp_path}/{name}.psk"
    assert result.stderr == f"Warning: {path} {problem.replace('PATH', path)}; this host needs it for tokyo\n"


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_a_key_file_may_begin_with_a_byte_order_mark_and_end_with_blanks(check, tmp_path, key, mark):
    for name in ("key", "tokyo.psk"):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_bytes(mark + PRIVATE.to_base64().encode() + b" \r\n\n")

    result = check(EXAMPLE + 'preshared_key_file = "tokyo.psk"\n')

    assert (result.exit_code, result.stderr) == (0, "")


def test_a_preshared_key_of_this_host_is_named_once_for_all_peers(check, tmp_path):
    text = EXAMPLE.replace("[peers.tokyo]", 'preshared_key_file = "own.psk"\n[peers.tokyo]')
    for number in range(4):
        text += (
            f'\n[peers.more{number}]\npublic_key = "{key_text(str(number))}"\naddress = "10.244.8.{number}"\n'
        )

    result = check(text)

    assert result.stderr.count("own.psk") == 2  # once as the file, once in the remedy
    assert "; this host needs it for tokyo, more0, more1 +2\n" in result.stderr


def test_a_preshared_key_between_two_others_is_not_one_of_this_host(check, tmp_path):
    text = EXAMPLE + 'preshared_key_file = "tokyo.psk"\n'
    text += f'[peers.rome]\npublic_key = "{key_text("rome")}"\naddress = "10.244.8.1"\n'

    result = check(text, "--node", "rome", key=tmp_path / "none")

    assert "tokyo.psk" in result.stderr  # rome talks with tokyo
    assert "tokyo.psk does not exist: make one with" in result.stderr


def test_warnings_of_the_table_go_to_stderr(check):
    result = check(EXAMPLE.replace("10.244.3.0/24", "192.168.7.0/24"))

    assert result.exit_code == 0
    assert result.stderr == (
        "Warning: 192.168.7.0/24 of peers.tokyo lies outside the network prefix 10.244.0.0/16; "
        "each host gets a route for it\n"
    )


@pytest.mark.slow
def test_ten_thousand_peers_are_listed(check):
    text = EXAMPLE
    for number in range(9998):
        high, low = divmod(number, 256)
        text += f'[peers.p{number}]\npublic_key = "{key_text(str(number))}"\n'
        text += f'subnets = ["10.{high}.{low}.0/24"]\n'
    text = text.replace("10.244.0.0/16", "10.0.0.0/8")

    started = time.process_time()
    result = check(text)

    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 10_006
    assert time.process_time() - started < 20


CLEAR = """
[network]
prefix = "10.244.0.0/16"
encapsulation = "udp"
[peers.paris]
endpoint = "127.0.0.1"
subnets = "10.244.1.0/24"
[peers.tokyo]
endpoint = "8.8.8.8"
subnets = "10.244.2.0/24"
"""


@pytest.mark.parametrize(("arguments", "name"), [((), "paris"), (("--node", "tokyo"), "tokyo")])
def test_a_network_in_the_clear_needs_no_key_and_is_warned_of(check, arguments, name):
    result = check(CLEAR, "--json", *arguments)

    report = json.loads(result.stdout)
    assert (result.exit_code, report["node"]) == (0, name)
    assert [(each["public_key"], each["encapsulation"], each["listen_port"]) for each in report["peers"]] == [
        (None, "udp", 8285),
        (None, "udp", 8285),
    ]
    assert "nothing is encrypted: the encapsulation of all peers is udp" in result.stderr
    assert "peers.tokyo.endpoint 8.8.8.8 is a public address" in result.stderr


def test_a_host_that_is_not_a_peer_of_an_unencrypted_network_is_asked_to_name_itself(check):
    result = check(CLEAR.replace("127.0.0.1", "192.0.2.254"))

    assert "name it with --node" in result.stderr
    assert "network 10.244.0.0/16, port 8285" in result.stdout


def test_ethernet_addresses_are_listed_where_a_peer_is_of_vxlan(check):
    text = CLEAR.replace("8.8.8.8", "192.0.2.2").replace('"udp"', '"vxlan"\nvni = 5\nvxlan_port = 8472')
    text += 'mac = "02:00:5e:10:00:02"\n'

    report, shown = json.loads(check(text, "--json").stdout), check(text).stdout

    macs = [format_mac(derived_mac("paris")), "02:00:5e:10:00:02"]
    assert [each["mac"] for each in report["peers"]] == macs
    assert (report["network"]["vni"], report["network"]["vxlan_port"]) == (5, 8472)
    assert [line.split()[-1] for line in shown.splitlines()[3:6]] == ["MAC", *macs]


def test_the_tunnels_of_this_host_are_listed_with_their_encapsulations_where_one_is_in_the_clear(check):
    mixed = EXAMPLE + 'encapsulation = "ipip"\n'
    mixed += f'[peers.rome]\npublic_key = "{key_text("rome")}"\naddress = "10.244.8.1"\n'

    shown, encrypted = check(mixed).stdout, check(EXAMPLE).stdout

    assert [line.split()[-1] for line in shown.splitlines() if " 10.244." in line][1:] == [
        "wireguard",
        "ipip",
        "wireguard",
    ]
    assert "ENCAPSULATION" not in encrypted


def test_every_problem_is_named_with_its_line(check, tmp_path):
    text = EXAMPLE.replace("10.244.1.0/24", "10.244.1.5/24").replace("endpoint", "endpont")
    text = text.replace("10.244.3.0/24", "10.244.3.0")

    result = check(text)

    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert [line.partition(": ")[2].partition(" '")[0] for line in lines] == [
        f"{tmp_path}/peers.toml, line 6: peers.paris.subnets[0]",
        f"{tmp_path}/peers.toml, line 10: peers.tokyo.endpont is not known; did you mean endpoint?",
        f"{tmp_path}/peers.toml, line 11: peers.tokyo.subnets[1]",
    ]
    assert all(line.startswith("Error: ") for line in lines)


def test_ten_problems_are_named_and_that_there_may_be_more(check):
    text = EXAMPLE + "".join(f"[peers.n{number}]\nx = 1\n" for number in range(20))

    lines = check(text).stderr.splitlines()

    assert len(lines) == 11
    assert lines[-1] == "Error: there may be more; correct these and check again"


@pytest.mark.parametrize(
    ("routes", "is_warned_of"),
    [
        ([], True),
        (["0.0.0.0/0"], True),
        (["10.244.0.0/16"], True),  # that of the agent
        (["10.0.0.0/8"], True),  # shorter than that
        (["10.244.1.0/32"], True),  # its own address
        (["10.244.2.0/24"], True),
        (["10.244.1.0/24"], False),
        (["10.244.1.7/32"], False),
        (["10.244.0.0/20"], False),
    ],
)
def test_an_own_subnet_that_no_route_leads_to_is_warned_of(
    check, surroundings, overlay, tmp_path, key, routes, is_warned_of
):
    check(EXAMPLE)
    here = replace(surroundings, routes=lambda: map(ip_network, routes))

    result = CliRunner().invoke(
        main, ["check", "--peers", f"{tmp_path}/peers.toml", "--key", str(key)], obj=here
    )

    assert (
        "10.244.1.0/24 is a subnet of this host, but no route here leads to it" in result.stderr
    ) is is_warned_of


def test_many_preshared_keys_that_are_missing_are_one_warning(check):
    text = EXAMPLE
    for number in range(5):
        text += f'[peers.n{number}]\npublic_key = "{key_text(str(number))}"\naddress = "10.244.8.{number}"\n'
        text += f'preshared_key_file = "{number}.psk"\nendpoint = "192.0.2.{number}"\n'

    (line,) = check(text).stderr.splitlines()

    assert line.startswith(
        "Warning: 5 preshared key files that this host needs do not exist, cannot be read or contain no key: "
    )


def test_a_preshared_key_that_others_can_read_and_a_peers_file_that_they_can_write_are_warned_of(
    check, tmp_path, key
):
    path = tmp_path / "tokyo.psk"
    path.write_text(PRIVATE.to_base64())
    path.chmod(0o640)
    tmp_path.chmod(0o777)

    result = check(EXAMPLE + 'preshared_key_file = "tokyo.psk"\n')

    assert result.exit_code == 0
    assert f"Warning: {path} can be read by others: run `chmod 600 {path}`\n" in result.stderr
    assert f"Warning: {tmp_path} can be written by others" in result.stderr
