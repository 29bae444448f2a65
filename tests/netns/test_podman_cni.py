"""podman, whose containers the agent attaches by CNI, on two hosts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.netns.network import Network
from tests.netns.topology import wait_until

REFERENCE = Path("/usr/lib/cni")
NAME = "overlay"
ULIMITS = (
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=1024:1024",
)  # podman's own are more than some machines allow


class Podman:
    """podman on one host, with folders of its own."""

    def __init__(self, host):
        self.host = host
        self.folder = Path(tempfile.mkdtemp(prefix="pod"))  # podman wants short paths
        self.plugins, self.networks = self.folder / "bin", self.folder / "net"
        for each in (self.plugins, self.networks, self.folder / "rootfs" / "bin"):
            each.mkdir(parents=True)
        for plugin in REFERENCE.iterdir():
            (self.plugins / plugin.name).symlink_to(plugin)
        for name in ("etc", "proc", "sys", "dev", "tmp", "run"):
            (self.folder / "rootfs" / name).mkdir()
        shutil.copy(shutil.which("busybox"), self.folder / "rootfs" / "bin" / "busybox")
        for applet in ("sh", "ping", "httpd", "wget", "hostname", "sleep", "ip", "nc"):
            (self.folder / "rootfs" / "bin" / applet).symlink_to("busybox")
        (self.folder / "containers.conf").write_text(
            f'[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["{self.plugins}"]\n'
            f'[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n[containers]\nlog_driver = "k8s-file"\n'
        )
        host.network.lab.on_exit(self.close)

    def run(self, *arguments, before=()):
        """Run podman, behind *before*.  Not by `ip netns exec`, which hides the cgroups."""
        return subprocess.run(
            [
                *before, "nsenter", f"--net=/run/netns/{self.host.namespace.full_name}", "podman",
                f"--root={self.folder / 'root'}", f"--runroot={self.folder / 'run'}", "--storage-driver=vfs",
                f"--network-config-dir={self.networks}", f"--tmpdir={self.folder / 'tmp'}", *arguments,
            ],
            env={**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def __call__(self, *arguments, check=True):
        """Run podman; return what it printed."""
        done = self.run(*arguments)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def hindrance(self):
        """Return why no container can be started here, whatever its network; None if one can."""
        rootfs = str(self.folder / "rootfs")
        done = self.run("run", "--rm", *ULIMITS, "--network=none", "--rootfs", rootfs, "busybox", "true")
        return None if done.returncode == 0 else (done.stderr.splitlines() or ["without a reason"])[-1]

    def install(self):
        done = self.host.overlay(
            "cni", "install", "--conf-dir", str(self.networks), "--bin-dir", str(self.plugins)
        )
        assert done.returncode == 0, done.stderr

    def start(self, name, *options, network=NAME):
        """Start a container that serves its name on port 80; return its address."""
        (self.folder / "rootfs" / "etc" / "index.html").write_text("here\n")
        self(
            "run", "-d", *ULIMITS, "--name", name, "--hostname", name, f"--network={network}", *options,
            "--rootfs", f"{self.folder / 'rootfs'}", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc",
        )  # fmt: skip
        return self.address(name)

    def address(self, name):
        found = json.loads(self("inspect", name))[0]["NetworkSettings"]["Networks"]
        return next(iter(found.values()))["IPAddress"]

    def exec(self, name, *command):
        return self("exec", name, *command)

    def remove_all(self):
        """Remove all containers, also those that a killed podman has half made."""
        for _ in range(2):
            self.run("rm", "-af", "-t0")
            mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
            for mount in reversed([each for each in mounts if each.startswith(f"{self.folder}/")]):
                subprocess.run(["umount", "-l", mount], check=False, stderr=subprocess.DEVNULL)

    def close(self):
        self.remove_all()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def hosts(lab, tmp_path):
    for program in ("podman", "runc", "busybox", "iptables"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if not (REFERENCE / "portmap").exists():
        pytest.skip("the reference plugins of CNI are not installed in /usr/lib/cni")
    network = Network(lab, tmp_path)
    found = [network.host(name, address=f"10.244.255.{at}") for at, name in enumerate(("paris", "tokyo"), 1)]
    for host in found:
        host.namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        host.namespace.run("ip", "link", "set", "lo", "up")
    network.start()
    podmans = [Podman(host) for host in found]
    if (reason := podmans[0].hindrance()) is not None:
        pytest.skip(f"podman starts no containers here: {reason}")
    for podman in podmans:
        podman.install()
    yield podmans
    for podman in podmans:
        podman.remove_all()
    network.close()


def namespaces():
    """Return the network namespaces of podman that have a name."""
    return {name for name in os.listdir("/run/netns") if name.startswith(("netns-", "cni-"))}


def devices(podman):
    links = json.loads(podman.host.namespace.run("ip", "-j", "link"))
    return [link["ifname"] for link in links if link["ifname"].startswith("oc")]


def test_containers_of_two_hosts_publish_restart_and_outlive_agents(hosts):
    paris, tokyo = hosts
    web, db = paris.start("web", "-p", "8080:80"), tokyo.start("db")
    assert (web.rpartition(".")[0], db.rpartition(".")[0]) == ("10.244.1", "10.244.2")

    # Both ways, and by both versions
    wait_until(lambda: "here" in paris("exec", "web", "wget", "-qO-", f"http://{db}/", check=False), 30, "db")
    assert tokyo.exec("db", "wget", "-qO-", f"http://{web}/") == "here"
    six = json.loads(paris("inspect", "web"))[0]["NetworkSettings"]["Networks"][NAME]["GlobalIPv6Address"]
    tokyo.exec("db", "ping", "-c1", "-W5", six)

    # A published port, from another host and from a container there
    fetch = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=10).read().decode())"
    assert tokyo.host.namespace.python(fetch, f"http://{paris.host.outside}:8080/") == "here\n"
    assert tokyo.exec("db", "wget", "-qO-", f"http://{paris.host.settings['address']}:8080/") == "here"

    # Restarts of containers
    for _ in range(3):
        paris("restart", "-t0", "web")
    again = paris.address("web")
    assert tokyo.exec("db", "wget", "-qO-", f"http://{again}/") == "here"
    assert len(devices(paris)) == 1

    # Restarts of the agent, clean and not, under traffic
    tokyo("exec", "-d", "db", "sh", "-c", f"while :; do wget -qO- http://{again}/; sleep 0.1; done")
    for end in (paris.host.stop, paris.host.kill, paris.host.kill):
        end()
        paris.host.start()
        wait_until(
            lambda: tokyo.run("exec", "db", "ping", "-c1", "-W1", again).returncode == 0,
            30,
            "paris",
        )
        assert tokyo.exec("db", "wget", "-qO-", f"http://{again}/") == "here"
    assert len(devices(paris)) == 1

    # podman killed while it starts containers: it leaves namespaces and mounts that it does not know
    before = namespaces()
    for number, delay in enumerate(("0.2", "0.4", "0.6")):
        options = ("-d", *ULIMITS, "--name", f"k{number}", f"--network={NAME}")
        command = ("run", *options, "--rootfs", str(paris.folder / "rootfs"), "busybox", "sleep", "1000")
        paris.run(*command, before=("timeout", "-sKILL", delay))
    new = namespaces() - before
    assert tokyo.exec("db", "wget", "-qO-", f"http://{again}/") == "here"

    # An address that is asked for; the end
    assert paris.start("asked", "--ip", "10.244.1.77") == "10.244.1.77"
    for podman in hosts:
        podman.remove_all()
    for name in new & namespaces():
        subprocess.run(["ip", "netns", "delete", name], check=False)
    wait_until(lambda: not devices(paris) and not devices(tokyo), 30, "the agents to forget all containers")
    done = paris.host.overlay(
        "cni", "uninstall", "--conf-dir", str(paris.networks), "--bin-dir", str(paris.plugins)
    )
    assert done.returncode == 0, done.stderr
    assert list(paris.networks.glob("*overlay*")) == []
