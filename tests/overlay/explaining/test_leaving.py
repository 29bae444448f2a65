"""Packets from this host, and those that it forwards from behind it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from overlay.explaining.explanation import Origin, Path
from overlay.host.firewall.rules import Chain, Field, Firewall, Match, Rule, Span, Table, Verdict
from overlay.host.netlink.route_lookup import RouteOutcome, RouteResult
from tests.overlay.explaining.bench import HERE, PEERS, ROUTES, Bench, out, refused, texts


@pytest.fixture
def bench():
    return Bench()


def end(found):
    return found.path, found.goes, *refused(found)


def test_a_packet_to_a_peer_is_explained_from_route_to_far_side(bench):
    found = bench.explain("10.244.2.7")

    assert end(found) == (Path.TUNNEL, True, None, None)
    assert [step.name for step in found.steps] == ["route", "peer", "tunnel", "size", "far side"]
    assert (found.peer, found.prefix, found.mtu) == ("tokyo", "10.244.2.0/24", 1420)
    assert found.tunnel == {
        "encapsulation": "wireguard",
        "is_encrypted": True,
        "endpoint": "192.0.2.2:51820",
        "interface": "eth0",
        "source": "192.0.2.1",
        "gateway": None,
    }
    assert found.doubts == ["the packet filters and routes of tokyo are not known here"]


def test_a_packet_from_behind_the_host_comes_by_the_interface_there(bench):
    found = bench.explain("10.244.2.7", "10.244.1.5")

    assert (found.origin, found.enters, found.goes) == (Origin.INTERFACE, "br0", True)
    assert ("10.244.2.7", "10.244.1.5", "br0") in [
        (str(each.destination), str(each.source), each.enters) for each in bench.asked
    ]


def test_a_host_that_does_not_forward_keeps_what_is_from_behind_it(bench):
    bench.forwards = False

    assert end(bench.explain("10.244.2.7", "10.244.1.5")) == (Path.NOWHERE, False, "kernel", None)
    assert bench.explain("10.244.2.7").goes
    assert bench.explain("10.244.0.1", "10.244.1.5").path is Path.HERE


@pytest.mark.parametrize(
    ("destination", "reason", "words"),
    [
        ("10.244.9.1", "no_peer", "no peer has 10.244.9.1; the nearest is 10.244."),
        ("10.244.4.1", "own_subnet", "a local route is missing"),
    ],
)
def test_what_the_forwarder_drops_is_named_by_its_reason(destination, reason, words):
    bench = Bench(PEERS.replace('"10.244.1.0/24"', '"10.244.1.0/24", "10.244.4.0/24"'))

    found = bench.explain(destination)

    assert end(found) == (Path.NOWHERE, False, "node", reason)
    assert words in texts(found)
    assert f"counted: as `{reason}` by this node" in texts(found)


def test_a_multicast_group_is_not_taken_for_a_peer_that_is_missing(bench):
    bench.routes[ip_network("224.0.0.0/4")] = bench.routes[ip_network("10.244.0.0/16")]

    found = bench.explain("224.0.0.251")

    assert end(found) == (Path.NOWHERE, False, "node", "tun_multicast")


@pytest.mark.parametrize(
    ("row", "refused_by", "reason"),
    [
        ({"endpoint": None}, "node", "no_endpoint"),
        ({"state": "unreachable"}, "node", "given_up"),
        ({"state": "unconfirmed"}, "node", "given_up"),
        ({"endpoint": "203.0.113.9:51820"}, "kernel", "send_refused"),
        ({"endpoint": "10.244.2.200:51820"}, "node", "loop"),
    ],
)
def test_a_peer_that_cannot_be_reached_is_named_by_its_reason(bench, row, refused_by, reason):
    bench.rows["tokyo"] = row
    del bench.routes[ip_network("0.0.0.0/0")]

    assert end(bench.explain("10.244.2.7")) == (Path.NOWHERE, False, refused_by, reason)


@pytest.mark.parametrize("state", ["silent", "idle", "connecting"])
def test_a_peer_that_may_not_answer_is_a_doubt(bench, state):
    bench.rows["tokyo"] = {"state": state}

    found = bench.explain("10.244.2.7")

    assert found.goes
    assert found.doubts[0].startswith(f"tokyo is {state}: ")


def test_the_path_mtu_bounds_the_packet(bench):
    bench.rows["tokyo"] = {"path_mtu": 1280, "kernel_path_mtu": 1300}

    found = bench.explain("10.244.2.7")

    assert found.mtu == 1280
    assert "the path MTU to tokyo; 80 are reserved for the tunnel" in texts(found)
    assert "the kernel was told of a path MTU of 1300 to the endpoint" in found.doubts


@pytest.mark.parametrize(
    ("source", "whose"),
    [("192.0.2.1", "no peer has it"), ("172.16.1.1", "no peer has it")],
)
def test_a_source_that_is_not_ours_is_refused_by_the_peer(bench, source, whose):
    bench.routes[ip_network("172.16.0.0/16")] = out("eth1", "172.16.0.0/16")

    found = bench.explain("10.244.2.7", source)

    assert end(found) == (Path.TUNNEL, False, "peer", "source")
    assert whose in texts(found)
    assert "by tokyo: the packet came from the peer, but its source" in texts(found)


def test_in_the_clear_the_sources_of_this_node_count():
    text = PEERS.replace(
        'subnets = ["10.244.1.0/24"]', 'subnets = ["10.244.1.0/24"]\nsources = ["172.16.0.0/16"]'
    )
    bench = Bench(text.replace("[network]", '[network]\nencapsulation = "gre"'))
    bench.routes[ip_network("172.16.0.0/16")] = out("eth1", "172.16.0.0/16")

    found = bench.explain("10.244.2.7", "172.16.1.1")

    assert found.goes
    assert "may send from by 172.16.0.0/16 in its `sources`" in texts(found)
    assert "unencrypted" in texts(found)


def test_what_is_not_of_the_overlay_leaves_by_its_own_route(bench):
    found = bench.explain("198.51.100.7")

    assert end(found) == (Path.OUTSIDE, True, None, None)
    assert "not through the overlay: no prefix of a peer holds 198.51.100.7" in texts(found)
    assert "192.0.2.2 is the endpoint of tokyo" in texts(_met(bench).explain("192.0.2.2"))


def _met(bench):
    bench.roster.by_name["tokyo"].endpoint = ("192.0.2.2", 51820)
    return bench


def test_what_a_peer_has_and_another_route_takes_is_a_fault(bench):
    bench.routes[ip_network("10.244.2.64/26")] = out("eth0", "10.244.2.64/26", gateway="192.0.2.254")

    found = bench.explain("10.244.2.65")

    assert end(found) == (Path.OUTSIDE, False, "kernel", None)
    assert (
        "10.244.2.0/24 is tokyo's, but this host sends it by eth0, not through the overlay, and unencrypted"
        in texts(found)
    )
    bench.plan = replace(bench.plan, on_link=(ip_network("10.244.2.0/24"),))
    assert bench.explain("10.244.2.65").goes


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (RouteOutcome.NOWHERE, "has no route to 10.244.2.7, although 10.244.2.0/24 is tokyo's"),
        (RouteOutcome.UNREACHABLE, "nothing leaves unencrypted; see whether overlay0 is up"),
        (RouteOutcome.PROHIBITED, "is prohibited"),
        (RouteOutcome.DISCARDED, "is discarded"),
    ],
)
def test_what_the_kernel_refuses_is_told(bench, outcome, words):
    bench.routes[ip_network("10.244.2.0/24")] = RouteResult(outcome)

    found = bench.explain("10.244.2.7")

    assert end(found) == (Path.NOWHERE, False, "kernel", None)
    assert words in texts(found)


def test_a_subnet_of_ours_that_is_nowhere_sends_nothing(bench):
    del bench.routes[ip_network("10.244.1.0/24")]

    found = bench.explain("10.244.2.7", "10.244.1.5")

    assert end(found) == (Path.NOWHERE, False, "kernel", None)


def test_addresses_of_this_host_stay_here(bench):
    bench.routes[ip_network("10.244.1.1/32")] = HERE

    assert end(bench.explain("10.244.1.1")) == (Path.HERE, True, None, None)


def filtering(hook, verdict, kind="filter", address="10.244.2.7/32"):
    rule = Rule((Match(Field.DESTINATION, (Span.of_addresses(address),)),), verdict)
    chain = Chain("strict", [rule], hook, kind)
    return Firewall([Table("ip", "mine", "nft", {"strict": chain})])


@pytest.mark.parametrize(
    ("hook", "source"), [("output", None), ("forward", "10.244.1.5"), ("postrouting", None)]
)
def test_a_packet_filter_of_this_host_is_named_with_its_chain(bench, hook, source):
    bench.firewall = filtering(hook, Verdict.DROP)

    found = bench.explain("10.244.2.7", source)

    assert end(found) == (Path.NOWHERE, False, "packet filter", None)
    assert "a rule of the chain strict in the table ip mine" in texts(found)
    assert bench.explain("10.244.2.8", source).goes


def test_a_packet_filter_counts_for_a_protocol_only_where_it_is_named(bench):
    bench.firewall = filtering("output", Verdict.DROP)
    rule = bench.firewall.tables[0].chains["strict"].rules[0]
    chain = Chain("strict", [Rule((*rule.matches, Match(Field.PROTOCOL, ("tcp",))), Verdict.DROP)], "output")
    bench.firewall = Firewall([Table("ip", "mine", "nft", {"strict": chain})])

    found = bench.explain("10.244.2.7")
    assert found.goes
    assert found.doubts[0] == (
        "the packet filter of this host drops tcp (a rule of the chain strict in the table ip mine): ask again with "
        "--protocol and --port"
    )
    assert len(bench.explain("10.244.2.7", protocol="udp").doubts) == len(found.doubts) - 1
    assert not bench.explain("10.244.2.7", protocol="tcp").goes


def test_packet_filters_that_could_not_be_read_are_a_doubt(bench):
    bench.firewall = Firewall((), ("nft is not installed",))

    assert bench.explain("10.244.2.7").doubts[-1].endswith("are not all known: nft is not installed")
    assert not bench.explain("10.244.9.1").doubts


def test_a_masqueraded_packet_has_another_source_at_the_peer(bench):
    bench.firewall = filtering("postrouting", Verdict.MASQUERADE, "nat")
    bench.routes[ip_network("172.16.0.0/16")] = out("eth1", "172.16.0.0/16")

    found = bench.explain("10.244.2.7", "172.16.1.1")

    assert found.goes
    assert "masquerade: the packet gets the source 10.244.0.1" in texts(found)


def test_a_tap_checks_no_sources():
    bench = Bench(PEERS.replace("[network]", '[network]\ndevice = "tap"'), routes=ROUTES)

    assert bench.explain("10.244.2.7", "192.0.2.1").goes


def test_a_packet_from_behind_that_a_rule_discards_is_not_laid_to_the_reverse_path_check_alone(bench):
    bench.refused["10.244.1.5"] = RouteOutcome.DISCARDED

    found = bench.explain("10.244.2.7", "10.244.1.5")

    assert end(found) == (Path.NOWHERE, False, "kernel", None)
    assert "a rule, a route or the reverse path check of this host discards packets from 10.244.1.5" in texts(
        found
    )
    bench.refused["10.244.1.5"] = RouteOutcome.REVERSE_PATH
    assert "the reverse path check of br0 drops packets from 10.244.1.5" in texts(
        bench.explain("10.244.2.7", "10.244.1.5")
    )


@pytest.mark.parametrize(
    ("prefix", "is_meant"),
    [("0.0.0.0/0", True), ("192.0.2.0/24", False), ("192.0.2.128/25", False)],
)
def test_a_network_of_the_host_inside_a_larger_one_of_a_peer_is_meant_to_be_preferred(prefix, is_meant):
    bench = Bench(PEERS.replace('"10.244.2.0/24"', f'"10.244.2.0/24", "{prefix}"'))

    found = bench.explain("192.0.2.130")

    assert end(found) == (Path.OUTSIDE, is_meant, None if is_meant else "kernel", None)


def test_what_the_far_end_of_a_device_that_wg_alone_configures_accepts_is_not_known():
    bench = Bench()
    bench.node = replace(bench.node, is_bare=True)

    found = bench.explain("10.244.2.7", "192.0.2.1")

    assert end(found) == (Path.TUNNEL, True, None, None)
    assert "the sources that tokyo accepts are not known here: they are its AllowedIPs" in found.doubts
