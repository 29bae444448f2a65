from __future__ import annotations

import shutil
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from overlay.host.firewall import read
from overlay.host.firewall.read import UnreadError, read_firewall, run
from overlay.host.firewall.rules import Packet, Verdict

IN = Packet(ip_address("10.244.2.1"), ip_address("10.244.1.1"), "overlay0", "br1")


def need(*programs):
    for program in programs:
        if shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
            pytest.skip(f"{program} is not installed")


def test_what_a_program_prints_is_returned():
    assert run(["echo", "a", "b"], patience=60) == b"a b\n"


@pytest.mark.parametrize(
    ("command", "patience", "why"),
    [
        (["no-such-program"], 60, "no-such-program is not installed"),
        (["false"], 60, "false failed with exit code 1"),
        (["sleep", "1000"], 0.5, "sleep took too long"),
        (["yes"], 60, "yes printed more than 100000 bytes"),
        (["sh", "-c", "exec >&-; sleep 1000"], 0.5, "sh took too long"),
    ],
)
def test_program_that_does_not_tell_is_ended_and_named(command, patience, why):
    with pytest.raises(UnreadError) as raised:
        run(command, patience=patience, largest=100_000)

    assert str(raised.value).startswith(why)
    assert not _children()


def _children():
    return [
        name
        for each in Path("/proc/self/task").iterdir()
        for name in (each / "children").read_text().split()
        if (Path("/proc") / name / "comm").read_text().strip() in {"sleep", "yes"}
    ]


def test_nothing_that_is_installed_is_not_known_and_not_empty(monkeypatch):
    monkeypatch.setattr(read, "FOLDERS", ())

    assert read_firewall().unread[0] == "nft is not installed"


@pytest.mark.netns
@pytest.mark.parametrize("program", ["iptables", "iptables-nft", "iptables-legacy"])
def test_policy_of_iptables_is_read_with_the_command_that_changes_it(lab, program):
    need(program)
    host = lab.namespace("host")
    done = host.completed(program, "-P", "FORWARD", "DROP")
    if done.returncode:
        pytest.skip(f"this kernel has not what {program} needs")
    host.run(
        program, "-A", "FORWARD", "-o", "br1", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"
    )

    with host.entered():
        decision = read_firewall().decides(IN, "forward", Verdict.DROP)
        host.run(decision.table.program, "-I", "FORWARD", "-i", "overlay0", "-j", "ACCEPT")
        after = read_firewall().decides(IN, "forward", Verdict.DROP)

    assert decision.is_policy
    assert after is None


@pytest.mark.netns
def test_tables_of_both_kinds_are_read_each_once(lab):
    need("nft", "iptables-nft")
    host = lab.namespace("host")
    host.run("iptables-nft", "-A", "FORWARD", "-m", "limit", "--limit", "1/sec", "-j", "ACCEPT")
    host.run(
        "nft",
        "add table inet mine; add chain inet mine forward { type filter hook forward priority 5; policy drop; }",
    )

    with host.entered():
        firewall = read_firewall()

    assert sorted((each.family, each.name) for each in firewall.tables) == [
        ("inet", "mine"),
        ("ip", "filter"),
    ]
    assert firewall.decides(IN, "forward", Verdict.DROP).table.name == "mine"
    assert firewall.unread == ()


@pytest.mark.netns
def test_host_without_rules_has_none(lab):
    need("nft")
    with lab.namespace("host").entered():
        firewall = read_firewall()

    assert (firewall.tables, firewall.unread) == ((), ())


@pytest.mark.netns
def test_more_rules_than_are_read_are_not_known(lab, tmp_path, monkeypatch):
    need("nft")
    host, rules = lab.namespace("host"), tmp_path / "rules"
    lines = [
        f"add rule inet big forward ip saddr 10.{n // 65536}.{n // 256 % 256}.{n % 256} drop"
        for n in range(30_000)
    ]
    rules.write_text(
        "\n".join(
            [
                "add table inet big",
                "add chain inet big forward { type filter hook forward priority 0; }",
                *lines,
            ]
        )
    )
    host.run("nft", "-f", str(rules), timeout=60)
    monkeypatch.setattr(read, "run", partial(read.run, patience=60))  # a busy machine takes a moment

    with host.entered():
        firewall = read_firewall()

    assert firewall.unread == (f"nft printed more than {read.LARGEST} bytes",)
    assert firewall.tables == ()


@pytest.mark.netns
def test_without_the_capability_nothing_is_known(lab):
    need("nft")
    code = (
        "from overlay.host.firewall.read import run, UnreadError\n"
        "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: run(['nft', '--json', 'list', 'ruleset'])\nexcept UnreadError as error: print(error)"
    )

    assert "nft failed with exit code" in lab.namespace("host").python(code)
