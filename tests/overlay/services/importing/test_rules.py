"""Rules of ipvsadm as a peers file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.importing.places import UnreadableError
from overlay.services.importing.calls import COMMANDS, OPTIONS
from tests.hypothesis_profiles import examples
from tests.overlay.services.importing.reading import refusal, rules

WEB = "-A -t 10.9.9.9:80\n-a -t 10.9.9.9:80 -r 10.0.0.2 -i\n"


def named(text):
    """Return the remarks on *text*, without its file."""
    return [each.removeprefix("rules:") for each in rules(text).remarks]


def test_defaults_are_those_of_ipvsadm():
    service = rules(WEB).service

    assert (service.scheduler, service.persistence, service.ports) == ("wlc", 0, ((80, 80),))
    assert [(each.name, each.weight) for each in service.servers] == [("10.0.0.2", 1)]


def test_direct_routing_is_the_default_and_is_named():
    (remark, *rest) = named("-A -t 10.9.9.9:80\n-a -t 10.9.9.9:80 -r 10.0.0.2\n")

    assert remark.startswith("1: -A -t 10.9.9.9:80: is left out")
    assert "without -i it is direct routing" in rest[0]


@pytest.mark.parametrize(
    "text",
    [
        "ipvsadm -A -t 10.9.9.9:80 -s rr -p 60\nipvsadm -a -t 10.9.9.9:80 -r 10.0.0.2:80 -i -w 3\n",
        "-A -t=10.9.9.9:80 -s=rr -p=60\n-a -t=10.9.9.9:80 -r=10.0.0.2 -i -w=3\n",
        "sudo /sbin/ipvsadm -At10.9.9.9:80 -srr -p60\r\n\n# now the server\n-ait 10.9.9.9:80 -r10.0.0.2 -w3 # it\n",
        (
            "--add-service --tcp-service=10.9.9.9:http --scheduler rr --persistent=60\n"
            "--add-server --tcp-service 10.9.9.9:http --real-server=10.0.0.2 --ipip --weight=3\n"
        ),
        (
            "-A -t 10.9.9.9:80 -s wlc\n-E -t 10.9.9.9:80 -s rr -p 60\n"
            "-a -t 10.9.9.9:80 -r 10.0.0.2 -i\n-e -t 10.9.9.9:80 -r 10.0.0.2 -i -w 3\n"
        ),
        (
            "-A -u 10.9.9.9:80 -o\n-C\n-A -t 10.9.9.9:80 -p 60 -s rr\n-A -t 10.9.9.8:80\n-D -t 10.9.9.8:80\n"
            "-a -t 10.9.9.9:80 -r 10.0.0.3 -i\n-d -t 10.9.9.9:80 -r 10.0.0.3\n-a -t 10.9.9.9:80 -r 10.0.0.2 -i -w "
            "3\n-Ln\n"
        ),
    ],
)
def test_rules_are_read_however_they_are_written(text):
    imported = rules(text)

    service = imported.service
    assert (service.scheduler, service.persistence) == ("rr", 60)
    assert [(each.name, each.weight) for each in service.servers] == [("10.0.0.2", 3)]
    assert imported.remarks == []


@pytest.mark.parametrize(
    ("options", "field", "expected"),
    [
        ("-p", "persistence", 360),
        ("-p -s rr", "persistence", 360),
        ("-s mh", "persistence", 360),
        ("-s mh -b mh-port,mh-fallback", "persistence", 0),
        ("-s twos", "scheduler", "wlc"),
        ("-s lblcr", "scheduler", "maglev"),
        ("-s sh -b sh-fallback", "scheduler", "sh"),
    ],
)
def test_options_of_a_service(options, field, expected):
    imported = rules(f"-A -t 10.9.9.9:80 {options}\n")

    assert getattr(imported.service, field) == expected
    assert imported.remarks == []


def test_masks_are_prefixes():
    four = rules("-A -t 10.9.9.9:80 -p 9 -M 255.255.0.0\n").service
    six = rules("-A -t [fd00::9]:80 -p 9 -M 64\n").service

    assert four.persistence_prefix == {4: 16, 6: 128}
    assert six.persistence_prefix == {4: 32, 6: 64}


def test_persistent_service_without_a_port_has_every_port():
    assert rules("-A -t 10.9.9.9 -p\n").service.ports == ()
    assert rules("-A -t 10.9.9.9:0 -p\n").service.ports == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-A -f 3\n-a -f 3 -r 10.0.0.2 -i\n", ["3: -A -f 3: services are distinguished"]),
        (f"{WEB}-A -t 10.9.9.9:80\n", [": the service already exists, by line 1"]),
        (f"{WEB}-a -t 10.9.9.9:80 -r 10.0.0.2:80 -i\n", [": the server already exists"]),
        (f"{WEB}-e -t 10.9.9.9:80 -r 10.0.0.3 -i\n", [": the server does not exist"]),
        (f"{WEB}-d -t 10.9.9.9:80 -r 10.0.0.3\n", [": the server does not exist"]),
        (f"{WEB}-D -u 10.9.9.9:80\n", [": the service does not exist"]),
        (f"{WEB}-E -u 10.9.9.9:80\n", [": the service does not exist"]),
        (f"{WEB}-a -u 10.9.9.9:80 -r 10.0.0.2 -i\n", [": the service does not exist"]),
        (f"{WEB}-a -t 10.9.9.9:80 -r 10.0.0.3 -m\n", [": answers of NAT servers"]),
        (f"{WEB}-a -t 10.9.9.9:80 -r 10.0.0.3 -i --tun-type gue --tun-port 1\n", [": GUE is not supported"]),
        (
            f"{WEB}-a -t 10.9.9.9:80 -r 10.0.0.3:8080 -i\n",
            [": a tunnelled server uses the service's port"],
        ),
        (f"{WEB}-a -t 10.9.9.9:80 -r 10.0.0.3 -i -w 65536\n", ["-w 65536: becomes 65535"]),
        (f"{WEB}-A -t www.example.org:80\n", ["www.example.org:80: names are not looked up"]),
        ("-A -t 10.9.9.9:80 -s fast\n", ["-s fast: the scheduler is not known"]),
        ("-A -t 10.9.9.9:80 --pe sip\n", ["--pe sip: clients are distinguished"]),
        (
            "-A -t 10.9.9.9:80 -p 9 -M 255.0.255.0\n",
            ["-M 255.0.255.0: is an empty or non-contiguous netmask"],
        ),
        ("-A -t 10.9.9.9:80 -s sh -b sh-port\n", ["-b sh-port: sh chooses by the address"]),
    ],
)
def test_what_cannot_be_carried_over_is_named(text, expected):
    said = named(text)

    assert len(said) == len(expected)
    for sentence, part in zip(said, expected, strict=True):
        assert part.removeprefix("3: ") in sentence


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "rules:1: the file has no rules"),
        ("# nothing\n", "rules:1: the file has no rules"),
        (f"{WEB}\nhello\n", "rules:4: has no command"),
        (f"{WEB}-A -t 10.9.9.9:80 hello\n", "rules:3: has hello, which belongs to no option"),
        ("-A -q\n", "rules:1: ipvsadm has no option -q"),
        ("-A --quick\n", "rules:1: ipvsadm has no option --quick"),
        ("-A -D -t 10.9.9.9:80\n", "rules:1: has several commands"),
        ("-A -t\n", "rules:1: --tcp-service has no value"),
        ("-A -s rr\n", "rules:1: does not name one service"),
        ("-A -t 10.9.9.9:80 -u 10.9.9.9:80\n", "rules:1: does not name one service"),
        ("-A -t 10.9.9.9:80 -t 10.9.9.9:80\n", "rules:1: has --tcp-service twice"),
        ("-A -t 10.9.9.9:99999\n", "rules:1: 10.9.9.9:99999 has an unknown port"),
        ("-A -t 10.9.9.9:nonsense\n", "rules:1: 10.9.9.9:nonsense has an unknown port"),
        ("-A -t 10.9.9.999:80\n", "rules:1: 10.9.9.999 is not an IP address"),
        ("-A -t 10.9.9.9\n", "rules:1: a service without a port must be persistent"),
        ("-A -t 10.9.9.9:80 -o\n", "rules:1: one-packet scheduling is for UDP"),
        ("-A -t 10.9.9.9:80 -b sh-port\n", "rules:1: the scheduler wlc has no flag sh-port"),
        ("-A -t 10.9.9.9:80 -p x\n", "rules:1: -p x is not a number from 1 to 2678400"),
        (f"{WEB}-a -t 10.9.9.9:80 -i\n", "rules:3: names no server"),
        (f"{WEB}-d -t 10.9.9.9:80\n", "rules:3: names no server"),
        (f"{WEB}-a -t 10.9.9.9:80 -r 10.0.0.3 -i -m\n", "rules:3: has more than one of -g, -i and -m"),
        (f"{WEB}-a -t 10.9.9.9:80 -r 10.0.0.3 -i -w -1\n", "rules:3: -w -1 is not a number"),
        (f"{WEB}-a -t 10.9.9.9:80 -r 10.0.0.3 -i --tun-type x\n", "rules:3: x is not a type of tunnel"),
        ("-A -t 10.9.9.9:80 -w 3\n", "rules:1: --add-service has no --weight"),
        (f"{WEB}-D -t 10.9.9.9:80 -s rr\n", "rules:3: --delete-service has no --scheduler"),
        ("-C -n\n", "rules:1: --clear has no --numeric"),
        (
            f"{WEB}-a -t 10.9.9.9:80 -r 10.0.0.3 --tun-type ipip\n",
            "rules:3: has tunnel options without -i",
        ),
        ("-A -f 0\n", "rules:1: -f 0 is not a number"),
        ("--set 1 2\n", "rules:1: takes three times in seconds"),
        ("--set 1 2 x\n", "rules:1: takes three times in seconds"),
        ("-A\0\n", "rules:1: contains a null character"),
        ("virtual_server 10.0.0.1 80 {\n}\n", "rules:1: has no command"),
    ],
)
def test_anything_but_rules_is_refused_with_line_and_reason(text, problem):
    assert str(refusal(UnreadableError, rules, text)).startswith(problem)


def test_time_outs_are_those_of_the_services_protocol():
    imported = rules("--set 7440 0 60\n-A -t 10.9.9.9:80\n-A -u 10.9.9.9:53\n")

    web, dns = imported.table.services.values()
    assert (web.idle_tcp, web.idle_fin, web.idle_udp) == (7440, 120, 300)
    assert (dns.idle_tcp, dns.idle_fin, dns.idle_udp) == (900, 120, 60)


WORDS = st.sampled_from(
    [
        *(f"-{letter}" for letter in (*COMMANDS, *OPTIONS) if len(letter) == 1),
        *OPTIONS.values(),
        *(
            "10.9.9.9:80",
            "[fd00::9]:80",
            "10.0.0.2",
            "10.0.0.3:81",
            "[fd00::2]",
            "rr",
            "mh",
            "mh-port",
            "7",
            "300",
            "gre",
        ),
        *(
            "255.255.255.0",
            "-A -t 10.9.9.9:80",
            "-a -t 10.9.9.9:80 -r 10.0.0.2 -i",
            "-A -u 10.9.9.9:53 -o",
            "\n",
            "\n",
            "#",
        ),
    ]
)


@given(st.lists(WORDS, max_size=30).map(" ".join))
@examples(300)
def test_whatever_is_imported_is_accepted(text):
    try:
        imported = rules(text, ("lb1",))
    except UnreadableError:
        return

    assert imported.table is not None or not imported.text
