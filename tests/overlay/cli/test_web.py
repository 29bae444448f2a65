from __future__ import annotations

import pytest

from overlay.cli.web import describe
from peers.listening import parse_place


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("8051", "is not an address with a port; write 127.0.0.1:8051 or /run/overlay/page.sock"),
        ("elsewhere:8051", "has no valid address; write 127.0.0.1:8051 or /run/overlay/page.sock"),
        ("localhost:8051", "has a name for an address; write 127.0.0.1:8051"),
        ("127.0.0.1:0", "has no valid port"),
        (":8051", "has no address"),
        ("::1:8051", "is not an address with a port"),
    ],
)
def test_a_place_that_there_cannot_be_is_refused(overlay, place, problem):
    result = overlay("web", "--listen", place)

    assert result.exit_code == 2
    assert problem in result.stderr


def test_a_place_is_named_as_a_browser_takes_it():
    assert describe(parse_place("127.0.0.1:8051"), None) == "http://127.0.0.1:8051/"
    assert describe(parse_place("[2001:db8::1]:80"), "x") == "http://[2001:db8::1]:80/#token=x"
    assert describe(parse_place("/run/page.sock"), None) == "/run/page.sock"
    assert describe(parse_place("/run/page.sock"), "x") == "/run/page.sock  #token=x"


@pytest.mark.parametrize(("interface", "is_told"), [("nosuch", True), ("overlay0", False)])
def test_interface_without_an_agent_is_reported_and_served(
    overlay, agent, tmp_path, monkeypatch, interface, is_told
):
    monkeypatch.setattr("overlay.doors.webserver.run", lambda _, __, ___, ____, begun: begun([]))

    result = overlay("web", "--interface", interface, "--listen", tmp_path / "page.sock")

    assert ("no agent runs for nosuch yet" in result.stderr) == is_told
    assert str(tmp_path / "page.sock") in result.stdout
