"""overlay explain."""

from __future__ import annotations

import json

import pytest

from overlay.cli.explain import _lines

FOUND = {
    "destination": "10.244.2.7",
    "source": "10.244.0.1",
    "origin": "here",
    "goes": True,
    "path": "tunnel",
    "refused_by": None,
    "reason": None,
    "peer": "tokyo",
    "service": None,
    "route": {"interface": "overlay0"},
    "steps": [{"step": "route", "text": "10.244.0.0/16 by overlay0"}],
    "doubts": ["the packet filters of tokyo are not known here"],
}


@pytest.fixture
def explain(agent, overlay):
    def run(*arguments, **fields):
        agent.answers["explain"] = {"ok": True, "explanation": FOUND | fields}
        return overlay("explain", *arguments)

    return run


def test_a_packet_that_goes_is_explained_in_steps(explain):
    result = explain("10.244.2.7")

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "10.244.2.7 from 10.244.0.1 goes through the tunnel to tokyo",
        "  route      10.244.0.0/16 by overlay0",
        "  but        the packet filters of tokyo are not known here",
    ]


@pytest.mark.parametrize(
    ("fields", "summary"),
    [
        ({"goes": False, "path": "nowhere", "refused_by": "node", "reason": "no_peer"}, "is dropped here"),
        ({"goes": False, "path": "nowhere", "refused_by": "kernel"}, "is dropped here, by the kernel"),
        ({"goes": False, "path": "tunnel", "refused_by": "peer", "reason": "source"}, "is dropped by tokyo"),
        ({"goes": False, "path": "outside", "refused_by": "kernel"}, "leaves outside the tunnel"),
        ({"path": "outside", "peer": None}, "leaves by overlay0, not through the overlay"),
        ({"path": "here", "peer": None}, "is delivered to this host"),
        (
            {"path": "here", "origin": "tunnel", "peer": None},
            "comes out of the tunnel and is delivered to this host",
        ),
        (
            {"path": "outside", "origin": "tunnel", "peer": None},
            "comes out of the tunnel and is forwarded by overlay0",
        ),
        ({"peer": None, "service": {"name": "web"}}, "goes to a server of web"),
    ],
)
def test_the_first_line_says_how_it_ends_and_so_does_the_exit_code(explain, fields, summary):
    result = explain("10.244.2.7", **fields)

    assert result.stdout.splitlines()[0] == f"10.244.2.7 from 10.244.0.1 {summary}"
    assert result.exit_code == (0 if (FOUND | fields)["goes"] else 1)


MAC = "aa:bb:cc:dd:ee:ff"


@pytest.mark.parametrize(
    ("destination", "fields", "line"),
    [
        (MAC, {"peer": "tokyo"}, f"a frame to {MAC} goes through the tunnel to tokyo"),
        (
            MAC,
            {"peer": None, "station": {"mac": MAC, "place": "unknown"}},
            f"a frame to {MAC} goes to every peer",
        ),
        (
            MAC,
            {"peer": None, "path": "here", "station": {"mac": MAC, "place": "here"}},
            f"a frame to {MAC} stays on this side of the tap",
        ),
        (
            "10.9.9.9",
            {"peer": None, "station": {"mac": None, "place": "unknown"}},
            "10.9.9.9 is asked for at every peer",
        ),
    ],
)
def test_the_first_line_on_a_tap_says_where_the_station_is(explain, destination, fields, line):
    result = explain(destination, destination=destination, source=None, **fields)

    assert result.stdout.splitlines()[0] == line


def test_what_is_asked_is_what_is_written(explain, agent):
    explain(
        "web", "from", "tokyo", "--protocol", "tcp", "--port", "80", "--source-port", "4000", "--size", "1400"
    )

    assert agent.requests == [
        {
            "op": "explain",
            "name": "web",
            "source": "tokyo",
            "protocol": "tcp",
            "port": 80,
            "source_port": 4000,
            "size": 1400,
        }
    ]


def test_json_has_a_schema(explain):
    assert json.loads(explain("10.244.2.7", "--json").stdout) == {"schema": 1} | FOUND


@pytest.mark.parametrize(
    "wrong", [["a", "from"], ["a", "to", "b"], ["a", "from", "b", "c"], [], ["a", "--port", "0"]]
)
def test_wrong_use_is_a_sentence(explain, wrong):
    assert explain(*wrong).exit_code == 2


def test_a_name_of_nobody_gets_a_suggestion_for_itself(agent, overlay):
    known = {
        "ok": False,
        "kind": "unknown_peer",
        "error": "tokio is nobody",
        "asked": "tokio",
        "known": ["tokyo", "rome"],
    }
    agent.answers["explain"] = known

    result = overlay("explain", "rome", "from", "tokio")

    assert (result.exit_code, result.stderr) == (2, "Error: tokio is nobody; did you mean tokyo?\n")


@pytest.mark.parametrize("size", ["0", "19", "65536", "abc"])
def test_a_size_out_of_bounds_is_one_sentence(explain, size):
    result = explain("10.244.2.7", "--size", size)

    assert (result.exit_code, result.stdout, result.stderr.count("Error: ")) == (2, "", 1)
    assert result.stderr.endswith(f"'--size': '{size}' is not a number from 20 to 65535\n")


def test_words_that_do_not_belong_there_are_named_with_what_to_write(explain):
    result = explain("10.244.2.7", "form", "10.244.1.5")

    assert result.exit_code == 2
    assert result.stderr == (
        "Error: form 10.244.1.5 does not belong after 10.244.2.7: write `overlay explain 10.244.2.7` or "
        "`overlay explain 10.244.2.7 from ADDRESS`\n"
    )


@pytest.mark.parametrize("width", [40, 100])
def test_no_line_is_wider_than_the_terminal(width):
    steps = [{"step": "far side", "text": "tokyo accepts the source 10.244.0.1, " * 4}]

    lines = "\n".join(_lines(FOUND | {"steps": steps, "doubts": ["not known " * 20]}, width)).splitlines()

    assert width - 12 < max(map(len, lines[1:])) <= width
