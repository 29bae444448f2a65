"""Every kind of invalid input about services: one sentence with file, line and remedy, and exit code 2."""

from __future__ import annotations

import pytest

from overlay.crypto.keys import PrivateKey, encode_key
from overlay.diagnosis import missing_programs
from tests.peers.examples import key_text
from tests.peers.services.files import FIRST_LINE, HEAD, PLAIN

PRIVATE = PrivateKey(bytes(range(32)))
WEB = [
    "[services.web]",
    'address = "192.0.2.100"',
    "ports = 80",
    'directors = ["lb1"]',
    'servers = ["web1", "web2"]',
]
ADDRESS, PORTS, DIRECTORS, SERVERS, MORE = range(1, 6)


def table(server, place=SERVERS):
    """Return a change of the second server."""
    return place, f'servers = ["web1", {server}]'


# What replaces the line of the service, or follows it; and the message after file and line
WRONG = {
    "an unknown scheduler": (
        (MORE, 'scheduler = "wcl"'),
        "services.web.scheduler is 'wcl'; write maglev, rr, wrr, lc, wlc, sed, nq, sh, dh, fo or ovf",
    ),
    "an unknown server": (table('"wbe2"'), "services.web.servers[1] wbe2 is not a peer; did you mean web2?"),
    "an address that a host has": (
        (ADDRESS, 'address = "10.244.0.3"'),
        "services.web.address 10.244.0.3 is also the address of peers.web1; write an address that no host has",
    ),
    "an endpoint of a host": (
        (ADDRESS, 'address = "198.51.100.3"'),
        "services.web.address 198.51.100.3 is also the endpoint of peers.web1; write an address that no host has",
    ),
    "two services with one address and port": (
        (MORE, '[services.more]\naddress = "192.0.2.100"\nports = 80\nservers = "web1"'),
        ("services.more.ports takes port 80 of 192.0.2.100 by tcp, which services.web takes too; write other ports, or "
        "narrower ones, which win"),
    ),
    "a check of another protocol": (
        (MORE, 'check = { kind = "dns" }'),
        ("services.web.check does not fit: kind dns speaks udp and the service tcp; write a kind that does, or the port of "
        "something else at the server, such as port = 8080"),
    ),
    "a check without a port": (
        (PORTS, 'check = { kind = "tcp" }'),
        "services.web.check has no port, and neither has the service; write the one to check, such as port = 80 for kind tcp",
    ),
    "a check by the name of a kind": (
        (MORE, 'check = "http"'),
        "services.web.check is 'http', which is not in [checks]; write check = { kind = \"http\" }, or a [checks.http] table",
    ),
    "an unknown check": (
        (MORE, 'check = "page"'),
        "services.web.check is 'page', which is not in [checks]; write a [checks.page] table",
    ),
    "an unknown kind of check": (
        (MORE, 'check = { kind = "htpp" }'),
        "services.web.check.kind is 'htpp'; write tcp, http, https, udp, dns, ping or script",
    ),
    "a key of another kind of check": (
        (MORE, 'check = { kind = "tcp", path = "/" }'),
        'services.web.check.path is for kind = "http" or "https", and this is tcp; remove it',
    ),
    "a status backwards": (
        (MORE, 'check = { kind = "http", status = "299-200" }'),
        "services.web.check.status is '299-200'; write numbers from 100 to 599, the smaller one first",
    ),
    "a check without time": (
        (MORE, 'check = { kind = "tcp", timeout = 0 }'),
        "services.web.check.timeout is 0; write seconds from 0.1 to 3600",
    ),
    "an expression that is none": (
        (MORE, 'check = { kind = "http", regex = "(" }'),
        "services.web.check.regex is not a regular expression: missing ), unterminated subpattern at position 0; correct it",
    ),
    "a weight beyond 65535": (
        table('{ peer = "web2", weight = 65536 }'),
        "services.web.servers[1].weight is 65536; write a weight from 0 to 65535",
    ),
    "a weight below 0": (
        table('{ peer = "web2", weight = -1 }'),
        "services.web.servers[1].weight is -1; write a weight from 0 to 65535",
    ),
    "an unknown protocol": (
        (MORE, 'protocol = "icmp"'),
        "services.web.protocol 'icmp' is not one; write tcp, udp or sctp",
    ),
    "a port beyond 65535": (
        (PORTS, "ports = 70000"),
        "services.web.ports is 70000; write numbers from 1 to 65535",
    ),
    "ports backwards": (
        (PORTS, 'ports = "8099-8000"'),
        "services.web.ports is '8099-8000'; write numbers from 1 to 65535, the smaller one first",
    ),
    "an unknown director": (
        (DIRECTORS, 'directors = ["lb9"]'),
        "services.web.directors lb9 is not a peer; did you mean lb2?",
    ),
    "all nodes in a list": (
        (DIRECTORS, 'directors = ["all"]'),
        'services.web.directors has "all" in a list; write directors = "all" for every node',
    ),
    "persistence below 0": (
        (MORE, "persistence = -1"),
        "services.web.persistence is -1; write seconds from 0 to 2678400",
    ),
    "networks of clients without persistence": (
        (MORE, "persistence_prefix = 24"),
        "services.web.persistence_prefix has no effect without persistence; write how many seconds, or remove it",
    ),
    "too large a prefix": (
        (MORE, "persistence_prefix = 40\npersistence = 300"),
        "services.web.persistence_prefix is 40; write bits of an IPv4 address from 1 to 32",
    ),
    "an unknown sorry server": (
        (MORE, 'sorry = "nobody"'),
        "services.web.sorry nobody is not a peer; write a [peers.nobody] table, or the name of a peer",
    ),
    "a quorum in quotes": (
        (MORE, 'quorum = "two"'),
        "services.web.quorum is 'two'; write a sum of weights from 1 to 2147483647, without quotes",
    ),
    "an unknown key": ((MORE, 'shceduler = "rr"'), "services.web.shceduler is not known; did you mean scheduler?"),
    "an address that is none": (
        (ADDRESS, 'address = "192.0.2.300"'),
        "services.web.address '192.0.2.300' is not an IP address; write one such as 10.244.1.1 or fd00:244:1::1",
    ),
    "an address of no host": (
        (ADDRESS, 'address = "224.0.0.1"'),
        "services.web.address '224.0.0.1' is not an address that a host can have; write one such as 10.244.1.1",
    ),
    "a server twice": (
        table('"web1"'),
        "services.web.servers[1] is also the server web1; give it another address or port, or remove it",
    ),
    "a server without a peer": (
        table("{ port = 80 }"),
        "services.web.servers[1] names no peer; write the name of a peer, or a table such as { peer = \"web2\", weight = 3 }",
    ),
    "a container behind another host": (
        table('{ peer = "web2", address = "10.244.1.9" }'),
        ("services.web.servers[1].address 10.244.1.9 is behind peers.lb1 and not behind web2; write that peer, or another "
        "address"),
    ),
    "port mapping without an agent": (
        table('{ peer = "plain", port = 8080 }'),
        ("services.web.servers[1].port is another than that of the service, and peers.plain runs no agent that could map it; "
        "remove it and let the server listen on the port of the service, or agent = true at the peer if it does"),
    ),
    "a way of answers that is none": ((MORE, 'reply = "back"'), "services.web.reply is 'back'; write direct or director"),
    "an unknown group of VRRP": (
        (MORE, 'vrrp = "lan"'),
        "services.web.vrrp is 'lan', which is not in [vrrp]; write a [vrrp.lan] table",
    ),
    "a router beyond 255": (
        (MORE, 'vrrp = { router = 300, interface = "eth0" }'),
        "services.web.vrrp.router is 300; write a virtual router identifier from 1 to 255",
    ),
}  # fmt: skip


def write(tmp_path, place, line, head=HEAD):
    lines = [*WEB[:place], line, *WEB[place + 1 :]]
    path = tmp_path / "peers.toml"
    path.write_text(f"{head}{chr(10).join(lines)}\n{PLAIN}")
    return path


@pytest.mark.parametrize("what", WRONG)
def test_check_says_it_in_one_sentence_with_file_line_and_remedy(overlay, tmp_path, what):
    (place, line), said = WRONG[what]
    path = write(tmp_path, place, line)

    result = overlay("check", "--peers", path)

    number = FIRST_LINE + place + (2 if "more" in said else 0)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {path}, line {number}: {said}\n"


def test_port_mapping_without_nft_is_named_by_check_and_refused_by_up(overlay, tmp_path, monkeypatch):
    monkeypatch.setattr(missing_programs, "FOLDERS", [str(tmp_path)])
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text(PRIVATE.to_base64() + "\n")
    head = HEAD.replace(key_text("web2"), encode_key(PRIVATE.public))
    path = write(tmp_path, *table('{ peer = "web2", port = 8080 }'), head=head)
    said = (
        f"{path}, line {FIRST_LINE + SERVERS}: services.web.servers[1].port sends packets of clients to port 8080, "
        "which needs the program nft on the host of web2: install nftables there\n"
    )

    checked = overlay("check", "--peers", path, "--key", key)
    refused = overlay("up", "--peers", path, "--key", key, "--interface", "ovl-nft")

    assert (checked.exit_code, refused.exit_code) == (0, 2)
    assert f"Warning: {said}" in checked.stderr
    assert refused.stderr.endswith(f"Error: {said}")
