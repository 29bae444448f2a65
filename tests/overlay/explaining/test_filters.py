"""Packet filters that drop a part of what is asked about."""

from __future__ import annotations

import pytest

from overlay.explaining.filters import RULES
from overlay.host.firewall.rules import Chain, Field, Firewall, Match, Rule, Span, Table, Verdict
from tests.overlay.explaining.bench import Bench

DROP, ACCEPT = Verdict.DROP, Verdict.ACCEPT
PLACE = "of the chain strict in the table ip mine"


def rule(verdict, *protocols, ports=()):
    matches = [Match(Field.PROTOCOL, protocols)] if protocols else []
    if ports:
        matches.append(Match(Field.PORT, tuple(Span(*each) for each in ports)))
    return Rule(tuple(matches), verdict)


def doubts(*rules, policy=ACCEPT, **flow):
    """Return what is doubted of a packet that *rules* are for, beside what is doubted of every packet."""
    bench = Bench()
    chain = Chain("strict", list(rules), "output", policy=policy)
    bench.firewall = Firewall([Table("ip", "mine", "nft", {"strict": chain})])
    found = bench.explain("10.244.2.7", **flow)
    assert found.goes
    return [each for each in found.doubts if "of tokyo are not known here" not in each]


@pytest.mark.parametrize(
    ("rules", "policy", "told"),
    [
        ([rule(DROP, "tcp", ports=[(443, 443)])], ACCEPT, f"tcp port 443 (a rule {PLACE}): ask again"),
        ([rule(DROP, "udp")], ACCEPT, f"udp (a rule {PLACE}): ask again"),
        ([rule(DROP, "icmp")], ACCEPT, f"icmp (a rule {PLACE})"),
        (
            [rule(DROP, "tcp", "udp", ports=[(80, 80), (8000, 8100)])],
            ACCEPT,
            f"tcp ports 80, 8000 to 8100 and udp ports 80, 8000 to 8100 (a rule {PLACE}): ask again",
        ),
        (
            [rule(ACCEPT, "tcp", ports=[(22, 22)])],
            DROP,
            f"tcp except port 22 and udp and sctp and icmp (the policy {PLACE}): ask again",
        ),
    ],
)
def test_what_is_dropped_of_some_protocols_or_ports_is_a_doubt_that_names_them(rules, policy, told):
    (doubt,) = doubts(*rules, policy=policy)

    assert doubt.startswith(f"the packet filter of this host drops {told}")
    assert doubt.endswith(("--protocol and --port", f"(a rule {PLACE})"))


def test_with_a_port_the_protocols_of_which_it_is_dropped_are_named():
    rules = rule(DROP, "tcp", ports=[(443, 443)]), rule(DROP, "icmp")

    (doubt,) = doubts(*rules, port=443)

    assert doubt == (
        f"the packet filter of this host drops tcp port 443 (a rule {PLACE}): ask again with --protocol"
    )
    assert doubts(*rules, port=444) == []


def test_with_a_protocol_its_ports_are_named():
    (doubt,) = doubts(rule(DROP, "tcp", ports=[(443, 443)]), protocol="tcp")

    assert doubt.endswith(
        "drops tcp port 443 (a rule of the chain strict in the table ip mine): ask again with --port"
    )


@pytest.mark.parametrize(
    "flow", [{"protocol": "udp"}, {"protocol": "tcp", "port": 80}, {"protocol": "udp", "port": 443}]
)
def test_what_is_dropped_of_others_is_no_doubt(flow):
    assert doubts(rule(DROP, "tcp", ports=[(443, 443)]), **flow) == []


def test_what_may_be_dropped_for_another_reason_is_no_doubt():
    assert doubts(Rule((Match(Field.OTHER),), DROP)) == []


def test_with_very_many_rules_that_is_all_that_is_told():
    (doubt,) = doubts(*[rule(DROP, "tcp", ports=[(443, 443)])] * (RULES + 1))

    assert doubt == (
        "the packet filter of this host may drop some protocols or ports: ask again with --protocol and --port"
    )
