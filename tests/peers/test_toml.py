import errno
import os
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.addresses import is_host_address
from peers.encapsulation import PORTS as ENCAPSULATION_PORTS
from peers.errors import KeyProblem, StoreError, TableError
from peers.listening import TcpPlace, UnixPlace
from peers.peer import Endpoint, Network, Peer
from peers.table import Table
from peers.toml import load, parse
from tests.peers import examples
from tests.peers.examples import key, key_text, render

PATH = Path("/etc/overlay/peers.toml")
PARIS, ROME = key_text("paris"), key_text("rome")

EXAMPLE = f"""\
[network]
prefix = "10.244.0.0/16"
port = 51000
mtu = 1420

[peers.paris]
public_key = "{PARIS}"
endpoint = "192.0.2.10"
subnets = ["10.244.1.0/24", "fd00:244:1::/64"]
address = "10.244.1.0"
listen = ["192.0.2.10", "::"]

[peers.tokyo]
public_key = "{key_text("tokyo")}"
preshared_key_file = "/etc/overlay/tokyo.psk"
endpoint = "tokyo.example.net:51821"
subnets = ["10.244.2.0/24", "192.168.77.0/24"]
keepalive = 25
listen_port = 4500
"""


def test_a_peers_file_gives_its_table():
    assert parse(EXAMPLE, PATH) == Table(
        Network((ip_network("10.244.0.0/16"),), {"wireguard": 51000}, mtu=1420),
        {
            "paris": Peer(
                "paris",
                key("paris"),
                (ip_network("10.244.1.0/24"), ip_network("fd00:244:1::/64")),
                (ip_address("10.244.1.0"),),
                Endpoint("192.0.2.10", 51000),
                listen=(ip_address("192.0.2.10"), ip_address("::")),
            ),
            "tokyo": Peer(
                "tokyo",
                key("tokyo"),
                (ip_network("10.244.2.0/24"), ip_network("192.168.77.0/24")),
                (ip_address("10.244.2.0"),),
                Endpoint("tokyo.example.net", 51821),
                Path("/etc/overlay/tokyo.psk"),
                keepalive=25,
                listen_port=4500,
            ),
        },
    )


def file(*lines, network='prefix = "10.244.0.0/16"'):
    """A file whose peers begin at line 3: [network], its one line, then *lines*."""
    return "\n".join(["[network]", network, *lines])


def paris(*lines, key=PARIS, subnets='subnets = "10.244.1.0/24"'):
    """A file with one peer: its header in line 3, key in 4, subnets in 5, then *lines* from 6."""
    return file("[peers.paris]", f'public_key = "{key}"', subnets, *lines)


@pytest.mark.parametrize(
    ("line", "endpoint"),
    [
        ('endpoint = "192.0.2.1"', Endpoint("192.0.2.1", 51820)),
        ('endpoint = "192.0.2.1"\nlisten_port = 7', Endpoint("192.0.2.1", 7)),
        ('endpoint = "192.0.2.1:9"\nlisten_port = 7', Endpoint("192.0.2.1", 9)),
        ("", None),
    ],
)
def test_an_endpoint_without_port_is_called_where_the_peer_listens(line, endpoint):
    assert parse(paris(line), PATH).peers["paris"].endpoint == endpoint


def test_a_preshared_key_file_is_relative_to_the_peers_file():
    table = parse(paris('preshared_key_file = "keys/paris.psk"'), PATH)

    assert table.peers["paris"].preshared_key_file == Path("/etc/overlay/keys/paris.psk")


def test_a_peer_may_be_one_address_without_subnets():
    table = parse(paris('address = ["10.244.9.9", "fd00::9"]', subnets=""), PATH)

    assert table.peers["paris"].subnets == ()
    assert [str(prefix) for prefix, _ in table.routes] == ["10.244.9.9/32", "fd00::9/128"]


def test_one_item_may_stand_without_its_list():
    single = paris('listen = "192.0.2.1"', 'address = "10.244.1.1"')
    listed = paris(
        'listen = ["192.0.2.1"]', 'address = ["10.244.1.1"]', subnets='subnets = ["10.244.1.0/24"]'
    )

    assert parse(single, PATH) == parse(listed, PATH)


def test_a_byte_order_mark_and_carriage_returns_change_nothing():
    assert parse("\ufeff" + EXAMPLE.replace("\n", "\r\n"), PATH) == parse(EXAMPLE, PATH)


SENTENCES = [
    # The file as a whole
    ("", None, "network is missing; write a [network] table"),
    (file(), None, "peers is missing; write a [peers.NAME] table for each host"),
    (file("[peers]"), 3, "peers has no peers; write a [peers.NAME] table"),
    ("[network]\n[peers.paris]\n", 1, "network.prefix is missing; write what the overlay carries"),
    ("network = 1", 1, "network is 1; write a [network] table"),
    (file("[[peers]]", 'name = "paris"'), 3, "peers is an array; write a [peers.NAME] table"),
    # TOML itself
    (
        "[network]\nprefix =\n",
        2,
        "this is not TOML: invalid value; write text in double quotes, as in endpoint =",
    ),
    ("[network]\nprefix = [\n\n", 2, "this is not TOML: invalid value; write text in double quotes"),
    (
        "[network\n",
        1,
        "this is not TOML: expected ']' at the end of a table declaration; close the name of the table with a bracket",
    ),
    (
        file("port 51820"),
        3,
        "this is not TOML: expected '=' after a key in a key/value pair; write key = value, as in",
    ),
    (
        file('mtu: "1420"'),
        3,
        "this is not TOML: expected '=' after a key in a key/value pair; write key = value",
    ),
    (
        paris("endpoint = 192.0.2.10"),
        6,
        "this is not TOML: expected newline or end of document after a statement; write",
    ),
    (
        paris('endpoint = "192.0.2.10'),
        6,
        "this is not TOML: unterminated string; close the double quotes on the line",
    ),
    (
        paris("listen = [1"),
        6,
        "this is not TOML: unclosed array; close the list with a bracket, as in subnets =",
    ),
    (
        paris('preshared_key_file = "C:\\x"'),
        6,
        "this is not TOML: unescaped '\\' in a string; write a backslash twice",
    ),
    (paris("!"), 6, "this is not TOML: invalid statement; write [TABLE] lines, key = value lines such as"),
    (file("[peers.paris]", "[peers.paris]"), 4, "this table is here twice; write each table once"),
    (paris('subnets = "10.244.2.0/24"'), 6, "this key is here twice; write it once"),
    ("x = " + "9" * 5000, None, "a number has thousands of digits"),
    ("x = " + "[" * 100000, None, "arrays or tables are nested too deeply"),
    # Unknown keys
    ('[netwrok]\nprefix = "10.0.0.0/8"', 1, "netwrok is not known; did you mean network?"),
    (file("", "", "[peer.paris]"), 5, "peer is not known; did you mean peers?"),
    (file("prot = 1"), 3, "network.prot is not known; did you mean port?"),
    (paris('end_point = "192.0.2.1"'), 6, "peers.paris.end_point is not known; did you mean endpoint?"),
    (paris("colour = 1"), 6, "peers.paris.colour is not known; accepted are public_key, subnets,"),
    (
        paris('private_key = "x"'),
        6,
        "peers.paris.private_key is not known; keep private keys out of this file",
    ),
    (paris('preshared_key = "x"'), 6, "is not known; did you mean preshared_key_file?"),
    ("\ufeff[network]\r\nprot = 1", 2, "network.prot is not known"),
    # The network
    (file(network="prefix = 10"), 2, "network.prefix is 10; write a prefix such as 10.244.0.0/16 in quotes"),
    (file(network="prefix = []"), 2, "network.prefix is empty; write what the overlay carries"),
    (file(network='prefix = "10.244.1.0/16"'), 2, "'10.244.1.0/16' has host bits; write 10.244.0.0/16"),
    (file(network='prefix = ["10.0.0.0/8",\n"10.0.0.0/8"]'), 3, "network.prefix[1] 10.0.0.0/8 is here twice"),
    (file("port = 0"), 3, "network.port is 0; write a UDP port from 1 to 65535"),
    (file("port = true"), 3, "network.port is true; write a UDP port from 1 to 65535"),
    (file("port = 51820.0"), 3, "network.port is 51820.0; write a UDP port"),
    (file('port = "51820"'), 3, "network.port is '51820'; write a UDP port from 1 to 65535, without quotes"),
    (file("vni = 16777216"), 3, "network.vni is 16777216; write a number from 0 to 16777215"),
    (file("gre_checksum = 1"), 3, "network.gre_checksum is 1; write true or false, without quotes"),
    (file('gre_sequence = "true"'), 3, "network.gre_sequence is 'true'; write true or false, without quotes"),
    (file("gre_key = 4294967296"), 3, "network.gre_key is 4294967296; write a number from 0 to 4294967295"),
    (file("ttl = 0"), 3, 'network.ttl is 0; write the word "inherit" in quotes, or a number from 1 to 255'),
    (
        file('ttl = "64"'),
        3,
        "network.ttl is '64'; write the word \"inherit\" in quotes, or a number from 1 to 255",
    ),
    (file('device = "tape"'), 3, "network.device is 'tape'; write tun or tap"),
    (
        file('encapsulation = "ip-in-ip"'),
        3,
        "network.encapsulation is 'ip-in-ip'; write wireguard, udp, ipip, gre, vxlan or geneve",
    ),
    (
        paris('encapsulation = "gre"', 'endpoint = "192.0.2.1:9"'),
        7,
        "peers.paris.endpoint '192.0.2.1:9' has a port, and gre has none; write 192.0.2.1",
    ),
    (
        paris('encapsulation = "ipip"', 'endpoint = "192.0.2.1"', "listen_port = 9"),
        8,
        "peers.paris.listen_port has no effect, because ipip has no ports; remove it",
    ),
    (
        file("stations = 0"),
        3,
        "network.stations is 0; write a number of Ethernet addresses from 1 to 1000000",
    ),
    (file("metrics = 9586"), 3, "network.metrics is 9586; write 127.0.0.1:9586 or"),
    (
        file('metrics = "localhost:9586"'),
        3,
        "network.metrics 'localhost:9586' has a name for an address; write",
    ),
    (file("point_to_point = 1"), 3, "network.point_to_point is 1; write true or false"),
    (file("mtu = 575"), 3, "network.mtu is 575; write bytes from 576 to 65535"),
    (file("mtu = 1979-05-27"), 3, "network.mtu is a date or time; write bytes"),
    (file('bulk = "no"'), 3, "network.bulk is 'no'; write true or false, without quotes"),
    (file("fwmark = 0x100000000"), 3, "network.fwmark is 4294967296; write a mark from 1 to 4294967295"),
    (file("fwmark = 0x" + "f" * 9999), 3, "network.fwmark is a number beyond 64 bits"),
    (
        (
            "[network]\nprefix = 'fd00::/16'\nmtu = 1000\n[peers.paris]\n"
            f"public_key = '{PARIS}'\nsubnets = 'fd00::/64'"
        ),
        3,
        "network.mtu 1000 is too small for IPv6, and network has fd00::/16; write at least 1280",
    ),
    # A peer
    (file('[peers."to kyo"]'), 3, 'peers."to kyo" is not a peer name; write 1 to 63 letters, digits'),
    (file("[peers." + "x" * 64 + "]"), 3, "is not a peer name"),
    (file('[peers."\\n"]'), 3, 'peers."\\n" is not a peer name'),
    (file("[peers]", "", "paris = 1"), 5, "peers.paris is 1; write a [peers.paris] table"),
    (paris(subnets=""), 3, "peers.paris has neither subnets nor an address"),
    (paris(subnets="subnets = []"), 3, "peers.paris has neither subnets nor an address"),
    (
        paris(subnets="subnets = {}"),
        5,
        "peers.paris.subnets is a table; write a prefix such as 10.244.1.0/24",
    ),
    (paris(subnets="subnets = [\n10]"), 6, "peers.paris.subnets[0] is 10; write a prefix"),
    (
        paris(subnets='subnets = [\n  "10.244.2.0/24", # 1\n  "10.244.1.5/24",\n]'),
        7,
        "peers.paris.subnets[1] '10.244.1.5/24' has host bits; write 10.244.1.0/24",
    ),
    (
        paris(subnets='subnets = "paris"'),
        5,
        "peers.paris.subnets 'paris' is not a prefix; write ADDRESS/LENGTH",
    ),
    (paris(subnets=f'subnets = "{"x" * 5000}"'), 5, "xxx... is not a prefix"),
    (paris(subnets='subnets = "\\u0000"'), 5, "peers.paris.subnets '\\x00' is not a prefix"),
    (paris(subnets='subnets = "0.0.0.0/0"'), 3, "peers.paris.address is missing and no subnet gives one"),
    (
        paris('address = "10.244.1.0/24"'),
        6,
        "peers.paris.address '10.244.1.0/24' has a length; write 10.244.1.0",
    ),
    (paris('address = ["10.0.0.1",', '"10.0.0.2"]'), 7, "address[1] 10.0.0.2 is a second IPv4 address"),
    (paris(key=PARIS[:-1]), 4, "peers.paris.public_key has 43 characters; a public key has 44"),
    (paris(key="=" * 44), 4, "peers.paris.public_key is not the base64 of 32 bytes"),
    (paris(key="A" * 43 + "="), 4, "peers.paris.public_key is all zeros"),
    (file("[peers.paris]", 'subnets = "10.244.1.0/24"'), 3, "peers.paris.public_key is missing"),
    (
        file("[peers.paris]", 'subnets="10.244.1.0/24"', "public_key = 1"),
        5,
        "peers.paris.public_key is 1; write",
    ),
    (paris('endpoint = "192.0.2.300"'), 6, "peers.paris.endpoint '192.0.2.300' is not an IPv4 address"),
    (paris("endpoint = []"), 6, "peers.paris.endpoint is an array; write an address or a DNS name in quotes"),
    (
        paris('endpoint = "10.244.1.1"'),
        6,
        (
            "peers.paris.endpoint 10.244.1.1 lies inside its own subnet 10.244.1.0/24: it could only be reached "
            "through the tunnel itself; give its underlay address"
        ),
    ),
    (paris("keepalive = -1"), 6, "peers.paris.keepalive is -1; write seconds from 0 to 65535"),
    (paris("listen_port = 65536"), 6, "peers.paris.listen_port is 65536; write a UDP port from 1 to 65535"),
    (paris('listen = ["::", "0.0.0.0",', '"::"]'), 7, "peers.paris.listen[2] :: is here twice"),
    (
        paris('sources = ["0.0.0.0/0", "::/0",', '"0.0.0.0/0"]'),
        7,
        "peers.paris.sources[2] 0.0.0.0/0 is here twice; write it once",
    ),
    (
        paris('mac = ["02:00:5e:10:00:01",', '"02-00-5E-10-00-01"]'),
        7,
        "peers.paris.mac[1] 02:00:5e:10:00:01 is here twice; write it once",
    ),
    (paris('listen = "eth0"'), 6, "peers.paris.listen 'eth0' is not an IP address"),
    (
        paris("preshared_key_file = 1"),
        6,
        "peers.paris.preshared_key_file is 1; write the path of a file in quotes",
    ),
    (paris('preshared_key_file = ""'), 6, "peers.paris.preshared_key_file is ''; write the path of a file"),
    (paris('preshared_key_file = "\\u0000"'), 6, "peers.paris.preshared_key_file is '\\x00'; write the path"),
    (
        paris(f'preshared_key_file = "{ROME}"'),
        6,
        "peers.paris.preshared_key_file is a key itself; put it into a file",
    ),
    # Two peers
    (
        paris("[peers.rome]", f'public_key = "{PARIS}"', 'subnets = "10.244.2.0/24"'),
        7,
        "peers.rome.public_key is also the public key of peers.paris",
    ),
    (
        paris("[peers.rome]", f'public_key = "{ROME}"', 'subnets = ["10.244.2.0/24",', '"10.244.1.0/24"]'),
        9,
        "peers.rome.subnets[1] 10.244.1.0/24 is also a subnet of peers.paris",
    ),
    (
        paris(subnets='subnets = ["10.244.1.0/24",\n"10.244.1.0/24"]'),
        6,
        "peers.paris.subnets[1] 10.244.1.0/24 is here twice",
    ),
    (
        paris("[peers.rome]", f'public_key = "{ROME}"', 'subnets = "10.244.1.0/25"'),
        6,
        "peers.rome.address 10.244.1.0 is also the address of peers.paris",
    ),
    (
        paris("[peers.rome]", f'public_key = "{ROME}"', 'address = "10.244.1.0"'),
        8,
        "peers.rome.address 10.244.1.0 is also the address of peers.paris",
    ),
]


@pytest.mark.parametrize(("text", "line", "words"), SENTENCES, ids=[words[:50] for *_, words in SENTENCES])
def test_what_is_wrong_gets_one_sentence_with_its_line(text, line, words):
    with pytest.raises(TableError) as caught:
        parse(text, PATH)

    sentence = str(caught.value)
    assert words in sentence
    assert caught.value.line == line
    assert sentence.startswith(f"{PATH}, line {line}: " if line else f"{PATH}: ")
    assert sentence.isprintable()
    assert len(sentence) < 300


def test_a_key_that_should_not_be_in_the_file_is_not_repeated():
    for text in (
        paris(f'preshared_key_file = "{ROME}"'),
        paris(key=ROME[:-2]),
        paris(f'private_key = "{ROME}"'),
    ):
        with pytest.raises(TableError) as caught:
            parse(text, PATH)

        assert ROME[:20] not in str(caught.value)


NAMES = st.text(alphabet="abcXYZ019._-", min_size=1, max_size=63)
PORTS = st.integers(1, 65535)
HOSTS = st.ip_addresses().filter(is_host_address).map(str).filter(lambda text: not text.startswith("::ffff:"))
ENDPOINTS = st.builds(Endpoint, HOSTS | st.sampled_from(["vpn.example.net", "a", "x-1.example."]), PORTS)
SUBNETS = st.builds(
    lambda address, length: ip_network((address, min(length, address.max_prefixlen)), strict=False),
    st.ip_addresses(),
    st.integers(0, 128),
)
ADDRESSES = st.tuples(
    st.ip_addresses(v=4).filter(is_host_address), st.ip_addresses(v=6).filter(is_host_address)
)
PEERS = st.builds(
    Peer,
    name=NAMES,
    public_key=st.binary(min_size=32, max_size=32).filter(any),
    subnets=st.lists(SUBNETS, max_size=4, unique=True).map(tuple),
    addresses=ADDRESSES | ADDRESSES.map(lambda both: both[:1]) | ADDRESSES.map(lambda both: both[1:]),
    endpoint=st.none() | ENDPOINTS,
    preshared_key_file=st.none() | st.sampled_from([Path("/x.psk"), Path("/etc/overlay/a b.psk")]),
    keepalive=st.integers(0, 65535),
    listen=st.lists(st.ip_addresses(), max_size=3, unique=True).map(tuple),
    listen_port=st.none() | PORTS,
    macs=st.lists(st.binary(min_size=5, max_size=5), max_size=2, unique=True).map(
        lambda rests: tuple(b"\2" + rest for rest in rests)
    ),
)
NETWORKS = st.builds(
    Network,
    prefixes=st.lists(SUBNETS, min_size=1, max_size=3, unique=True).map(tuple),
    ports=st.fixed_dictionaries(dict.fromkeys(ENCAPSULATION_PORTS, PORTS)),
    mtu=st.none() | st.integers(576, 65535),
    fwmark=st.none() | st.integers(1, 2**32 - 1),
    bulk=st.booleans(),
    vni=st.integers(0, 2**24 - 1),
    ttl=st.none() | st.integers(0, 255),
    device=st.sampled_from(["tun", "tap"]),
    point_to_point=st.booleans(),
    metrics=st.sampled_from([None, TcpPlace(ip_address("::1"), 9586), UnixPlace("/run/overlay/m.sock")]),
    stations=st.integers(1, 1_000_000),
)


@pytest.mark.parametrize("value", [None, False, True])
def test_gre_has_checksums_and_numbers_where_the_file_says_so(value):
    fields = {"gre_checksum": value, "gre_sequence": value, "gre_key": 7}
    made = examples.table(
        examples.peer("paris", "10.244.1.0/24", endpoint="192.0.2.1", encapsulation="gre", **fields),
        examples.peer("tokyo", "10.244.2.0/24", endpoint="192.0.2.2"),
        encapsulation="gre",
        **fields,
    )
    made = replace(
        made,
        peers={
            name: replace(each, endpoint=replace(each.endpoint, port=0)) for name, each in made.peers.items()
        },
    )

    assert parse(render(made), PATH) == made


@given(NETWORKS, st.lists(PEERS, min_size=1, max_size=4))
def test_every_table_reads_back_from_its_file(network, peers):
    try:
        table = Table(network, {peer.name: peer for peer in peers})
    except KeyProblem:
        return

    assert parse(render(table), PATH) == table


def refusal(text):
    """Return the TableError for *text*; None if it gives a table."""
    try:
        parse(text, PATH)
    except TableError as error:
        return error
    return None


LINES = EXAMPLE.splitlines() + [text for text, *_ in SENTENCES if len(text) < 400]
MANGLED = st.lists(st.sampled_from(LINES) | st.text(max_size=10), max_size=12).map("\n".join)


@given(st.text() | MANGLED)
def test_any_text_gives_a_table_or_a_table_error(text):
    error = refusal(text)

    assert error is None or error.line is None or 1 <= error.line <= text.count("\n") + 1


VALUES = st.recursive(
    st.sampled_from(
        ["1", "-1", "1e9", "nan", "true", "07:32:00", '""', '"10.0.0.0/8"', '"10.0.0.1"', f'"{ROME}"']
    ),
    lambda values: (
        st.lists(values, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | values.map(lambda value: f"{{ x = {value} }}")
    ),
    max_leaves=5,
)


@given(st.integers(0, len(EXAMPLE.splitlines()) - 1), VALUES)
def test_any_value_in_any_place_gives_a_table_or_an_error_at_its_line(number, value):
    lines = EXAMPLE.splitlines()
    name, equals, _ = lines[number].partition(" = ")
    lines[number] = f"{name} = {value}" if equals else lines[number]

    error = refusal("\n".join(lines))

    # The error is at the value, or at its peer's header if the value makes a default impossible.
    header = max(index for index in range(number + 1) if lines[index].startswith("["))
    assert error is None or error.line in {number + 1, header + 1} or "also" in error.problem


def test_a_file_is_loaded_from_its_path(tmp_path):
    path = tmp_path / "peers.toml"
    path.write_text(EXAMPLE)

    assert load(path) == parse(EXAMPLE, path)


@given(st.binary())
def test_any_bytes_in_a_file_give_a_table_or_a_table_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.toml"
    path.write_bytes(data)

    with pytest.raises(TableError):
        load(path)


def test_a_file_that_is_not_there_or_no_file_gets_a_sentence(tmp_path):
    for path, words in [
        (tmp_path / "absent.toml", "absent.toml: there is no such file"),
        (tmp_path, ": this is a directory; name the peers file in it"),
        (tmp_path / "peers\0.toml", ": it cannot be read ("),  # each Python has its own words for why
        (tmp_path / ("x" * 300), ": it cannot be read (File name too long)"),
    ]:
        with pytest.raises(TableError) as caught:
            load(path)

        assert words in str(caught.value)
        assert caught.value.line is None


@pytest.fixture
def unreadable(tmp_path):
    """A file that even its owner may not read; root can read every file, so become another user in the meantime."""
    path = tmp_path / "peers.toml"
    path.touch(mode=0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield path
    if is_root:
        os.seteuid(0)


def test_a_file_that_must_not_be_read_gets_a_sentence(unreadable):
    with pytest.raises(TableError, match="reading it is not permitted; change its mode or owner"):
        load(unreadable)


def test_bytes_that_are_not_utf_8_are_named_with_their_line(tmp_path):
    path = tmp_path / "peers.toml"
    path.write_bytes(b"[network]\n# caf\xe9\n")

    with pytest.raises(TableError, match="line 2: byte 0xe9 is not UTF-8; save the file as UTF-8 text"):
        load(path)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EMFILE, "raise the limit of what ran short"),
        (errno.EIO, "see what is wrong with its file system"),
    ],
)
def test_a_file_that_can_be_read_later_is_not_called_wrong(tmp_path, monkeypatch, code, remedy):
    """Before, an agent that was short of descriptors during a reload waited for a change of the file."""
    path = tmp_path / "peers.toml"

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("peers.toml.read_regular", fail)

    with pytest.raises(StoreError, match=remedy):
        load(path)
