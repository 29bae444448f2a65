from __future__ import annotations

from ipaddress import ip_address

import pytest

from overlay.host.firewall.rules import (
    STEPS,
    UNKNOWN,
    Chain,
    Decision,
    Field,
    Firewall,
    Match,
    Packet,
    Rule,
    Span,
    Table,
    Verdict,
)

PACKET = Packet(ip_address("10.244.2.1"), ip_address("10.244.1.1"), "overlay0", "br1")
ACCEPT, DROP, RETURN = Rule((), Verdict.ACCEPT), Rule((), Verdict.DROP), Rule((), Verdict.RETURN)


def forward(*rules, policy=Verdict.DROP, family="ip", name="filter", priority=0, **others):
    chains = {"FORWARD": Chain("FORWARD", list(rules), "forward", "filter", priority, policy)}
    chains |= {each: Chain(each, list(inner)) for each, inner in others.items()}
    return Table(family, name, "iptables", chains)


def is_dropped(*tables, packet=PACKET):
    return Firewall(tables).decides(packet, "forward", Verdict.DROP) is not None


def only(field, *values, is_negated=False):
    return (Match(field, values, is_negated),)


def test_host_without_rules_drops_nothing():
    assert Firewall().decides(PACKET, "forward", Verdict.DROP) is None


def test_policy_decides_what_no_rule_does():
    table = forward()

    assert Firewall([table]).decides(PACKET, "forward", Verdict.DROP) == Decision(
        table, "FORWARD", "FORWARD", is_policy=True
    )
    assert not is_dropped(forward(policy=Verdict.ACCEPT))


def test_rule_decides_before_the_policy_and_the_first_of_several():
    assert not is_dropped(forward(ACCEPT, DROP))
    assert is_dropped(forward(DROP, ACCEPT, policy=Verdict.ACCEPT))


@pytest.mark.parametrize("family", ["ip6", "arp"])
def test_table_of_another_family_decides_nothing(family):
    assert not is_dropped(forward(family=family))


def test_table_of_both_families_sees_both():
    six = Packet(ip_address("fd00::1"), ip_address("fd00::2"), "overlay0", "br1")

    assert is_dropped(forward(family="inet"))
    assert is_dropped(forward(family="inet"), packet=six)


def test_one_chain_that_accepts_does_not_help_against_another_that_drops():
    """As the accept of flannel's own table does not, beside Docker's policy."""
    helper = forward(ACCEPT, name="helper", policy=Verdict.ACCEPT, priority=-10)

    decision = Firewall([helper, forward()]).decides(PACKET, "forward", Verdict.DROP)

    assert decision.table.name == "filter"


def test_chain_that_a_jump_leads_to_is_named():
    decision = Firewall([forward(Rule((), target="USER"), policy=Verdict.ACCEPT, USER=[DROP])]).decides(
        PACKET, "forward", Verdict.DROP
    )

    assert (decision.base, decision.chain, decision.is_policy) == ("FORWARD", "USER", False)


@pytest.mark.parametrize(
    ("is_goto", "inner", "dropped"),
    [
        (False, [RETURN], False),  # on to the next rule, which accepts
        (False, [], False),
        (True, [RETURN], True),  # to the policy
        (True, [], True),
        (True, [ACCEPT], False),
    ],
)
def test_end_of_a_chain_is_that_of_its_caller_after_a_goto(is_goto, inner, dropped):
    table = forward(Rule((), target="USER", is_goto=is_goto), ACCEPT, USER=inner)

    assert is_dropped(table) == dropped


@pytest.mark.parametrize(
    ("matches", "holds"),
    [
        (only(Field.ENTERS, "overlay0"), True),
        (only(Field.ENTERS, "overlay1", "over*"), True),
        (only(Field.ENTERS, "eth0"), False),
        (only(Field.ENTERS, "eth0", is_negated=True), True),
        (only(Field.LEAVES, "br1"), True),
        (only(Field.SOURCE, Span.of_addresses("10.244.0.0/16")), True),
        (only(Field.SOURCE, Span.of_addresses("10.244.3.0/24")), False),
        (only(Field.SOURCE, Span.between("10.244.1.9", "10.244.2.9")), True),
        (only(Field.SOURCE, Span.of_addresses("::/0")), False),
        (only(Field.DESTINATION, Span.of_addresses("10.244.1.1"), is_negated=True), False),
        (only(Field.FAMILY, "ipv4"), True),
        (only(Field.PROTOCOL, "udp"), False),
        (only(Field.PORT, Span.of_ports("80")), False),
        (only(Field.PORT, Span.of_ports("80"), is_negated=True), True),
        (only(Field.STATE, "established", "related"), False),
        (only(Field.STATE, "established", "new"), True),
        ((UNKNOWN, *only(Field.STATE, "established")), False),  # one that does not match is enough
        ((UNKNOWN,), None),
    ],
)
def test_matches_hold_or_do_not_or_that_is_unknown(matches, holds):
    drops, accepts = (
        forward(Rule(matches, Verdict.DROP), policy=Verdict.ACCEPT),
        forward(Rule(matches, Verdict.ACCEPT)),
    )

    assert is_dropped(drops) == (holds is True)
    assert is_dropped(accepts) == (holds is False)


def test_what_is_not_known_of_the_packet_is_followed_both_ways():
    rule = Rule(only(Field.DESTINATION, Span.of_addresses("192.0.2.1")), Verdict.ACCEPT)
    packet = Packet(ip_address("192.0.2.2"), None, "eth0", "br1", None, None)

    assert not is_dropped(forward(rule), packet=packet)
    assert is_dropped(forward(rule, policy=Verdict.DROP), packet=PACKET)


def test_unknown_rule_changes_nothing_where_both_ways_end_alike():
    assert is_dropped(forward(Rule((UNKNOWN,), Verdict.DROP)))
    assert is_dropped(forward(Rule((UNKNOWN,), target="USER"), USER=[RETURN]))
    assert not is_dropped(forward(Rule((UNKNOWN,), target="USER"), USER=[ACCEPT]))


def test_target_that_does_not_exist_leaves_it_open():
    assert not is_dropped(forward(Rule((), target="NFQUEUE")))


def test_chains_that_call_themselves_come_to_an_end():
    assert not is_dropped(forward(Rule((), target="USER"), USER=[Rule((), target="USER")]))
    assert not is_dropped(forward(Rule((UNKNOWN,), target="A"), A=[Rule((UNKNOWN,), target="A")] * 50))


def test_more_rules_than_are_looked_at_leave_it_open():
    many = [Rule(only(Field.SOURCE, Span.of_addresses("192.0.2.1")), Verdict.ACCEPT)] * STEPS

    assert not is_dropped(forward(*many, *many[:1]))
    assert is_dropped(forward(*many))


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "x", "10.0.0.1-10.0.0.2"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        Span.of_addresses(text)
