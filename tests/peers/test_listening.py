from __future__ import annotations

import pytest

from peers.listening import UNIX_PATH_SIZE, parse_place


@pytest.mark.parametrize(
    ("text", "is_local"),
    [
        ("127.0.0.1:9586", True),
        ("[::1]:9586", True),
        ("0.0.0.0:9586", False),
        ("[::]:1", False),
        ("192.0.2.10:65535", False),
        ("[fe80::1%eth0]:80", False),
        ("/run/overlay/metrics.sock", True),
        ("/" + "x" * (UNIX_PATH_SIZE - 1), True),
    ],
)
def test_place_is_read_and_written_alike_and_known_to_be_local(text, is_local):
    place = parse_place(text)

    assert str(place) == text
    assert place.is_local is is_local


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not an address with a port"),
        ("9586", "is not an address with a port"),
        ("127.0.0.1", "is not an address with a port"),
        ("::1:9586", "is not an address with a port"),
        ("[::1]", "is not an address with a port"),
        ("metrics.sock", "is not an address with a port"),
        (":9586", "has no address; write 127.0.0.1:9586, or 0.0.0.0:9586 for every address"),
        ("*:9586", "has no address"),
        ("localhost:9586", "has a name for an address; write 127.0.0.1:9586"),
        ("paris:9586", "has no valid address"),
        ("[127.0.0.1]:9586", "has no valid address"),
        ("[]:9586", "has no valid address"),
        ("224.0.0.1:9586", "has no valid address"),
        ("127.0.0.1:0", "has no valid port"),
        ("127.0.0.1:65536", "has no valid port"),
        ("127.0.0.1:٣", "has no valid port"),
        ("127.0.0.1:", "has no valid port"),
        ("/" + "x" * UNIX_PATH_SIZE, "is not the path of a socket"),
        ("/run/\0", "is not the path of a socket"),
    ],
)
def test_what_is_no_place_is_refused_with_what_to_write(text, said):
    with pytest.raises(ValueError, match="^" + said.replace(".", r"\.")):
        parse_place(text)
