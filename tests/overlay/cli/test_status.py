import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from overlay.documents import renamed
from overlay.host.control import control_path
from overlay.reasons import REASONS
from tests.overlay.cli.fakes import STATUS, FakeAgent, peer_answer, peer_status

ROOT = Path(__file__).parents[3]

TOKYO = peer_status(
    "tokyo",
    state="up",
    endpoint="192.0.2.2:51820",
    subnets=["10.244.2.0/24", "192.168.77.0/24", "192.168.78.0/24"],
    last_handshake=12.4,
    last_received=3.9,
    path_mtu=1344,
    learnt_macs=7,
    rx_bytes=812,
    tx_bytes=3 * 1024 * 1024,
    drops={"replayed": 3, "wrong_source": 12, "short": 0},
)
ROME = peer_status("rome", subnets=["10.244.3.0/24"], state="idle")


def answer(**fields):
    return {"ok": True, "status": STATUS | fields}


def test_status_shows_node_and_peers(overlay, agent):
    agent.answers["status"] = answer(peers=[TOKYO, ROME], drops={"unknown_index": 7})

    result = overlay("status")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "node        paris\n"
        "interface   overlay0, MTU 1420, port 51820\n"
        "MTU         1500 on the way to tokyo at 192.0.2.2, less 80 for the tunnel\n"
        "addresses   10.244.1.0, fd00:244:1::\n"
        "network     10.244.0.0/16\n"
        "public key  CgXSm3ePSUZYhd1QfEqQZ5CR5xkX3omnyO672MUvlBE=\n"
        "peers file  /etc/overlay/peers.toml\n"
        "agent       process 4321, forwarder process 4322 (compiled), up for 1 h 2 min\n"
        "\n"
        "dropped     this node: unknown_index 7\n"
        "dropped     tokyo: wrong_source 12, replayed 3\n"
        "\n"
        "NAME   STATE  ENDPOINT         SUBNETS                            HANDSHAKE  RECEIVED   MTU     RX        TX\n"
        "tokyo  up     192.0.2.2:51820  10.244.2.0/24, 192.168.77.0/24 +1  12 s ago   3 s ago   1344  812 B  3.00 MiB\n"
        "rome   idle   -                10.244.3.0/24                      never      never        -    0 B       0 B\n"
    )


def test_a_peer_in_the_clear_is_shown_with_its_encapsulation_and_a_node_without_a_key_without_one(
    overlay, agent
):
    tokyo = TOKYO | {"state": "unencrypted", "encapsulation": "udp", "last_handshake": None}
    agent.answers["status"] = answer(peers=[tokyo], public_key=None)

    result = overlay("status")

    assert "public key  -\n" in result.stdout
    assert "tokyo  unencrypted (udp)  192.0.2.2:51820" in result.stdout
    assert "never" not in result.stdout


def test_a_tap_is_shown_with_what_was_learnt(overlay, agent):
    agent.answers["status"] = answer(peers=[TOKYO, ROME], device="tap")

    result = overlay("status")

    assert "interface   overlay0, MTU 1420, port 51820\ndevice      tap\n" in result.stdout
    assert re.search(r"^NAME .* TX  MACS$", result.stdout, re.MULTILINE)
    assert re.search(r"^tokyo .* 3.00 MiB     7$", result.stdout, re.MULTILINE)


def test_a_node_alone_says_so_and_nothing_of_drops(overlay, agent):
    agent.answers["status"] = answer(drops={"short": 0})

    result = overlay("status")

    assert result.stdout.endswith("up for 1 h 2 min\n\nno other peers\n")


def test_notes_and_a_refused_peers_file_are_shown(overlay, agent):
    agent.answers["status"] = answer(
        notes=["rp_filter is strict"], reload_error="peers.toml, line 3: wrong", forwarder_pid=None
    )

    result = overlay("status")

    assert "note        rp_filter is strict\n" in result.stdout
    assert "not loaded  peers.toml, line 3: wrong\n" in result.stdout
    assert "forwarder none," in result.stdout


def test_callers_with_unknown_keys_are_shown(overlay, agent):
    stranger = {
        "public_key": TOKYO["public_key"],
        "endpoint": "192.0.2.2:51820",
        "calls": 3,
        "last_call": 2.5,
        "peer": "tokyo",
    }
    agent.answers["status"] = answer(strangers=[stranger])

    result = overlay("status")

    assert (
        f"stranger    {TOKYO['public_key']} is not the key of any peer; 3 handshakes from 192.0.2.2:51820, the last 2 "
        "s ago; tokyo is at that address: is its public_key right?\n"
    ) in result.stdout


def test_json_is_the_status_as_the_agent_gave_it_with_units_in_names(overlay, agent):
    status = STATUS | {"peers": [TOKYO], "something_new": [1]}
    agent.answers["status"] = {"ok": True, "status": status}

    result = overlay("status", "--json")

    told = json.loads(result.stdout)
    assert told == json.loads(json.dumps(renamed(status) | {"schema": 1, "drops": dict.fromkeys(REASONS, 0)}))
    assert (told["mtu_bytes"], told["uptime_seconds"]) == (1420, 3725.5)
    assert told["peers"][0]["last_handshake_age_seconds"] == 12.4
    assert told["peers"][0]["drops"] == TOKYO["drops"]


@pytest.mark.slow
def test_ten_thousand_peers_are_shown_in_the_order_of_the_file(overlay, agent):
    names = [f"p{number * 7919 % 10_000}" for number in range(10_000)]
    agent.answers["status"] = answer(peers=[peer_status(name) for name in names])

    result = overlay("status")

    assert re.findall(r"^p\d+", result.stdout, re.MULTILINE) == names


def test_watch_shows_the_status_every_second_until_interrupted(overlay, agent, clock):
    agent.answers["status"] = answer(peers=[TOKYO])
    times = []

    def interrupt_the_third_time():
        times.append(clock.time)
        if len(times) == 3:
            raise KeyboardInterrupt

    clock.on_sleep = interrupt_the_third_time
    result = overlay("status", "--watch")

    assert (result.exit_code, result.stderr) == (130, "")
    assert times == [1001.0, 1002.0, 1003.0]
    assert result.stdout.count("node        paris\n") == 3
    assert "\033" not in result.stdout


def on_terminal(surroundings, size, *arguments, **environment):
    """Return the command line on a terminal of *size* lines and columns, and the other end of that."""
    code = (
        "from pathlib import Path\n"
        "from overlay.cli import main\n"
        "from overlay.cli.surroundings import Surroundings\n"
        f"main({list(arguments)}, obj=Surroundings(Path({str(surroundings.control_directory)!r})))\n"
    )
    inherited = {
        name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}
    }
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, size)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=inherited | environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
    finally:
        os.close(terminal)
    return process, controller


def read_to_end(process, controller):
    """Return everything that *process* shows on its terminal; the other end of that is closed."""
    shown = b""
    with process, contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
        while data := os.read(controller, 65536):
            shown += data
    os.close(controller)
    return shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "is_coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_terminal_gets_colours_unless_somebody_does_not_want_them(
    agent, surroundings, environment, is_coloured
):
    agent.answers["status"] = answer(peers=[TOKYO], notes=["rp_filter is strict"])

    process, controller = on_terminal(surroundings, (20, 80), "status", **environment)
    shown = read_to_end(process, controller)

    assert b"tokyo" in shown
    assert (b"\033[33mnote" in shown, b"\033[32mup" in shown) == (is_coloured, is_coloured)


def test_status_fits_eighty_columns(overlay, agent, surroundings):
    peers = [
        peer_status(
            f"warsaw-{number}.example",
            state="unreachable",
            endpoint="[2001:db8:1111:2222:3333:4444:5555:6666]:51820",
            subnets=["fd00:244:1111::/64", "10.244.255.0/24"],
            last_handshake=86400.0,
            last_received=86400.0,
            notes=["a note"],
        )
        for number in range(20)
    ]
    agent.answers["status"] = answer(peers=peers, notes=["a long note of many words " * 9])

    process, controller = on_terminal(surroundings, (50, 80), "status", TERM="dumb")
    shown = read_to_end(process, controller)

    assert b"too narrow" in shown
    assert all(len(line) <= 80 for line in shown.decode().split("\r\n"))


@pytest.mark.slow
def test_watch_on_a_terminal_redraws_and_never_scrolls(agent, surroundings):
    agent.answers["status"] = answer(peers=[peer_status(f"peer{number}") for number in range(100)])
    process, controller = on_terminal(surroundings, (20, 40), "status", "--watch", NO_COLOR="1")
    with process:
        shown = b""
        while shown.count(b"more lines") < 2:
            shown += os.read(controller, 65536)
        process.send_signal(signal.SIGINT)
    os.close(controller)

    assert process.returncode == 130
    screens = shown.decode().split("\033[H\033[J")
    assert screens[0] == ""
    lines = screens[1].split("\r\n")
    assert lines[0] == "node        paris"
    assert lines[-2].startswith("... and 9")
    assert len(lines) == 20
    assert all(len(line) <= 40 for line in lines)


def test_watch_with_json_prints_one_object_on_each_line(overlay, agent, clock):
    agent.answers["status"] = answer()

    def interrupt_the_second_time():
        if clock.time >= 1002:
            raise KeyboardInterrupt

    clock.on_sleep = interrupt_the_second_time
    result = overlay("status", "--watch", "--json")

    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(each["schema"], each["node"]) for each in told] == [(1, "paris"), (1, "paris")]


def test_watch_waits_for_an_agent_that_is_started_again(overlay, agent, clock, surroundings):
    agent.answers["status"] = answer()
    second = []

    def restart():
        if clock.time == 1001:
            agent.stop()
        if clock.time == 1002:
            again = FakeAgent(control_path("overlay0", surroundings.control_directory)).__enter__()
            again.answers["status"] = answer(node="paris-again")
            second.append(again)
        if clock.time == 1003:
            raise KeyboardInterrupt

    clock.on_sleep = restart
    try:
        result = overlay("status", "--watch")
    finally:
        second[0].stop()

    assert result.stderr == (
        "no overlay agent runs for overlay0 here: start it with `overlay up --peers FILE`\n"
    )
    assert result.stdout.index("node        paris\n") < result.stdout.index("node        paris-again\n")


def test_agent_of_another_interface_is_named(overlay, surroundings):
    (surroundings.control_directory / "dead0.sock").touch()
    with FakeAgent(control_path("wan0", surroundings.control_directory)):
        result = overlay("status")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: no overlay agent runs for overlay0 here, but one does for wan0: add --interface wan0\n"
    )


@pytest.mark.parametrize("arguments", [["status"], ["status", "--watch"], ["ping", "tokyo"]])
def test_without_an_agent_there_is_a_sentence(overlay, arguments):
    result = overlay(*arguments)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: no overlay agent runs for overlay0 here: start it with `overlay up --peers FILE`\n"
    )


def test_status_asks_the_agent_of_the_interface(overlay, agent, surroundings):
    agent.answers["status"] = answer()

    assert overlay("status", "--interface", "wan1").exit_code == 1
    assert overlay("status", "--interface", "overlay0").exit_code == 0


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", "sixteen-letters-", "two words", "eth0:1", "tun%d", "\x1b[2J"]
)
def test_invalid_interface_name_is_refused(overlay, name):
    result = overlay("status", "--interface", name)

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{name!r} is not an interface name; write 1 to 15 letters and digits" in result.stderr


@pytest.mark.parametrize(
    "reply",
    [
        {"ok": True},
        {"ok": True, "status": None},
        {"ok": True, "status": {}},
        {"ok": True, "status": STATUS | {"peers": [{"name": "tokyo"}]}},
    ],
)
def test_an_agent_of_another_version_gets_a_sentence(overlay, agent, reply):
    agent.answers["status"] = reply

    result = overlay("status")

    assert (result.exit_code, result.stdout) == (1, "")
    assert (
        result.stderr
        == "Error: the agent of overlay0 is of another version than this command: start it again\n"
    )


def test_what_the_agent_refuses_is_passed_on(overlay, agent):
    agent.answers["status"] = {"ok": False, "kind": "failed", "error": "the forwarder is being replaced"}

    result = overlay("status")

    assert (result.exit_code, result.stderr) == (1, "Error: the forwarder is being replaced\n")


def test_ethernet_addresses_are_shown_where_packets_travel_in_frames(overlay, agent):
    own = {"own_mac": "02:00:5e:10:00:01"}
    peers = [TOKYO | own | {"mac": "02:00:5e:10:00:02"}, ROME | own | {"mac": "02:00:5e:10:00:03"}]
    agent.answers["status"] = answer(peers=[*peers, ROME | {"name": "oslo"}])

    result = overlay("status")

    assert (
        "\n\nMAC\nthis node  02:00:5e:10:00:01\ntokyo      02:00:5e:10:00:02\nrome       02:00:5e:10:00:03\n"
    ) in result.stdout


UNKNOWN = peer_status(
    "tokyo",
    state=None,
    rx_bytes=None,
    tx_bytes=None,
    learnt_macs=None,
    drops=None,
    subnets=["10.244.2.0/24"],
)


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_what_a_hung_forwarder_did_not_tell_is_not_shown_as_zero_and_the_exit_code_says_so(
    overlay, agent, arguments
):
    agent.answers["status"] = answer(is_complete=False, drops=None, peers=[UNKNOWN], notes=["it hangs"])

    result = overlay("status", *arguments)

    assert result.exit_code == 1
    assert result.stderr == (
        "Error: the status of overlay0 is incomplete: its forwarder did not report its counters\n"
    )
    if arguments:
        assert json.loads(result.stdout)["peers"][0]["rx_bytes"] is None
    else:
        row = result.stdout.splitlines()[-1].split()
        assert row == ["tokyo", "?", "-", "10.244.2.0/24", "never", "?", "?", "?", "?"]
        assert "it hangs" in result.stdout


def test_text_from_outside_cannot_move_the_cursor(overlay, agent):
    agent.answers["status"] = answer(
        notes=["\x1b[2J\nforged"], peers=[peer_status("tokyo\u202e", endpoint="\x9b31m")]
    )

    shown = overlay("status").stdout

    assert "\\x1b[2J" in shown
    assert "tokyo\\u202e" in shown
    assert "\\x9b31m" in shown
    assert all(line.isprintable() for line in shown.splitlines())


def test_refusal_of_an_agent_is_shown_in_printable_characters(overlay, agent):
    agent.answers["status"] = {"ok": False, "kind": "failed", "error": "no\x1b]0;root\x07"}

    result = overlay("status")

    assert (result.exit_code, result.stderr) == (1, "Error: no\\x1b]0;root\\x07\n")


# One peer


def test_one_peer_is_shown_with_all_that_is_known_of_it(overlay, agent):
    row = TOKYO | {"addresses": ["10.244.2.1"], "drops": {"replay": 3, "source": 0}, "unit_segments": 32}
    del row["name"]
    agent.answers["peer"] = peer_answer(
        "tokyo",
        **row,
        configured_endpoint="tokyo.example.net:51820",
        endpoint_origin="resolved",
        round_trip=0.0123,
        services=[{"service": "web", "server": "tokyo", "state": "up"}],
    )

    result = overlay("status", "tokyo")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "peer        tokyo\n"
        "state       up (wireguard)\n"
        "endpoint    192.0.2.2:51820, resolved from tokyo.example.net:51820\n"
        "addresses   10.244.2.1\n"
        "subnets     10.244.2.0/24, 192.168.77.0/24, 192.168.78.0/24\n"
        "public key  sqMBX/3hJacIcMLLrdJo/XQdeYEPiF54spHJIWnN9xI=\n"
        "handshake   12 s ago, took 12.3 ms\n"
        "received    3 s ago\n"
        "path MTU    packets of 1344 bytes reach it\n"
        "RX          812 B received, 0 packets\n"
        "TX          3.00 MiB sent, 0 packets\n"
        "bulk units  at most 32 segments each\n"
        "MACs seen   7\n"
        "service     web, as its server tokyo: up\n"
        "dropped     replay 3: the packet arrived twice, or far too late\n"
    )


def test_one_peer_as_json_has_every_drop_reason(overlay, agent):
    agent.answers["peer"] = peer_answer("tokyo", drops={"replay": 3})

    told = json.loads(overlay("status", "tokyo", "--json").stdout)

    assert told["drops"] == dict.fromkeys(REASONS, 0) | {"replay": 3}
    assert (told["schema"], told["name"], told["path_mtu_bytes"]) == (1, "tokyo", None)


def test_troubles_of_one_peer_come_first(overlay, agent):
    agent.answers["peer"] = peer_answer(
        "tokyo", state="unreachable", notes=["tokyo does not answer: go there"]
    )

    lines = overlay("status", "tokyo").stdout.splitlines()

    assert lines[1:3] == [
        "state       unreachable (wireguard)",
        "note        tokyo does not answer: go there",
    ]


def test_one_peer_of_a_hung_forwarder_is_shown_as_far_as_it_is_known(overlay, agent):
    agent.answers["peer"] = peer_answer("tokyo", state=None, rx_bytes=None, forwarder_note="it hangs")

    result = overlay("status", "tokyo")

    assert result.exit_code == 1
    assert "note        it hangs\n" in result.stdout
    assert "traffic     ?\n" in result.stdout


def test_peer_that_is_not_known_is_a_sentence(overlay, agent):
    agent.answers["peer"] = {
        "ok": False, "kind": "unknown_peer", "error": "there is no peer toky in peers.toml", "known": ["tokyo"],
    }  # fmt: skip

    result = overlay("status", "toky")

    assert result.exit_code == 2
    assert result.stderr == "Error: there is no peer toky in peers.toml; did you mean tokyo?\n"


# Whether everything is well


def test_check_says_in_one_line_that_all_is_well(overlay, agent):
    agent.answers["status"] = answer(peers=[TOKYO, ROME | {"last_received": 5.0}])

    result = overlay("status", "--check")

    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "overlay0 is well, and so are 2 of 2 peers\n",
        "",
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"is_complete": False, "notes": ["the forwarder hangs"]}, "the forwarder hangs"),
        ({"services": {"up": 1, "degraded": 1, "down": 2}}, "of 4 services, 2 down and 1 degraded: `overlay services` says why"),
        ({"peers": [TOKYO | {"state": "unreachable"}]}, "none of 1 peer is well: tokyo is unreachable"),
    ],
)  # fmt: skip
def test_check_of_a_node_that_is_not_well_says_why_and_the_exit_code_is_1(overlay, agent, fields, said):
    agent.answers["status"] = answer(**fields)

    result = overlay("status", "--check")

    assert (result.exit_code, result.stdout) == (1, f"{said}\n")


def test_check_without_an_agent_is_a_result_too(overlay):
    result = overlay("status", "--check")

    assert (result.exit_code, result.stderr) == (1, "")
    assert (
        result.stdout == "no overlay agent runs for overlay0 here: start it with `overlay up --peers FILE`\n"
    )


def test_check_as_json_has_the_sentence(overlay, agent):
    agent.answers["status"] = answer(peers=[TOKYO])

    assert json.loads(overlay("status", "--check", "--json").stdout) == {
        "schema": 1,
        "is_well": True,
        "reason": "overlay0 is well, and so is its only peer",
    }


def test_check_of_peers_names_the_first_that_is_not_well(overlay, agent):
    agent.answers["peer"] = lambda request: peer_answer(
        request["name"], state="up" if request["name"] == "tokyo" else "silent", last_received=3.0
    )

    good = overlay("status", "--check", "--peer", "tokyo")
    bad = overlay("status", "--check", "--peer", "tokyo", "--peer", "rome")

    assert (good.exit_code, good.stdout) == (0, "tokyo is up, the last message arrived 3 s ago\n")
    assert (bad.exit_code, bad.stdout) == (1, "rome is silent\n")


def test_check_of_a_peer_that_is_silent_for_too_long_fails(overlay, agent):
    agent.answers["peer"] = peer_answer("tokyo", state="up", last_received=31.0)

    assert overlay("status", "tokyo", "--check", "--max-silence", "40").exit_code == 0
    late = overlay("status", "tokyo", "--check", "--max-silence", "30")
    assert (late.exit_code, late.stdout) == (1, "tokyo has been silent for 31 s, more than 30 s\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--peer", "tokyo"), "--peer needs --check: add it"),
        (("--max-silence", "3"), "--max-silence needs --check: add it"),
        (("--check", "--watch"), "--watch shows the node: remove it, or --check"),
        (("tokyo", "--watch"), "--watch shows the node: remove it, or PEER"),
        (("--check", "--max-silence", "nan"), "'nan' is not a number of seconds from 0.001"),
        (("--check", "--max-silence", "0"), "is not a number of seconds"),
    ],
)
def test_options_that_do_not_go_together_are_refused(overlay, arguments, said):
    result = overlay("status", *arguments)

    assert result.exit_code == 2
    assert said in result.stderr


# An agent that is not a node yet

WAITING = {"ok": False, "kind": "waiting", "error": "the agent of overlay0 waits", "reason": "run `this`"}


@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_agent_that_waits_is_shown_with_what_to_do(overlay, agent, arguments):
    agent.answers["status"] = WAITING

    done = overlay("status", *arguments)

    assert (done.exit_code, done.stdout) == (1, "the agent of overlay0 waits: run `this`\n")
    assert not done.stderr


def test_watch_goes_on_until_an_agent_that_waits_has_joined(overlay, agent, clock):
    agent.answers["status"] = WAITING

    def join():
        if clock.time == 1002:
            agent.answers["status"] = answer()
        if clock.time == 1003:
            raise KeyboardInterrupt

    clock.on_sleep = join
    done = overlay("status", "--watch")

    assert done.exit_code == 130
    assert done.stderr == 2 * "the agent of overlay0 waits: run `this`\n"
    assert done.stdout.count("node        paris\n") == 1


def test_agent_that_waits_is_an_error_in_json(overlay, agent):
    agent.answers["status"] = WAITING

    done = overlay("status", "--json")

    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["kind"] == "waiting"
