"""Input for programs that read ipvsadm; the formats themselves are compared in test_ipvsadm."""

import pytest

from tests.overlay.cli.services.rows import ANSWER, SERVER, SERVICE, UNKNOWN, flow

HEAD = (
    "IP Virtual Server version 1.2.1 (size=4096)\n"
    "Prot LocalAddress:Port Scheduler Flags\n"
    "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
)
WEB2 = SERVER | {
    "name": "web2",
    "port": 8443,
    "effective_weight": 0,
    "takes": "known",
    "takes_by": {},
    "real_addresses": ["10.98.0.13"],
    "active_flows": 1,
    "inactive_flows": 0,
}
WEB1 = SERVER | {"real_addresses": ["10.98.0.11", "fd00::11"], "active_flows": 245, "inactive_flows": 0}
FARM = SERVICE | {"addresses": ["10.98.9.9"], "ports": ["80"], "servers": [WEB1, WEB2]}


@pytest.fixture
def listed(overlay, agent):
    """Return the output for a service with these fields."""

    def run(*options, **fields):
        agent.answers["services"] = ANSWER | {"services": [FARM | fields]}
        result = overlay("services", "--ipvsadm", *options)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    return run


def test_a_service_is_listed_as_ip_vs_would_have_it(listed):
    assert listed() == HEAD + (
        "TCP  10.98.9.9:80 wlc\n"
        "  -> 10.98.0.11:80                Tunnel  2      245        0         \n"
        "  -> 10.98.0.13:8443              Tunnel  0      1          0         \n"
    )


def test_options_are_those_that_programs_give_ipvsadm(listed):
    assert listed("-Ln") == listed("-l", "-n") == listed()


def test_stats_count_what_comes_in(listed):
    assert listed("--stats").splitlines()[1:] == [
        "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes",
        "  -> RemoteAddress:Port",
        "TCP  10.98.9.9:80                      120     1334        0    66789        0",
        "  -> 10.98.0.11:80                      99     1234        0    56789        0",
        "  -> 10.98.0.13:8443                    99     1234        0    56789        0",
    ]


def test_rates_are_whole_numbers(listed):
    assert listed("--rate").splitlines()[3] == (
        "TCP  10.98.9.9:80                        0       21        0     2048        0"
    )


def test_numbers_are_exact_on_request(listed):
    server = WEB1 | {"bytes": 123_456_789_012}
    assert " 123G " in listed("--stats", servers=[server])
    assert " 123456789012 " in listed("--stats", "--exact", servers=[server])


def test_thresholds_and_tunnels_have_their_columns(listed):
    limited = WEB1 | {"upper": 100, "lower": 50}
    assert listed("--thresholds", servers=[limited]).splitlines()[-1] == (
        "  -> 10.98.0.11:80                100        50         245        0         "
    )
    assert listed("--tun-info", servers=[WEB1 | {"tunnel": "ipip"}]).splitlines()[-1] == (
        "  -> 10.98.0.11:80                Tunnel  ipip          2      245        0         "
    )


def test_each_address_protocol_and_port_is_a_service_and_the_first_has_the_counters(listed):
    lines = listed(
        addresses=["10.98.9.9", "fd00::9"], protocols=["tcp", "udp"], ports=["80", "8000-8001"]
    ).splitlines()

    heads = [line for line in lines[3:] if not line.startswith("  ->")]
    assert heads == [
        *(f"{protocol}  10.98.9.9:{port} wlc" for protocol in ("TCP", "UDP") for port in (80, 8000, 8001)),
        *(f"{protocol}  [fd00::9]:{port} wlc" for protocol in ("TCP", "UDP") for port in (80, 8000, 8001)),
    ]
    loads = [line.split()[4] for line in lines if line.startswith("  -> 10.98.0.11") or "fd00::11" in line]
    assert loads == ["245", *["0"] * 11]
    assert any(line.startswith("  -> [fd00::11]:80 ") for line in lines)


def test_flags_are_those_of_what_the_scheduler_does(listed):
    def flags(**fields):
        return listed(**fields).splitlines()[3]

    assert flags(scheduler="maglev") == "TCP  10.98.9.9:80 mh (mh-fallback,mh-port)"
    assert flags(scheduler="maglev", persistence=300) == "TCP  10.98.9.9:80 mh (mh-fallback) persistent 300"
    assert flags(scheduler="sh") == "TCP  10.98.9.9:80 sh (sh-fallback)"
    assert flags(persistence=300, persistence_prefix={"ipv4": 24, "ipv6": 128}) == (
        "TCP  10.98.9.9:80 wlc persistent 300 mask 255.255.255.0"
    )
    assert flags(protocols=["udp"], one_packet=True) == "UDP  10.98.9.9:80 wlc ops"
    assert flags(ports=[], persistence=60) == "TCP  10.98.9.9:0 wlc persistent 60"


def test_servers_that_get_nothing_are_not_there_and_this_node_is_local(listed):
    down = WEB2 | {"takes": "nothing"}
    own = WEB1 | {"tunnel": None}
    assert listed(servers=[own, down]).splitlines()[4:] == [
        "  -> 10.98.0.11:80                Local   2      245        0         "
    ]


def test_services_of_other_directors_are_not_those_of_this_host(listed):
    assert listed(quorum=None, servers=[]) == HEAD


def test_one_service_has_no_line_on_the_version(overlay, agent):
    agent.answers["services"] = ANSWER | {"services": [FARM]}
    assert overlay("services", "web", "--ipvsadm").stdout.startswith("Prot LocalAddress:Port")
    assert agent.requests[-1]["name"] == "web"


def test_order_of_the_file_is_kept_on_request(overlay, agent):
    first, second = FARM | {"addresses": ["10.98.9.10"]}, FARM
    agent.answers["services"] = ANSWER | {"services": [first, second]}

    def heads(*options):
        lines = overlay("services", "--ipvsadm", *options).stdout.splitlines()
        return [line.split()[1] for line in lines if line.startswith("TCP")]

    assert heads("--nosort") == ["10.98.9.10:80", "10.98.9.9:80"]
    assert heads() == ["10.98.9.9:80", "10.98.9.10:80"]


def test_counters_that_are_not_known_print_nothing(overlay, agent):
    agent.answers["services"] = ANSWER | {"services": [FARM | UNKNOWN], "is_complete": False}

    result = overlay("services", "--ipvsadm", "--stats")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: the forwarder of overlay0 did not report its counters\n"


def test_rates_that_are_not_known_yet_are_waited_for(overlay, agent, clock):
    early = ANSWER | {"services": [FARM | {key: None for key in UNKNOWN if key.endswith("_per_s")}]}
    agent.answers["services"] = lambda _: early if clock.time < 1002 else ANSWER | {"services": [FARM]}

    result = overlay("services", "--ipvsadm", "--rate")

    assert (result.exit_code, result.stderr) == (0, "")
    assert len(agent.requests) == 3


def test_rates_that_stay_unknown_are_not_zeros(overlay, agent):
    early = FARM | {key: None for key in UNKNOWN if key.endswith("_per_s")}
    agent.answers["services"] = ANSWER | {"services": [early]}

    result = overlay("services", "--ipvsadm", "--rate")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "the rates are not known yet" in result.stderr


def test_connections_are_listed_with_where_they_go(overlay, agent):
    agent.answers["services"] = ANSWER | {"services": [FARM]}
    agent.answers["flows"] = {"ok": True, "is_complete": True, "has_more": False}
    agent.rows["flows"] = [
        [
            flow(client="10.98.1.2", client_port=20036, address="10.98.9.9", left_s=860.9),
            flow(client="10.98.1.3", address="10.98.9.9", server="web2", state="MIDSTREAM", left_s=59.2),
            flow(client="10.98.1.4", address="10.98.9.9", protocol="udp", state="DATAGRAM", left_s=300),
            flow(client="10.98.1.5", address="10.98.9.9", protocol="sctp", state="UDP", left_s=300),
            flow(server=None),
        ]
    ]

    result = overlay("services", "--ipvsadm", "-Lnc", "--client", "10.98.0.0/16")

    assert result.stdout == (
        "IPVS connection entries\n"
        "pro expire state       source             virtual            destination\n"
        "TCP 14:20  ESTABLISHED 10.98.1.2:20036    10.98.9.9:80       10.98.0.11:80\n"
        "TCP 00:59  ESTABLISHED 10.98.1.3:40000    10.98.9.9:80       10.98.0.13:8443\n"
        "UDP 05:00  UDP         10.98.1.4:40000    10.98.9.9:80       10.98.0.11:80\n"
        "SCTP 05:00  ESTABLISHED 10.98.1.5:40000    10.98.9.9:80       10.98.0.11:80\n"
    )
    assert agent.requests[-1] == {"op": "flows", "limit": 1_000_000, "client": "10.98.0.0/16"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--stats",), "--stats is an option of --ipvsadm: add that"),
        (("-n",), "-n is an option of --ipvsadm: add that"),
        (("--tun-info",), "--tun-info is an option of --ipvsadm: add that"),
        (("--ipvsadm", "--json"), "--ipvsadm has one format: remove --json"),
        (("--ipvsadm", "--stats", "--rate"), "--stats and --rate ask for different listings: choose one"),
        (("--ipvsadm", "--port", "80"), "--port is about flows: add --connection"),
    ],
)
def test_options_that_do_not_fit_are_a_sentence(overlay, agent, arguments, said):
    result = overlay("services", *arguments)

    assert result.exit_code == 2
    assert bool(result.stdout) is ("--json" in arguments)  # an error is JSON, too
    assert said in result.stderr
    assert agent.requests == []
