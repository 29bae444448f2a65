from __future__ import annotations

import shutil
import socket
import subprocess
import sys

import pytest

from overlay.host.tunnel_errors import TunnelErrors, matches
from overlay.wire.icmp import in_ipv4
from tests import packets

ICMP, ICMPV6 = 1, 58
IPIP, SIT, GRE, UDP, OPTIONS = 4, 41, 47, 17, 60


class FakeTable:
    def __init__(self, made, name, matches):
        self.name, self.matches, self.is_open = name, matches, True
        made.append(self)

    def close(self):
        self.is_open = False


@pytest.fixture
def made():
    return []


@pytest.fixture
def errors(made):
    return TunnelErrors("overlay0", lambda name, matches: FakeTable(made, name, matches))


def test_there_is_a_table_only_while_there_are_protocols(errors, made):
    errors.prevent(set())
    assert (made, errors.prevented) == ([], frozenset())

    errors.prevent({IPIP, SIT})
    errors.prevent([SIT, IPIP])
    assert [table.name for table in made] == ["overlay-overlay0"]
    assert errors.prevented == {IPIP, SIT}

    errors.prevent({GRE})
    assert [table.is_open for table in made] == [False, True]

    errors.prevent(())
    assert [table.is_open for table in made] == [False, False]
    assert errors.prevented == frozenset()


def test_where_it_is_refused_nothing_is_prevented_and_the_next_call_tries_anew(made):
    refusals = [PermissionError(1, "no"), OSError(95, "not supported")]

    def make(name, matches):
        if refusals:
            raise refusals.pop()
        return FakeTable(made, name, matches)

    errors = TunnelErrors("overlay0", make)
    for _ in range(2):
        errors.prevent({IPIP})
        assert errors.prevented == frozenset()
    errors.prevent({IPIP})

    assert errors.prevented == {IPIP}
    errors.close()
    errors.close()
    assert not made[0].is_open


# The real kernel


@pytest.fixture
def host(lab):
    """A host with another next to it, to which it may send errors."""
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    host, other = lab.namespace("host"), lab.namespace("other")
    if host.completed("nft", "list", "ruleset").returncode != 0:
        pytest.skip("this kernel has no nftables")
    ends = ("192.0.2.1/24", "2001:db8::1/64"), ("192.0.2.2/24", "2001:db8::2/64")
    lab.veth(host.end("eth0", *ends[0]), other.end("eth0", *ends[1]))
    return host


def leaves(version, kind, code, protocol, before=b""):
    """Return whether an ICMP error about a packet of *protocol* leaves the namespace of the calling thread."""
    if version == 4:
        about = packets.ipv4(bytes(8), protocol=protocol)
        family, number, to = socket.AF_INET, ICMP, "192.0.2.2"
    else:
        about = packets.ipv6(before + bytes(8), protocol=OPTIONS if before else protocol)
        family, number, to = socket.AF_INET6, ICMPV6, "2001:db8::2"
    with socket.socket(family, socket.SOCK_RAW, number) as raw:
        try:
            raw.sendto(bytes([kind, code]) + bytes(6) + about, (to, 0))
        except PermissionError:
            return False
    return True


def ruleset():
    done = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.netns
def test_errors_about_the_protocols_in_use_do_not_leave_and_all_others_do(host):
    errors = TunnelErrors("test0")
    with host.entered():
        errors.prevent({IPIP, GRE})
        found = {
            (version, kind, code, protocol)
            for version, kinds in {4: ((3, 3), (3, 2), (3, 4), (11, 0)), 6: ((1, 4), (1, 3), (2, 0))}.items()
            for kind, code in kinds
            for protocol in (IPIP, SIT, GRE, UDP)
            if not leaves(version, kind, code, protocol)
        }
        # As the kernel's ip6tnl sends it: the tunnel encapsulation limit of RFC 2473 section 5.1, and padding
        options = {
            protocol: leaves(6, 1, 4, protocol, bytes([protocol, 0, 4, 1, 4, 1, 1, 0]))
            for protocol in (IPIP, SIT, GRE, UDP)
        }
        errors.close()
        is_over = leaves(4, 3, 3, IPIP)

    assert found == {
        (version, *kind, protocol) for version, kind in ((4, (3, 3)), (6, (1, 4))) for protocol in (IPIP, GRE)
    }
    assert options == {IPIP: False, SIT: True, GRE: False, UDP: True}
    assert is_over


@pytest.mark.netns
def test_the_table_is_in_the_place_of_one_that_was_left_and_stays_when_others_flush_theirs(host):
    errors = TunnelErrors("test0")
    with host.entered():
        subprocess.run(["nft", "add table inet overlay-test0; add chain inet overlay-test0 x"], check=True)
        errors.prevent({IPIP})
        made = ruleset()
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        left = ruleset()
        errors.close()
        after = ruleset()

    assert "chain x" not in made
    assert made.count("port-unreachable") == len(matches({IPIP})) == 3
    assert left == made
    assert after == ""


@pytest.mark.netns
def test_the_table_goes_with_a_process_that_is_killed(host):
    code = (
        "import sys\nfrom overlay.host.tunnel_errors import TunnelErrors\n"
        "errors = TunnelErrors('test0'); errors.prevent({4}); print(len(errors.prevented), flush=True)\n"
        "sys.stdin.read()"
    )
    with host.entered():
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with process:
            assert process.stdout.readline() == "1\n"
            assert "overlay-test0" in ruleset()
            process.kill()
        after = ruleset()

    assert after == ""


def test_an_error_of_the_kernel_is_what_is_matched():
    about = packets.ipv4(bytes(40), protocol=IPIP)
    error = in_ipv4(bytes([3, 3, 0, 0]) + bytes(4) + about[:28], bytes(4), bytes(4))[20:]

    (match,) = [each for each in matches({IPIP}) if each.protocol == ICMP]

    assert all(error[at : at + len(value)] == value for at, value in match.fields)
