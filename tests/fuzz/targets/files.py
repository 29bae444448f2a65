"""Files that an operator writes: the peers file and its parts, and key files."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from overlay.crypto.keys import PresharedKey, PrivateKey
from overlay.keys.files import KeyFileError, load_preshared_key, load_private_key
from peers import foreign, toml
from peers.addresses import parse_address, parse_host_address, parse_prefix
from peers.errors import TableError
from peers.hints import warnings
from peers.lines import find_line
from peers.mac import format_mac, parse_mac
from peers.peer import Endpoint, format_public_key, parse_public_key
from peers.problems import find_problems
from peers.sections import TableReader
from tests.fuzz.target import join, split

PATH = Path("/etc/overlay/peers.toml")
KEYS = [format_public_key(bytes([number]) * 32) for number in (1, 2)]
NETWORK = '[network]\nprefix = ["10.244.0.0/16"]\n'
WHOLE = f"""{NETWORK}encapsulation = "vxlan"
vni = 7
mtu = 1400

[peers.berlin]
endpoint = "192.0.2.1:4500"  # here
subnets = ["10.244.1.0/24", "fd00:1::/64"]

[peers."new york"]
public_key = "{KEYS[1]}"
encapsulation = "wireguard"
preshared_key_file = "psk"
subnets = ["10.244.2.0/24"]
keepalive = 25
"""
PLAIN = "".join(
    f'[peers.p{number}]\npublic_key = "{key}"\nendpoint = "[2001:db8::{number}]"\nsubnets = ["10.244.{number}.0/24"]\n'
    for number, key in enumerate(KEYS)
)
SERVICES = """
[services.web]
address = ["192.0.2.100", "2001:db8::100"]
ports = [80, "8000-8099"]
directors = ["p0"]
servers = ["p0", { peer = "p1", weight = 3, port = 8080, check = { kind = "tcp" } }]
check = ["page", { kind = "script", command = "/bin/true 1" }]
vrrp = "lan"

[[services.dns.servers]]
peer = "p1"
address = "10.244.1.9"
[services.dns]
address = "192.0.2.53"
protocol = "udp"
[checks.page]
kind = "http"
regex = "^a|b$"
status = [200, "300-399"]
[vrrp.lan]
router = 51
interface = { p0 = "eth0" }
"""


def text_of(data):
    return data.decode(errors="replace")


def refusal(read, *arguments):
    """Return the table that *read* makes, or the sentence with which it refuses."""
    try:
        return read(*arguments)
    except TableError as error:
        return str(error)


def peers_file(data):
    text = text_of(data)
    read = refusal(toml.parse, text, PATH)
    assert not isinstance(read, str) or "\n" not in read.strip()
    if not isinstance(read, str):
        warnings(read)
    foreign.recognize(text)
    find_line(text, ("peers", "berlin", "subnets", 0))


def problems(data):
    text = text_of(data)
    found = find_problems(text, PATH)
    assert bool(found) == isinstance(refusal(toml.parse, text, PATH), str)


def reload(data):
    """A reader that has read one text reads the next as if it were the first."""
    reader = TableReader(PATH)
    for piece in split(data, 3):
        text = text_of(piece)
        assert refusal(reader.parse, text) == refusal(toml.parse, text, PATH)


def peers_seeds():
    yield WHOLE.encode()
    yield (NETWORK + PLAIN).encode()
    yield (NETWORK + PLAIN + SERVICES).encode()
    yield b"[Interface]\nPrivateKey = x\n[Peer]\n"


def reload_seeds():
    services = NETWORK + PLAIN + SERVICES
    yield join([services.encode(), services.replace("weight = 3", "weight = 4").encode()])
    yield join([(NETWORK + PLAIN).encode(), (NETWORK + PLAIN).replace("10.244.1", "10.244.9").encode()])


def key_file(data):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "key")
        path.write_bytes(data)
        for load in (load_private_key, load_preshared_key):
            with contextlib.suppress(KeyFileError):
                load(path)


def key_seeds():
    yield PrivateKey(bytes(range(32))).to_base64().encode() + b"\n"
    yield PresharedKey(bytes(range(32))).to_base64().encode()


def endpoint(data):
    text = text_of(data)
    for parse in (parse_prefix, parse_address, parse_host_address, parse_public_key):
        with contextlib.suppress(ValueError):
            parse(text)
    with contextlib.suppress(ValueError):
        Endpoint.parse(text, 51820)
    with contextlib.suppress(ValueError):
        assert parse_mac(format_mac(parse_mac(text))) == parse_mac(text)


def endpoint_seeds():
    for text in (
        "192.0.2.1:4500",
        "[2001:db8::1]:4500",
        "host.example",
        "10.0.0.0/8",
        "02:00:5e:10:00:01",
        KEYS[0],
    ):
        yield text.encode()
