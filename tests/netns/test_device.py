"""The device as users of tun know it: persistent, with an owner, for an agent with few privileges or none."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.netns.network import CONTROL, PATIENCE, Host, Network, is_alive, ping, trace
from tests.netns.topology import wait_until
from tests.netns.users import USER, AsUser


@pytest.fixture
def network(lab, tmp_path):
    made = Network(lab, tmp_path)
    yield made
    made.close()


def tuntap(host, *options):
    host.namespace.run("ip", "tuntap", "add", "dev", "overlay0", "mode", "tun", *options)


def up(host, *options):
    """Run ``overlay up``, which is refused."""
    host.write()
    return host.overlay("up", "--peers", str(host.peers_path), "--key", str(host.key_path), *options)


# Persistent devices


@pytest.mark.parametrize("is_up", [False, True])
def test_persistent_device_is_used_and_left_as_it_was(network, is_up):
    paris, tokyo = network.host("paris"), network.host("tokyo")
    tokyo.settings["subnets"] += ["192.168.77.0/24", "0.0.0.0/0"]
    tuntap(paris)
    paris.namespace.run("ip", "link", "set", "overlay0", "mtu", "1480", "txqueuelen", "77")
    # Otherwise the kernel gives it a link-local address with its first process, which it keeps.
    mode = "none" if is_up else "eui64"
    paris.namespace.run("ip", "link", "set", "overlay0", "addrgenmode", mode)
    paris.namespace.run("ip", "address", "add", "10.244.1.0/32", "dev", "overlay0")
    paris.namespace.run("ip", "address", "add", "172.16.0.1/24", "dev", "overlay0")
    if is_up:
        paris.namespace.run("ip", "link", "set", "overlay0", "up")
        paris.namespace.run("ip", "route", "add", "10.244.0.0/17", "dev", "overlay0")
        paris.namespace.run("ip", "rule", "add", "to", "10.9.0.0/16", "lookup", "99")
    before = settled(paris)
    network.start()
    paris.ping(tokyo.address)
    paris.ping(tokyo.address6)
    assert "mtu 1420" in paris.namespace.run("ip", "link", "show", "overlay0")

    paris.stop()

    assert settled(paris) == before


def settled(host):
    """Return trace() without what the kernel adds to a device that had a process, and keeps."""
    text = re.sub(r"(NO-CARRIER,|,LOWER_UP| linkdown| qdisc \w+)", "", trace(host.namespace))
    return sorted(line for line in text.splitlines() if "multicast ff00::/8 dev overlay0" not in line)


def test_persistent_device_goes_on_after_a_kill_and_is_then_left_without_what_was_ours(network):
    paris, tokyo = network.host("paris"), network.host("tokyo")
    tuntap(paris)
    paris.namespace.run("ip", "address", "add", "172.16.0.1/24", "dev", "overlay0")
    before = {"address": addresses(paris), "route": routes(paris)}
    network.start()
    paris.ping(tokyo.address)
    paris.kill()
    assert "10.244.1.0" in addresses(paris)

    paris.start()
    paris.ping(tokyo.address)
    paris.stop()

    assert "took over" in paris.log
    assert {"address": addresses(paris), "route": routes(paris)} == before


def addresses(host):
    shown = json.loads(host.namespace.run("ip", "-j", "address", "show", "overlay0"))
    return {each["local"] for each in shown[0]["addr_info"]}


def routes(host):
    return [
        line
        for version in ("-4", "-6")
        for line in host.namespace.run("ip", version, "route", "show", "table", "all").splitlines()
        if "proto 151" in line
    ]


def test_device_that_another_agent_uses_is_refused(network):
    paris = network.host("paris")
    tuntap(paris)
    paris.start()
    paris.namespace.run("rm", str(paris.control_path))
    paris.control_path.with_suffix(".lock").unlink()

    done = up(paris)

    assert done.returncode == 1
    assert "overlay0 exists already and another process holds it" in done.stderr
    assert "Traceback" not in done.stderr


# Without root


class UserHost(Host):
    """A host whose agent and commands are run by an ordinary user, with *capabilities*."""

    def __init__(self, *arguments, capabilities=()):
        super().__init__(*arguments)
        self.root = self.namespace
        self.runtime = Path(tempfile.mkdtemp(prefix="user"))  # short: the name of a socket has 107 bytes
        self.network.lab.on_exit(lambda: shutil.rmtree(self.runtime))
        for path in (self.directory, self.key_path, self.runtime):
            os.chown(path, USER, USER)
        self.namespace = AsUser(self.root, self.directory, capabilities=capabilities)
        self.control_path = self.runtime / "overlay" / f"overlay0.{self.root.inode}.sock"
        self.environment = {"XDG_RUNTIME_DIR": str(self.runtime)}
        popen = self.namespace.popen
        self.namespace.popen = lambda *command, **options: popen(
            *command, **{**options, "env": {**self.environment, **options.get("env", {})}}
        )

    def prepare(self, *options, mtu=1420, addresses=True, routes=True, up=True):
        """Do as root what the agent cannot do."""
        self.root.run("ip", "tuntap", "add", "dev", "overlay0", "mode", "tun", "user", str(USER), *options)
        self.root.run("ip", "link", "set", "overlay0", "mtu", str(mtu), *(["up"] if up else []))
        if addresses:
            for address in (f"{self.address}/32", f"{self.address6}/128"):
                self.root.run("ip", "address", "add", address, "dev", "overlay0")
        if routes:
            for prefix in self.network.settings["prefix"]:
                self.root.run("ip", "route", "add", prefix, "dev", "overlay0")


@pytest.fixture
def user(network):
    """Make a host of an ordinary user."""

    def make(name="paris", **options):
        host = UserHost(network, name, len(network.peers) + 1, "overlay0", {}, **options)
        host.namespace, user_namespace = host.root, host.namespace
        network._plug_host(host)
        host.namespace = user_namespace
        return host

    network._plug_host = network._plug
    return make


def test_agent_without_root_works_on_a_prepared_device(network, user):
    paris, tokyo = user(), network.host("tokyo")
    paris.is_forked = False
    paris.prepare()
    paris.root.run("ip", "link", "set", "overlay0", "addrgenmode", "none")
    before = settled(paris)
    tokyo.start()
    paris.start()

    ping(paris.root, tokyo.address, 3)
    ping(paris.root, tokyo.address6, 3)
    ping(tokyo.namespace, paris.address, 3)
    status = paris.status()
    assert status["mtu"] == 1420
    assert not any("privilege" in note or "CAP_NET_ADMIN" in note for note in status["notes"])
    for pid in (paris.process.pid, status["forwarder_pid"]):
        shown = proc_status(pid)
        assert set(shown["Uid"].split()) == {str(USER)}
        assert shown["NoNewPrivs"] == "1"
        assert {shown[kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert "up" in paris.overlay("status").stdout
    assert (
        "cannot send an echo request: run as root with CAP_NET_RAW"
        in paris.overlay("ping", "tokyo", "--icmp", "-c1").stderr
    )

    done = paris.overlay("down")

    assert (done.returncode, done.stderr) == (0, "")
    assert paris.process.wait(PATIENCE) == 0
    assert "Traceback" not in paris.log
    assert settled(paris) == before


def proc_status(pid):
    with open(f"/proc/{pid}/status") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def test_forwarder_without_root_may_not_look_into_its_agent(network, user):
    """The same user owns it, and the agent has the private key."""
    paris = user()
    paris.prepare()
    paris.start()

    done = paris.namespace.completed("cat", f"/proc/{paris.process.pid}/mem")

    assert "Permission denied" in done.stderr


def test_forwarder_of_a_user_that_was_killed_is_started_again(network, user):
    paris, tokyo = user(), network.host("tokyo")
    paris.prepare()
    network_start(paris, tokyo)
    ping(paris.root, tokyo.address)
    forwarder = paris.status()["forwarder_pid"]

    os.kill(forwarder, signal.SIGKILL)

    wait_until(lambda: "forwarder restarted" in paris.log, PATIENCE, "another forwarder")
    ping(paris.root, tokyo.address, 3)


def network_start(*hosts):
    for host in hosts:
        host.start()


def test_killed_agent_of_a_user_is_followed_by_another(network, user):
    paris, tokyo = user(), network.host("tokyo")
    paris.prepare()
    network_start(tokyo, paris)
    forwarder = paris.status()["forwarder_pid"]
    paris.process.kill()
    paris.process.wait(PATIENCE)
    wait_until(lambda: not is_alive(forwarder), PATIENCE, "the forwarder to follow")

    paris.start()

    ping(paris.root, tokyo.address, 3)


def test_device_that_is_down_is_refused_with_all_that_root_must_do(user):
    paris = user()
    paris.prepare(mtu=1500, addresses=False, routes=False, up=False)

    done = up(paris)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "Error: overlay up has no CAP_NET_ADMIN here: run as root with CAP_NET_ADMIN, or without it have root set the "
        "interface overlay0 up (`ip link set overlay0 up mtu 1420 && ip address add 10.244.1.0/32 dev overlay0 && "
        "ip address add fd00:244:1::/128 dev overlay0 && ip route add 10.244.0.0/16 dev overlay0 && "
        "ip route add fd00:244::/32 dev overlay0`)"
    )
    paris.root.run("sh", "-c", done.stderr.partition("`")[2].partition("`")[0])
    paris.start()
    # doctor reports what it cannot read of packet filters, if the host has any.
    assert not [line for line in paris.log.splitlines() if "CAP_NET_ADMIN" in line and " DEBUG " not in line]


def test_what_else_is_missing_is_a_note_until_root_has_done_it(network, user):
    paris, tokyo = user(), network.host("tokyo")
    paris.prepare(routes=False)
    network_start(tokyo, paris)
    (note,) = [note for note in paris.status()["notes"] if "CAP_NET_ADMIN" in note]
    assert "has no route for 10.244.0.0/16, fd00:244::/32, and" in note
    assert note in paris.log

    paris.root.run("sh", "-c", note.partition("`")[2].partition("`")[0])

    wait_until(
        lambda: not [note for note in paris.status()["notes"] if "CAP_NET_ADMIN" in note],
        PATIENCE,
        "the note to go",
    )
    ping(paris.root, tokyo.address)


def test_smaller_mtu_of_a_prepared_device_is_taken(user):
    paris = user()
    paris.prepare(mtu=1300)
    paris.start()

    assert (paris.status()["mtu"], paris.status()["mtu_reason"]) == (1300, "as overlay0 was prepared")


def lacks(host):
    return [note for note in host.status()["notes"] if "CAP_NET_ADMIN" in note]


def test_what_a_reload_asks_of_root_is_noted(network, user):
    paris, tokyo = user(), network.host("tokyo")
    paris.prepare()
    network_start(tokyo, paris)
    tokyo.settings["subnets"].append("192.168.77.0/24")

    assert "INFO reloaded" in paris.reload()

    (note,) = lacks(paris)
    assert note.endswith("have root run `ip route add 192.168.77.0/24 dev overlay0`")
    tokyo.settings["subnets"].pop()
    paris.reload()
    assert lacks(paris) == []


def test_device_that_root_takes_down_is_noted_until_it_is_back(network, user):
    paris, tokyo = user(), network.host("tokyo")
    paris.prepare()
    network_start(tokyo, paris)
    paris.root.run("ip", "link", "set", "overlay0", "down")
    wait_until(lambda: lacks(paris), PATIENCE, "the note")
    (note,) = lacks(paris)
    assert "interface overlay0 is down" in note

    paris.root.run("sh", "-c", note.partition("`")[2].partition("`")[0])

    wait_until(lambda: not lacks(paris), PATIENCE, "the note to go")
    ping(paris.root, tokyo.address)


def test_user_is_told_all_that_is_missing_at_once_and_what_is_told_works(user):
    paris = user()
    paris.environment = {"XDG_RUNTIME_DIR": ""}

    done = up(paris, "--fix-sysctl")

    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(
        "Error: overlay up has no CAP_NET_ADMIN here: run as root with CAP_NET_ADMIN, or without it omit --fix-sysctl"
    )
    assert (
        "have root make the interface overlay0 for this user (`ip tuntap add dev overlay0 mode tun user "
        in done.stderr
    )
    assert (
        f"set XDG_RUNTIME_DIR, for the control socket, to a directory of this user such as /run/user/{USER}"
        in done.stderr
    )
    assert "tap`" not in done.stderr

    paris.root.run("sh", "-c", done.stderr.partition("`")[2].partition("`")[0])
    paris.environment = {"XDG_RUNTIME_DIR": str(paris.runtime)}
    paris.start()
    assert not any("CAP_NET_ADMIN" in note for note in paris.status()["notes"])


def test_user_is_told_the_kind_of_device_that_the_peers_file_asks_for(network, user):
    network.settings["device"] = "tap"
    paris = user()

    assert "ip tuntap add dev overlay0 mode tap user" in up(paris).stderr


def test_user_whose_files_are_closed_is_told_so_and_of_both_kinds(user):
    paris = user()
    paris.write()
    for path in (paris.peers_path, paris.key_path):
        os.chown(path, 0, 0)
        path.chmod(0o600)

    said = paris.overlay("up", "--peers", str(paris.peers_path), "--key", str(paris.key_path)).stderr

    assert f"as root, let this user read {paris.peers_path}; " in said
    assert f"as root, let this user read {paris.key_path}, or name another with --key; " in said
    assert 'with `mode tap` if the peers file has device = "tap"' in said


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (("user", "1000"), "interface overlay0 belongs to another user or group"),
        (
            ("user", str(USER)),
            "or without it have root set the interface overlay0 up (`ip link set overlay0 up mtu 1420 && ",
        ),
    ],
)
def test_user_with_a_device_that_does_not_do_is_told_the_remedy(user, prepare, said):
    paris = user()
    paris.root.run("ip", "tuntap", "add", "dev", "overlay0", "mode", "tun", *prepare)
    if "1000" in prepare:
        paris.root.run("ip", "link", "set", "overlay0", "up")

    done = up(paris)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert said in done.stderr


def test_user_without_capabilities_for_the_sockets_is_told_of_them(network, user):
    network.settings["fwmark"] = 7
    paris, tokyo = user(), network.host("tokyo")
    paris.settings["listen_port"] = 500
    tokyo.settings["encapsulation"] = "ipip"
    paris.prepare()

    said = up(paris).stderr

    assert "CAP_NET_RAW for the encapsulation ipip" in said
    assert "remove fwmark from the peers file" in said


def test_user_without_a_place_for_the_control_socket_is_told_the_remedy(user):
    paris = user()
    paris.prepare()
    paris.environment = {"XDG_RUNTIME_DIR": ""}

    done = up(paris)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "set XDG_RUNTIME_DIR" in done.stderr


def test_control_directory_that_others_may_write_is_refused(user):
    paris = user()
    paris.prepare()
    (paris.runtime / "overlay").mkdir()
    os.chown(paris.runtime / "overlay", USER, USER)
    (paris.runtime / "overlay").chmod(0o777)

    done = up(paris)

    assert done.returncode == 1
    assert "can be written by others" in done.stderr


def test_control_directory_of_a_user_is_for_nobody_else(user):
    paris = user()
    paris.prepare()
    paris.start()

    assert paris.control_path.parent.stat().st_mode & 0o777 == 0o700
    assert paris.control_path.stat().st_mode & 0o777 == 0o600
    assert paris.control_path.stat().st_uid == USER


def test_capability_without_root_is_enough_for_everything(network, user):
    paris, tokyo = user(capabilities=("net_admin",)), network.host("tokyo")
    paris.is_forked = False
    tokyo.settings["subnets"] += ["192.168.77.0/24", "0.0.0.0/0"]
    before = trace(paris.root)
    network_start(tokyo, paris)

    ping(paris.root, tokyo.address, 3)
    ping(paris.root, tokyo.address6, 3)
    status = paris.status()
    assert status["mtu"] == 1420
    assert not any("privilege" in note or "CAP_NET_ADMIN" in note for note in status["notes"])
    assert any("CAP_NET_RAW" in note for note in status["notes"])
    assert set(proc_status(paris.process.pid)["Uid"].split()) == {str(USER)}
    assert int(proc_status(paris.process.pid)["CapEff"], 16) == 1 << 12
    assert int(proc_status(status["forwarder_pid"])["CapEff"], 16) == 0
    os.kill(status["forwarder_pid"], signal.SIGKILL)
    wait_until(lambda: "forwarder restarted" in paris.log, PATIENCE, "another forwarder")
    ping(paris.root, tokyo.address, 3)

    paris.stop()

    assert trace(paris.root) == before


def test_capability_without_root_fixes_settings_and_puts_them_back(user):
    paris = user(capabilities=("net_admin",))
    paris.root.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    before = trace(paris.root)
    paris.start("--fix-sysctl")

    assert paris.root.run("sysctl", "-n", "net.ipv4.ip_forward") == "1\n"
    assert paris.control_path.with_suffix(".sysctl").stat().st_uid == USER
    paris.kill()
    done = paris.overlay("down")

    assert (done.returncode, done.stderr) == (0, "")
    paris.start("--fix-sysctl")
    paris.stop()
    assert trace(paris.root) == before


def test_capabilities_that_are_missing_are_named_by_what_needs_them(network, user):
    paris = user(capabilities=("net_admin",))
    network.settings["port"] = 443

    done = up(paris)

    assert "UDP port 443 needs CAP_NET_BIND_SERVICE" in done.stderr


def test_command_of_root_leaves_the_users_agent_alone(network, user):
    paris = user()
    paris.prepare()
    paris.start()

    done = subprocess.run(
        ["ip", "netns", "exec", paris.root.full_name, *("ls", str(CONTROL))],
        capture_output=True,
        text=True,
        check=False,
    )

    assert f"overlay0.{paris.root.inode}" not in done.stdout


# Point-to-point links


def shown_addresses(host):
    """Return the addresses of the tun, each with its far end if it has one."""
    shown = json.loads(host.namespace.run("ip", "-j", "address", "show", "overlay0"))
    return {each["local"]: each.get("address") for each in shown[0]["addr_info"]}


def test_point_to_point_link_shows_both_ends_and_follows_a_reload(network):
    network.settings["point_to_point"] = True
    paris, tokyo = network.host("paris"), network.host("tokyo")
    network.start()

    assert shown_addresses(paris) == {paris.address: tokyo.address, paris.address6: tokyo.address6}
    assert shown_addresses(tokyo) == {tokyo.address: paris.address, tokyo.address6: paris.address6}
    paris.ping(tokyo.address, 3)
    paris.ping(tokyo.address6, 3)
    shop = tokyo.container("shop")
    paris.ping(shop.address)

    network.settings["point_to_point"] = False
    assert "INFO reloaded" in paris.reload()
    assert shown_addresses(paris) == {paris.address: None, paris.address6: None}
    paris.ping(tokyo.address)
    paris.ping(tokyo.address6)

    network.settings["point_to_point"] = True
    assert "INFO reloaded" in paris.reload()
    assert shown_addresses(paris) == {paris.address: tokyo.address, paris.address6: tokyo.address6}
    paris.ping(tokyo.address)
    paris.ping(tokyo.address6)


def test_third_peer_of_a_point_to_point_link_is_refused_and_the_link_goes_on(network):
    network.settings["point_to_point"] = True
    paris, tokyo = network.host("paris"), network.host("tokyo")
    network.start()
    network.host("rome")

    assert "network.point_to_point" in paris.reload()

    assert paris.status()["reload_error"] is not None
    paris.ping(tokyo.address)
