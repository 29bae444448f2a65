"""The LAN side of directors, beside keepalived and each other, as a client on the LAN sees it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.netns.lan import NETWORKS, PATIENCE, VIPS
from tests.netns.topology import wait_until
from tests.netns.tshark import dissect


def test_link_local_address_of_the_group_is_that_of_keepalived(lan):
    other = lan.keepalived(family=6, priority=100, link_local="fe80::5200")
    other.becomes("MASTER")

    ours = lan.director(family=6, priority=150)
    ours.becomes("active", 6)
    other.becomes("BACKUP")
    ours.kill()
    other.becomes("MASTER")


def test_without_preemption_the_one_that_has_the_addresses_keeps_them(lan):
    other = lan.keepalived(priority=100)
    other.becomes("MASTER")

    ours = lan.director(priority=150, preempt=False)
    ours.becomes("backup")
    wait_until(lambda: ours.status()[0]["active"] == "10.50.2.2", PATIENCE, "ours to hear keepalived")

    assert (ours.state(4), other.state()) == ("backup", "MASTER")
    other.kill()
    ours.becomes("active")


@pytest.mark.parametrize("family", [4, 6])
def test_routers_that_are_named_need_no_multicast(lan, family):
    ours_at, other_at = ("10.50.2.1", "10.50.2.2") if family == 4 else ("fd50:2::1", "fd50:2::2")
    extra = f"unicast_src_ip {other_at}\nunicast_peer {{\n{ours_at}\n}}\n"
    other = lan.keepalived(family=family, priority=100, extra=extra)
    other.becomes("MASTER")
    sniffer = lan.other.sniff("eth0")

    ours = lan.director(family=family, priority=150, unicast=[ours_at, other_at])
    ours.becomes("active", family)
    other.becomes("BACKUP")
    ours.stop()
    other.becomes("MASTER")

    kind, protocol, start, end = (b"\x08\x00", 23, 30, 34) if family == 4 else (b"\x86\xdd", 20, 38, 54)
    frames = [each for each in sniffer.frames() if each[12:14] == kind and each[protocol] == 112]
    assert {each[start:end] for each in frames} == {ip_address(each).packed for each in (ours_at, other_at)}


def test_password_of_version_2_is_keepaliveds(lan):
    extra = "authentication {\nauth_type PASS\nauth_pass secret12\n}\n"
    other = lan.keepalived(version=2, priority=100, extra=extra)
    other.becomes("MASTER")

    ours = lan.director(version=2, priority=150, password="secret12")
    ours.becomes("active")
    other.becomes("BACKUP")
    ours.tell(groups=[lan.group(version=2, priority=150, password="other")])
    other.becomes("MASTER")

    wait_until(lambda: ours.status()[0]["refused"].get("vrrp_password"), PATIENCE, "a refusal")


def test_wireshark_names_what_is_said(lan, tmp_path):
    sniffer = lan.client.sniff("eth0")
    both = [VIPS[4], VIPS[6]]
    ours = lan.director()
    ours.tell(groups=[lan.group(addresses=both)])
    for family in (4, 6):
        ours.becomes("active", family)
        lan.finds(lan.ours, family)
    ours.stop()
    fields = ("vrrp.prio", "vrrp.virt_rtr_id", "arp.isgratuitous", "arp.opcode", "icmpv6.nd.na.target_address",
              "icmpv6.nd.na.flag.s", "ip.ttl", "ipv6.hlim", "vrrp.checksum.status")  # fmt: skip

    mac = bytes.fromhex(lan.mac(lan.ours).replace(":", ""))
    frames = [each for each in sniffer.frames() if each[6:12] == mac]
    rows = dissect(frames, tmp_path, fields=fields)

    assert not any("_ws.malformed" in row for row in rows)
    adverts = [row for row in rows if "vrrp.prio" in row]
    for time_to_live in ("ip.ttl", "ipv6.hlim"):
        said = [row["vrrp.prio"][0] for row in adverts if time_to_live in row]
        assert said[0] == "100"
        assert said[-1] == "0"
    assert {row[key][0] for row in adverts for key in ("ip.ttl", "ipv6.hlim") if key in row} == {"255"}
    assert {row["vrrp.virt_rtr_id"][0] for row in adverts} == {"51"}
    assert not any("hecksum" in text for row in adverts for text in row.get("_ws.expert.message", ()))
    announced = [row for row in rows if row.get("arp.isgratuitous")]
    assert len(announced) >= 5
    targets = [row for row in rows if row.get("icmpv6.nd.na.target_address") == [VIPS[6]]]
    assert len([row for row in targets if row["icmpv6.nd.na.flag.s"][0] in {"0", "False"}]) >= 5


def test_dead_director_answers_for_nothing(lan):
    ours = lan.director()
    ours.tell(groups=[lan.group(addresses=[VIPS[4], VIPS[6]])])
    for family in (4, 6):
        ours.becomes("active", family)
        lan.finds(lan.ours, family)

    ours.kill()

    assert [lan.ask(family) for family in (4, 6)] == [None, None]


def test_addresses_are_here_without_vrrp_on_the_link_that_they_are_on(lan):
    ours = lan.director()
    ours.tell(links={NETWORKS[4]: "eth0", NETWORKS[6]: "eth0"}, hold=[*VIPS.values(), "203.0.113.9"])
    for family in (4, 6):
        wait_until(lambda family=family: lan.ask(family) == lan.mac(lan.ours), PATIENCE, "an answer")

    ours.tell(hold=[])
    ours.status()

    assert [lan.ask(family) for family in (4, 6)] == [None, None]


def test_link_that_comes_back_is_told_again(lan):
    ours = lan.director()
    ours.tell(links={NETWORKS[4]: "eth0"}, hold=[VIPS[4]])
    wait_until(lambda: lan.ask(4) == lan.mac(lan.ours), PATIENCE, "an answer")
    lan.ours.run("ip", "link", "set", "eth0", "down")
    ours.tell(links={NETWORKS[4]: "eth0"})  # has it look at once
    ours.status()
    sniffer = lan.client.sniff("eth0")

    lan.ours.run("ip", "link", "set", "eth0", "up")
    ours.tell(links={NETWORKS[4]: "eth0"})

    vip = ip_address(VIPS[4]).packed
    gratuitous = []

    def is_told():
        gratuitous.extend(frame for frame in sniffer.frames() if frame[28:32] == frame[38:42] == vip)
        return gratuitous

    wait_until(is_told, PATIENCE, "announcements")


def test_interface_that_goes_and_comes_back_takes_part_again(lan):
    ours = lan.director(priority=100)
    ours.becomes("active")

    lan.ours.run("ip", "link", "set", "eth0", "down")
    ours.becomes("initialize")
    assert ours.states[4]["reason"] == "eth0 is down"
    lan.ours.run("ip", "link", "set", "eth0", "up")
    ours.becomes("active")

    wait_until(lambda: lan.ask(4) == lan.mac(lan.ours), PATIENCE, "an answer")


def test_active_router_whose_address_changes_goes_on_with_the_new_one(lan):
    ours = lan.director(priority=100)
    ours.becomes("active")
    sniffer = lan.client.sniff("eth0")

    lan.ours.run("ip", "address", "add", "10.50.2.77/24", "dev", "eth0")
    lan.ours.run("ip", "address", "del", "10.50.2.1/24", "dev", "eth0")
    lan.ours.run("ip", "address", "replace", "10.50.2.77/24", "dev", "eth0")

    def sources():
        return {
            frame[26:30] for frame in sniffer.frames() if frame[12:14] == b"\x08\x00" and frame[23] == 112
        }

    seen = set()

    def is_new():
        seen.update(sources())
        return bytes((10, 50, 2, 77)) in seen

    wait_until(is_new, PATIENCE, "advertisements from the new address")
    assert ours.status()[0]["active"] == "10.50.2.77"


def test_what_is_tracked_lowers_the_priority_or_gives_the_addresses_up(lan):
    other = lan.keepalived(priority=100)
    ours = lan.director(priority=150, track_weight=100, track_services=["web"])
    ours.becomes("active")
    other.becomes("BACKUP")

    ours.tell(without=["web"])
    other.becomes("MASTER")
    ours.becomes("backup")
    ours.tell(without=[])
    ours.becomes("active")
    ours.tell(groups=[lan.group(priority=150, track_overlay=True)])
    other.becomes("MASTER")

    ours.becomes("initialize")
    assert ours.states[4]["reason"] == "the overlay is not up"
    ours.tell(overlay=True)
    ours.becomes("active")


def test_two_of_ours_agree(lan):
    first = lan.director(lan.ours)
    second = lan.director(lan.other)
    both = [VIPS[4], VIPS[6]]
    first.tell(groups=[lan.group(addresses=both, priority=150)])
    second.tell(groups=[lan.group(addresses=both, priority=140)])
    for family in (4, 6):
        first.becomes("active", family)
        second.becomes("backup", family)

    first.kill()

    for family in (4, 6):
        second.becomes("active", family)
        wait_until(
            lambda family=family: lan.ask(family) == lan.mac(lan.other), PATIENCE, "the client to follow"
        )
