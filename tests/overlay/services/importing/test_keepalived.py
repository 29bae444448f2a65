"""keepalived.conf as a peers file.  Whole files with what is expected of them are in examples."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.importing.places import UnreadableError
from overlay.services.importing import keepalived_checks, keepalived_services
from peers.service import SCHEDULERS, Check
from tests.hypothesis_profiles import examples
from tests.overlay.services.importing.reading import keepalived, real_server, refusal, virtual_server


def check(content, **fields):
    """Return the one check of a server with *content*."""
    imported = keepalived(virtual_server(servers=real_server(content), **fields))
    (found,) = imported.service.checks
    return found


def test_service_has_what_its_virtual_server_says():
    service = keepalived(virtual_server("lb_algo wrr\npersistence_timeout 50\nquorum 1")).service

    assert (service.name, list(map(str, service.addresses))) == ("10.9.9.9-tcp-80", ["10.9.9.9"])
    assert (service.ports, service.protocols, service.scheduler) == (((80, 80),), ("tcp",), "wrr")
    assert (service.persistence, service.directors) == (50, ("director",))
    assert [(each.name, each.weight) for each in service.servers] == [("10.0.0.2", 1)]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", "wlc"),
        *((f"lb_algo {name}", name) for name in SCHEDULERS if name != "maglev"),
        ("lvs_sched mh", "maglev"),
        ("lb_algo twos", "wlc"),
        ("lb_algo lblc", "maglev"),
        ("lb_algo lblcr", "maglev"),
    ],
)
def test_every_scheduler_has_one_in_its_place(written, expected):
    imported = keepalived(virtual_server(written))

    assert imported.service.scheduler == expected
    assert imported.remarks == []


def test_every_scheduler_of_keepalived_is_known():
    names = {keepalived_services.INSTEAD.get(name, name) for name in keepalived_services.SCHEDULERS}

    assert names == set(SCHEDULERS)


@pytest.mark.parametrize(
    ("written", "persistence"),
    [("lb_algo mh", 360), ("lb_algo mh\nmh-port", 0), ("lb_algo mh\nflag-2", 0), ("lb_algo sh", 0)],
)
def test_maglev_by_address_alone_keeps_a_client_at_its_server(written, persistence):
    assert keepalived(virtual_server(written)).service.persistence == persistence


@pytest.mark.parametrize("head", ["10.9.9.9", "10.9.9.9 0"])
def test_service_without_a_port_is_persistent_and_has_every_port(head):
    service = keepalived(virtual_server(head=head)).service

    assert (service.ports, service.persistence) == ((), 360)


@pytest.mark.parametrize(
    ("mask", "prefix"), [("255.255.255.0", 24), ("255.255.255.255", 32), ("128.0.0.0", 1)]
)
def test_granularity_is_a_prefix_and_means_persistence(mask, prefix):
    service = keepalived(virtual_server(f"persistence_granularity {mask}")).service

    assert (service.persistence, service.persistence_prefix[4]) == (360, prefix)


@pytest.mark.parametrize("mask", ["255.0.255.0", "0.0.0.0", "24", "1.2.3", "::1"])
def test_granularity_that_is_not_a_prefix_is_named(mask):
    imported = keepalived(virtual_server(f"persistence_granularity {mask}"))

    assert imported.service.persistence_prefix[4] == 32
    assert len(imported.remarks) == 1


@pytest.mark.parametrize(
    ("weights", "written", "expected"),
    [
        ((3, 1), "quorum 2\nhysteresis 1", (2, 1)),
        ((3, 1), "quorum 9", (4, 0)),  # no more than there is
        ((3, 1), "quorum 2\nhysteresis 2", (2, 1)),
        ((0, 0), "quorum 5\nhysteresis 5", (1, 0)),
        ((3, 1), "hysteresis 1", (1, 0)),
    ],
)
def test_quorum_and_hysteresis_are_those_that_keepalived_comes_to(weights, written, expected):
    servers = "".join(
        real_server(f"weight {weight}", f"10.0.0.{number}") for number, weight in enumerate(weights, 1)
    )

    service = keepalived(virtual_server(written, servers)).service

    assert (service.quorum, service.hysteresis) == expected


def test_defaults_of_a_check_are_those_of_keepalived():
    assert check("TCP_CHECK {\n}") == Check("tcp", every=60, timeout=5, retries=1, retry_delay=1)
    assert check("HTTP_GET {\nurl {\npath /\n}\n}") == Check("http", every=60, retries=1, retry_delay=3)
    assert check("PING_CHECK {\n}") == Check("ping", every=60)
    assert check("DNS_CHECK {\n}", protocol="UDP") == Check("dns", every=60, retries=3, retry_delay=60)
    assert check("UDP_CHECK {\n}", protocol="UDP") == Check("udp", every=60)
    script = "MISC_CHECK {\nmisc_path /bin/true\n}"
    assert check(script) == Check("script", every=60, timeout=60, retries=0, command=("/bin/true",))


def test_inner_settings_win_over_outer_ones():
    outer = "delay_loop 2\nconnect_timeout 2\nretry 2\ndelay_before_retry 2\nwarmup 1\nalpha"
    middle = "delay_loop 3\nconnect_timeout 3\nretry 3"
    inner = "TCP_CHECK {\ndelay_loop 4\nretry 0\nwarmup 0\nalpha off\n}"

    (found,) = keepalived(virtual_server(outer, real_server(f"{middle}\n{inner}"))).service.checks

    assert found == Check("tcp", every=4, timeout=3, retries=0, retry_delay=2, warmup=0, start="up")


def test_defaults_that_are_left_out_are_those_of_a_peers_file():
    plain = Check("tcp")
    for key, value in keepalived_checks.DEFAULTS.items():
        expected = ((200, 299),) if key == "status" else value
        assert getattr(plain, key) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("regex x", "x"),
        ('regex "a b"', "a b"),
        ("regex 'a b'\nregex_options caseless", "(?i)a b"),
        ("regex x\nregex_no_match", r"\A(?!(?s:.*?)(?:x))"),
        ("regex x\nregex_no_match\nregex_options caseless dotall", r"\A(?!(?s:.*?)(?is:x))"),
    ],
)
def test_regular_expressions_have_their_options(written, expected):
    assert check(f"HTTP_GET {{\nurl {{\npath /\n{written}\n}}\n}}").regex == expected


@pytest.mark.parametrize(("body", "fits"), [(b"all\nis well", True), (b"all\nis x", False), (b"x", False)])
def test_regex_no_match_is_for_bodies_that_do_not_have_it(body, fits):
    pattern = check("HTTP_GET {\nurl {\npath /\nregex x\nregex_no_match\n}\n}").regex

    assert (re.search(pattern.encode(), body) is not None) == fits


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("virtualhost c", "c"),
        ("", "b"),
    ],
)
def test_host_of_a_page_is_the_innermost_virtualhost(written, expected):
    servers = real_server(f"virtualhost b\nHTTP_GET {{\n{written}\nurl {{\npath /\n}}\n}}")

    (found,) = keepalived(virtual_server("virtualhost a", servers)).service.checks

    assert found.host == expected


def test_checks_of_several_servers_that_are_alike_are_written_once():
    servers = real_server("TCP_CHECK {\n}") + real_server("TCP_CHECK {\n}", "10.0.0.3")

    imported = keepalived(virtual_server(servers=servers))

    assert imported.text.count('kind = "tcp"') == 1
    assert all(each.checks is None for each in imported.service.servers)


def test_check_of_several_services_is_written_once_under_its_name():
    servers = real_server("TCP_CHECK {\n}")

    imported = keepalived(
        virtual_server(servers=servers) + virtual_server(servers=servers, head="10.9.9.8 80")
    )

    assert imported.text.count('kind = "tcp"') == 1
    assert imported.text.count('check = "tcp"') == 2


def test_check_by_another_protocol_than_the_service_names_its_port():
    assert check("TCP_CHECK {\n}", protocol="UDP").port == 80


def test_commands_are_words():
    imported = keepalived(
        virtual_server("quorum_up \"/bin/a 'b c'\"\nquorum_down /bin/d", real_server("notify_up '/bin/e f'"))
    )

    service = imported.service
    assert (service.quorum_up_command, service.quorum_down_command) == (("/bin/a", "b c"), ("/bin/d",))
    assert (service.up_command, service.down_command) == (("/bin/e", "f"), ())
    assert imported.remarks == []


def test_command_of_one_server_alone_is_named():
    servers = real_server("notify_up /bin/a") + real_server("", "10.0.0.3")

    imported = keepalived(virtual_server(servers=servers))

    assert imported.service.up_command == ()
    assert [each.partition(": ")[2].partition(":")[0] for each in imported.remarks] == ["notify_up /bin/a"]


def test_failure_keeps_flows_where_all_servers_say_so():
    alike = real_server("inhibit_on_failure") + real_server("inhibit_on_failure", "10.0.0.3")
    mixed = real_server("inhibit_on_failure") + real_server("", "10.0.0.3")

    assert keepalived(virtual_server("inhibit_on_failure")).service.on_failure == "keep"
    assert keepalived(virtual_server(servers=alike)).service.on_failure == "keep"
    imported = keepalived(virtual_server(servers=mixed))
    assert (imported.service.on_failure, len(imported.remarks)) == ("remove", 1)


def test_group_of_one_virtual_server_is_as_many_services_as_it_has_sets_of_ports():
    group = "virtual_server_group g {\n10.9.9.1 80\n10.9.9.1 443\n10.9.9.2-3 80\n10.9.9.4\n10.9.9.3 443\n}\n"

    imported = keepalived(group + virtual_server(head="group g"))

    found = {
        name: ([str(each) for each in service.addresses], service.ports)
        for name, service in imported.table.services.items()
    }
    assert found == {
        "g": (["10.9.9.1", "10.9.9.3"], ((80, 80), (443, 443))),
        "g-2": (["10.9.9.2"], ((80, 80),)),
        "g-3": (["10.9.9.4"], ()),
    }


def test_three_hundred_servers_are_three_hundred_peers():
    servers = "".join(
        real_server(f"weight {index % 7}\nTCP_CHECK {{\n}}", f"10.0.{index // 250}.{index % 250 + 1}")
        for index in range(300)
    )

    imported = keepalived(virtual_server(servers=servers), directors=("lb1", "lb2"))

    assert len(imported.table.peers) == 302
    assert len(imported.service.servers) == 300
    assert sum(each.weight for each in imported.service.servers) == sum(index % 7 for index in range(300))
    assert imported.remarks == []


@pytest.mark.slow
def test_group_has_so_many_addresses_at_most():
    ranges = "".join(f"10.{number}.0.0-10.{number}.3.255 80\n" for number in range(1, 18))

    imported = keepalived(f"virtual_server_group g {{\n{ranges}}}\n" + virtual_server(head="group g"))

    assert sum(len(each.addresses) for each in imported.table.services.values()) == 16384
    assert imported.remarks == [
        "k.conf:18: 10.17.0.0-10.17.3.255 80: 10.17.0.0-10.17.3.255 exceeds the 16384 addresses that a group may have; it is left out"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "k.conf:1: this is not a configuration of keepalived"),
        ("server {\n listen 80;\n}\n", "k.conf:1: this is not a configuration of keepalived"),
        ("[network]\nprefix = 1\n", "k.conf:1: this is not a configuration of keepalived"),
        (virtual_server() + "}\n", "k.conf:8: this } closes nothing"),
        ("virtual_server 10.9.9.9 80 {\n", "k.conf:1: the { of virtual_server 10.9.9.9 80 is never closed"),
        (virtual_server('quorum_up "/bin/x'), 'k.conf:4: a " is not closed'),
        ("\x7fELF\0\0\0", "k.conf:1: contains a null character"),
    ],
)
def test_anything_but_such_a_file_is_refused_with_line_and_reason(text, problem):
    assert str(refusal(UnreadableError, keepalived, text)).startswith(problem)


KEYWORDS = [
    *(
        "delay_loop 3",
        "lb_algo wrr",
        "lb_algo mh",
        "lb_kind TUN",
        "lb_kind NAT",
        "protocol UDP",
        "protocol TCP",
    ),
    *(
        "persistence_timeout",
        "persistence_timeout 7",
        "persistence_granularity 255.255.0.0",
        "ops",
        "quorum 3",
    ),
    *("hysteresis 2", "alpha", "omega", "inhibit_on_failure", "sorry_server 10.0.0.9 80", "quorum_up /bin/x"),
    *("weight 3", "weight x", "notify_up /bin/x", "notify_down '/bin/x y'", "uthreshold 9", "lthreshold 3"),
    *(
        "connect_port 81",
        "connect_ip 10.9.9.9",
        "retry 2",
        "connect_timeout 1.5",
        "warmup 0",
        "path /x",
        "path x y",
    ),
    *("status_code 200-299 404", "regex a", "regex (", "virtualhost v", "misc_path /bin/x", "misc_dynamic"),
    *(
        "payload 00 01",
        "require_reply",
        "name example.",
        "type A",
        "10.9.9.1 80",
        "10.9.9.1-9",
        "fwmark 3",
        "fd00::1 80",
    ),
    *(
        "virtual_router_id 7",
        "interface eth0",
        "priority 7",
        "10.9.9.9",
        "auth_type PASS",
        "auth_pass x",
        "advert_int 2",
    ),
    *("lvs_timeouts tcp 9", "vrrp_version 3", "lvs_method TUN type gre", "unknown thing", '"{}"'),
]
BLOCKS = [
    *(
        "virtual_server 10.9.9.9 80",
        "virtual_server 10.9.9.8",
        "virtual_server group g",
        "virtual_server_group g",
    ),
    *(
        "virtual_server fd00::9 80",
        "virtual_server fwmark 1",
        "real_server 10.0.0.1 80",
        "real_server 10.0.0.2 81",
    ),
    *(
        "real_server fd00::1 80",
        "TCP_CHECK",
        "HTTP_GET",
        "SSL_GET",
        "url",
        "MISC_CHECK",
        "DNS_CHECK",
        "UDP_CHECK",
    ),
    *(
        "PING_CHECK",
        "SMTP_CHECK",
        "FILE_CHECK",
        "host",
        "vrrp_instance v",
        "virtual_ipaddress",
        "global_defs",
        "SSL",
    ),
    *("authentication", "track_interface", "unicast_peer", "unknown block"),
]
DIRECTIVES = st.recursive(
    st.sampled_from(KEYWORDS),
    lambda inner: st.builds(
        lambda head, lines: "\n".join([f"{head} {{", *lines, "}"]),
        st.sampled_from(BLOCKS),
        st.lists(inner, max_size=8),
    ),
    max_leaves=40,
)
PEERS = """[network]
prefix = "10.244.0.0/16"
[peers.a]
subnets = ["10.0.0.0/30"]
endpoint = "192.0.2.1"
public_key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
[peers.b]
address = "10.244.0.1"
endpoint = "10.0.0.9"
public_key = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
[services.g]
address = "10.9.9.8"
servers = ["a"]
"""


@given(st.lists(DIRECTIVES, max_size=6).map("\n".join))
@examples(300)
def test_whatever_is_imported_is_accepted_alone_and_behind_a_peers_file(text):
    for arguments in ((), (("lb1", "lb2"),), (("a", "b"), PEERS)):
        try:
            imported = keepalived(text, *arguments)
        except UnreadableError:
            continue
        assert imported.table is not None or not imported.text
