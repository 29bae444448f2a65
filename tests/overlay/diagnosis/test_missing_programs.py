"""The report on a host without nft, and the place in the file that needs it."""

from __future__ import annotations

import pytest

from overlay.diagnosis.missing_programs import find_missing, has_program
from peers.toml import parse
from tests.peers.services.files import FIRST_LINE, HEAD, PATH, PLAIN, web


def missing(tmp_path, own, *lines, has=lambda _: False):
    text = HEAD + web(*lines) + PLAIN
    path = tmp_path / "peers.toml"
    path.write_text(text)
    table = parse(text, PATH)
    found = find_missing(table, table.peers[own], [tmp_path / "absent", path], has)
    return None if found is None else str(found).replace(str(path), "peers.toml")


@pytest.mark.parametrize(
    ("own", "lines", "line", "problem"),
    [
        ("web2", ("ports = 80", 'directors = ["lb1"]', 'servers = [', '"web1",', '{ peer = "web2", port = 8080 },', "]"), 6,
         "services.web.servers[1].port sends packets of clients to port 8080"),
        ("web3", ("ports = 80", 'directors = ["lb1"]', 'servers = { peer = "web3", address = "10.244.5.7" }'), 4,
         "services.web.servers.address passes packets of clients on to 10.244.5.7"),
        ("static", ("ports = 80", 'directors = ["lb1"]', 'servers = "web1"', 'sorry = { peer = "static", port = 81 }'), 5,
         "services.web.sorry.port sends packets of clients to port 81"),
        ("lb1", ("ports = 80", 'directors = ["lb1"]', 'servers = ["web1", "lb1"]'), 4,
         "services.web.servers[1] is a server that also balances the service, and packets of clients get its own address"),
    ],
)  # fmt: skip
def test_program_that_is_missing_is_named_with_file_line_and_remedy(tmp_path, own, lines, line, problem):
    assert missing(tmp_path, own, *lines) == (
        f"peers.toml, line {FIRST_LINE + line}: {problem}, which needs the program nft on the host of {own}: "
        "install nftables there"
    )
    assert missing(tmp_path, own, *lines, has=lambda name: name == "nft") is None
    assert missing(tmp_path, "web1", *lines) is None


def test_segments_that_have_to_fit_take_it_too(tmp_path):
    found = missing(tmp_path, "web1", "ports = 80", 'directors = ["plain"]', 'servers = "web1"')
    assert found is not None
    assert "gets unencrypted packets from directors of services.web" in found


def test_without_a_file_the_place_is_named():
    text = HEAD + web("ports = 80", 'directors = ["lb1"]', 'servers = { peer = "web1", port = 8080 }')
    table = parse(text, PATH)
    found = find_missing(table, table.peers["web1"], (), lambda _: False)
    assert str(found).startswith(
        "services.web.servers.port sends packets of clients to port 8080, which needs"
    )


def test_programs_are_looked_for_where_administrators_have_them():
    assert has_program("sh")
    assert not has_program("no-such-program")
