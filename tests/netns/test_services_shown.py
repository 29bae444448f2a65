"""What a director shows of its services, queried as users and their programs do."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import threading

import pytest

from tests.netns.test_services import VIP, Farm
from tests.netns.topology import wait_until

RULES = '\n[services.idle]\naddress = "203.0.113.81"\nprotocol = ["tcp", "udp"]\ndirectors = ["lb2"]\nservers = []\n'


@contextlib.contextmanager
def running(lab, directory):
    """A farm with flows."""
    made = Farm(lab, directory, RULES)
    made.start()
    made.wait_servers(made.inside, "web1", "web2")
    wait_until(lambda: "balanced by lb1" in made.client.overlay("services", "web").stdout)
    made.servers(made.inside, 30)
    yield made
    made.network.close()


@pytest.fixture
def farm(lab, tmp_path):
    """A farm that the test may change."""
    with running(lab, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def asked(module_lab, tmp_path_factory):
    """A farm that is only queried."""
    with running(module_lab, tmp_path_factory.mktemp("asked")) as made:
        yield made


@pytest.fixture
def with_flows(asked):
    """The same, with flows of just now."""
    asked.servers(asked.inside, 30)
    return asked


def flows(host, *arguments):
    told = host.overlay("services", "--flows", "--json", *arguments)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def test_flows_are_shown_as_far_as_they_are_asked_for(with_flows):
    everything = flows(with_flows.lb1)["flows"]
    assert len(everything) >= 30
    assert {each["client"] for each in everything} == {"10.244.5.2"}
    assert {each["server"] for each in everything} == {"web1", "web2"}
    assert {(each["address"], each["port"], each["protocol"]) for each in everything} == {(VIP, 80, "tcp")}

    of_web1 = flows(
        with_flows.lb1, "web", "--server", "web1", "--client", "10.244.5.0/24", "--state", "fin_wait"
    )
    assert {each["server"] for each in of_web1["flows"]} == {"web1"}
    assert flows(with_flows.lb1, "--client", "10.244.6.0/24") == {
        "schema": 1,
        "flows": [],
        "has_more": False,
    }
    few = flows(with_flows.lb1, "--limit", "3")
    assert (len(few["flows"]), few["has_more"]) == (3, True)
    assert len(with_flows.lb1.overlay("services", "--flows").stdout.splitlines()) > 30


def test_explaining_names_the_server_that_a_flow_has(with_flows):
    """At the director that tracks the flow, and at another by the hash alone."""
    told = flows(with_flows.lb1)["flows"][:4]
    assert len(told) == 4
    for flow in told:
        asked = [
            VIP,
            "from",
            flow["client"],
            "--protocol",
            "tcp",
            "--port",
            "80",
            "--source-port",
            flow["client_port"],
        ]
        for director in (with_flows.lb1, with_flows.lb2):
            found = json.loads(director.overlay("explain", *map(str, asked), "--json").stdout)

            assert found["goes"], json.dumps(found["steps"])
            assert found["service"]["server"] == flow["server"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nothing", "--flows"), 2, "there is no service 'nothing': there are web, idle"),
        (("--flows", "--server", "web9"), 2, "there is no server 'web9': there are web1, web2"),
        (("idle", "--flows"), 1, "this node is not a director of idle: ask one of its directors"),
        (("--flows", "--client", "10.0.0.0/99"), 1, "'10.0.0.0/99' is not an IP address or prefix"),
        (("--ipvsadm", "nothing"), 2, "there is no service 'nothing'"),
    ],
)
def test_wrong_questions_get_a_sentence(asked, arguments, code, said):
    told = asked.lb1.overlay("services", *arguments)
    assert (told.returncode, told.stdout) == (code, "")
    assert said in told.stderr


def test_programs_that_read_ipvsadm_read_this(with_flows):
    table = with_flows.lb1.overlay("services", "--ipvsadm", "-Ln").stdout.splitlines(keepends=True)
    assert table[:4] == [
        "IP Virtual Server version 1.2.1 (size=4096)\n",
        "Prot LocalAddress:Port Scheduler Flags\n",
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
        f"TCP  {VIP}:80 mh (mh-fallback,mh-port)\n",
    ]
    servers = [re.fullmatch(r"  -> (\S+) +Tunnel  1      (\d+) +(\d+) +\n", line) for line in table[4:]]
    assert [found[1] for found in servers] == ["10.244.3.0:80", "10.244.4.0:8080"]
    assert sum(int(found[2]) + int(found[3]) for found in servers) >= 30

    stats = with_flows.lb1.overlay("services", "--ipvsadm", "--stats").stdout.splitlines()
    connections, packets, *rest = (int(each) for each in stats[3].split()[2:])
    assert connections >= 30
    assert packets > connections
    assert (rest[0], rest[2]) == (0, 0)
    rate = with_flows.lb1.overlay("services", "--ipvsadm", "--rate")
    assert (rate.returncode, len(rate.stdout.splitlines())) == (0, 6)
    listed = with_flows.lb1.overlay("services", "--ipvsadm", "-Lnc").stdout.splitlines()
    assert len(listed) >= 32
    assert re.fullmatch(
        rf"TCP \d\d:\d\d  \w+ +10\.244\.5\.2:\d+ +{VIP}:80 +10\.244\.[34]\.0:80(80)?", listed[2]
    )
    # lb2 also has the other service, which has no servers and every port
    assert (
        "UDP  203.0.113.81:0 mh (mh-fallback,mh-port)\n"
        in with_flows.lb2.overlay("services", "--ipvsadm").stdout
    )


def test_a_forwarder_that_hangs_makes_numbers_unknown_and_the_commands_fail(farm):
    pid = int(json.loads(farm.lb1.overlay("status", "--json").stdout)["forwarder_pid"])
    farm.lb1.namespace.run("kill", f"-{int(signal.SIGSTOP)}", str(pid))
    try:
        told = farm.lb1.overlay("services", "--json")
        assert told.returncode == 1
        assert told.stderr == "Error: the forwarder of overlay0 did not report its counters\n"
        (web, _) = json.loads(told.stdout)["services"]
        assert {web[key] for key in ("packets", "active_flows", "bytes_per_second")} == {None}
        assert {server["packets_per_second"] for server in web["servers"]} == {None}
        for arguments in (("--flows",), ("--ipvsadm",), ("--ipvsadm", "-c")):
            failed = farm.lb1.overlay("services", *arguments)
            assert (failed.returncode, failed.stdout) == (1, "")
    finally:
        farm.lb1.namespace.run("kill", f"-{int(signal.SIGCONT)}", str(pid))


def test_questions_go_on_while_the_peers_file_is_loaded_again_and_again(farm):
    errors, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            told = farm.lb1.overlay("services", "--flows", "web", "--json")
            if told.returncode:
                errors.append(told.stderr)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for each in askers:
        each.start()
    written = farm.lb1.peers_path.read_text()
    for text in [written.replace('"web1", {', '{ peer = "web1", weight = 3 }, {'), written] * 3:
        assert "reloaded" in farm.lb1.reload(text)
    stop.set()
    for each in askers:
        each.join()
    assert errors == []


def test_whoever_asks_and_leaves_harms_nothing(with_flows):
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(with_flows.lb1.control_path))
            client.sendall(b'{"op": "flows", "limit": 1000000}\n')
    for garbage in (b'{"op": "flows", "name": ["web"]}\n', b'{"op": "services", "name": {}}\n'):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(with_flows.lb1.control_path))
            client.sendall(garbage)
            assert b"unknown_service" in client.recv(65536)
    assert len(flows(with_flows.lb1)["flows"]) >= 30


def test_a_server_is_checked_now_step_by_step(farm):
    told = farm.lb1.overlay("services", "check", "web/web2")
    assert (told.returncode, told.stderr) == (0, "")
    lines = told.stdout.splitlines()
    assert "web/web2 is the peer web2, port 8080: wireguard to 192.0.2.4:51820 with a session" in lines[0]
    assert lines[1] == f"check of kind tcp at {VIP}:80"
    assert f"asking {VIP}:80 from 10.244.1.0" in lines[2]
    assert "the forwarder sends these packets to web2, and no others" in lines[3]
    assert "good: accepts connections at port 80" in lines[-2]

    farm.lab.end_process(farm.processes["web2"])
    failed = farm.lb1.overlay("services", "check", "web/web2", "--json")
    assert failed.returncode == 1
    (check,) = json.loads(failed.stdout)["checks"]
    assert (check["is_good"], check["reason"]) == (False, "connection refused")
    assert farm.lb1.overlay("services", "check", "web/web9").returncode == 2
    assert farm.client.overlay("services", "check", "web/web1").returncode == 1
