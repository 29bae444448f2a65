"""`overlay doctor` on hosts that are broken in one way each: it names that, and nothing else.

One pair of hosts serves most cases: what breaks it is taken back, and the next case finds it in order again.
"""

from __future__ import annotations

import json

import pytest

from tests.netns.network import Network

pytestmark = pytest.mark.netns


def examine(host, *arguments):
    done = host.overlay("doctor", "--json", *arguments)
    report = json.loads(done.stdout)
    wrong = [each for each in report["findings"] if each["severity"] != "notice"]
    assert done.returncode == (1 if wrong else 0), done.stderr
    return report


def names(host, *arguments):
    """Return what is wrong with *host*: the names, and with each the peer if it is about one."""
    return [
        (each["name"], each["peer"]) if each["peer"] else each["name"]
        for each in examine(host, *arguments)["findings"]
    ]


@pytest.fixture(scope="module")
def pair(module_lab, tmp_path_factory):
    """Paris and tokyo, whose agents run, with a container each."""
    network = Network(module_lab, tmp_path_factory.mktemp("doctor"))
    hosts = network.host("paris"), network.host("tokyo")
    for host in hosts:
        host.container("web" if host.name == "paris" else "db")
    network.start()
    hosts[0].ping(hosts[1].address)
    yield hosts
    network.close()


def test_nothing_is_named_where_nothing_is_wrong(pair):
    for host in pair:
        assert names(host) == []


# Settings and filters of the host: what breaks it, what is named, what mends it; the remedy itself, if that is a command

HOST = {
    "forwarding": ["sysctl -qw net.ipv4.ip_forward=0"],
    "forwarding of IPv6": ["sysctl -qw net.ipv6.conf.all.forwarding=0"],
}


def run(host, command):
    host.namespace.run("sh", "-c", command)


@pytest.mark.parametrize(
    ("name", "breaking"), [(name.split()[0], each) for name, each in HOST.items()], ids=HOST
)
def test_what_is_wrong_with_the_host_is_named_and_gone_with_its_remedy(pair, name, breaking):
    paris, _ = pair
    for command in breaking:
        run(paris, command)

    (finding,) = examine(paris)["findings"]

    assert finding["name"] == name
    remedy = finding["remedy"].split("`")[-2]
    run(paris, remedy)
    assert names(paris) == []
