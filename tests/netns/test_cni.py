"""The plugin overlay-cni as a container runtime calls it, with running agents; containers are namespaces."""

from __future__ import annotations

import json
import os
import threading

import pytest

from overlay.containers.addresses import Holder
from overlay.containers.attachments import outer_name
from overlay.host import control
from tests.netns.network import CONTROL, PYTHON, Network
from tests.netns.topology import ROOT, Lab, missing_requirement, wait_until

VERSIONS = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]


class Runtime:
    """A container runtime on one host, as far as CNI is concerned."""

    def __init__(self, host, version="1.1.0", **settings):
        self.host, self.version = host, version
        self.settings = {"type": "overlay-cni", "capabilities": {"ips": True}, **settings}
        self.containers, self.results = {}, {}

    def call(
        self,
        command,
        name="web",
        *,
        network="overlay",
        interface="eth0",
        path=None,
        version=None,
        args="",
        **keys,
    ):
        """Call the plugin; return its exit code and its output, None for no output."""
        if path is None and name in self.containers:
            path = f"/run/netns/{self.containers[name].full_name}"
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": name,
            "CNI_NETNS": path or "",
            "CNI_IFNAME": interface,
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": args,
        }
        configuration = {"cniVersion": version or self.version, "name": network, **self.settings, **keys}
        code = "import sys; sys.path.insert(0, sys.argv[1]); from overlay.cni.__main__ import main; sys.exit(main())"
        setting = [f"{key}={value}" for key, value in environment.items()]
        done = self.host.namespace.completed(
            "env", *setting, PYTHON, "-IS", "-c", code, str(ROOT), stdin=json.dumps(configuration)
        )
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    def start(self, name="web", **keys):
        """Start a container; return its first IPv4 address."""
        if name not in self.containers:
            network = self.host.network
            self.containers[name] = network.lab.namespace(network.namespace_name(f"{self.host.name}-{name}"))
            self.containers[name].run("ip", "link", "set", "lo", "up")
        code, result = self.call("ADD", name, **keys)
        assert code == 0, result
        self.results[name] = result
        return result["ips"][0]["address"].partition("/")[0]

    def stop(self, name="web"):
        """Stop a container as runtimes do: the namespace still exists."""
        assert self.call("DEL", name, prevResult=self.results.pop(name, None)) == (0, None)
        self.host.namespace.run("ip", "netns", "delete", self.containers.pop(name).full_name)


@pytest.fixture
def network(lab, tmp_path):
    made = Network(lab, tmp_path)
    yield made
    made.close()


@pytest.fixture
def hosts(network):
    """Two hosts that forward, with a runtime each; nothing is on their subnets."""
    found = [network.host(name, address=f"10.244.255.{at}") for at, name in enumerate(("paris", "tokyo"), 1)]
    for host in found:
        host.namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    network.start()
    return [Runtime(host) for host in found]


def ping(runtime, name, address, count=1):
    done = runtime.containers[name].completed("ping", f"-c{count}", "-i0.2", "-W30", address)
    assert done.returncode == 0, done.stdout


def devices(runtime):
    """Return the host's ends of the veth pairs that exist."""
    links = json.loads(runtime.host.namespace.run("ip", "-j", "link"))
    return {link["ifname"] for link in links if link["ifname"].startswith("oc")}


def device(name, network="overlay", interface="eth0"):
    return outer_name(Holder(network, name, interface))


def test_containers_of_two_hosts_reach_each_other_by_both_versions(hosts):
    paris, tokyo = hosts
    web, db = paris.start("web"), tokyo.start("db")

    for runtime, name, other, others in ((paris, "web", tokyo, "db"), (tokyo, "db", paris, "web")):
        for ip in other.results[others]["ips"]:
            ping(runtime, name, ip["address"].partition("/")[0], 3)
    ping(paris, "web", tokyo.host.settings["address"])
    assert (web, db) == ("10.244.1.2", "10.244.2.2")
    listed = json.loads(paris.host.overlay("cni", "list", "--json").stdout)["attachments"]
    assert [(each["container"], each["addresses"][0]) for each in listed] == [("web", web)]
    shown = paris.host.status()["containers"]
    assert (shown["attached"], shown["subnets"][0]) == (1, "10.244.1.0/24")


@pytest.mark.parametrize("version", VERSIONS)
def test_result_is_that_of_the_version_that_was_asked_in(hosts, version):
    paris, _ = hosts
    paris.start("web", version=version)
    sandbox = f"/run/netns/{paris.containers['web'].full_name}"
    result = paris.results["web"]
    mac = json.loads(paris.containers["web"].run("ip", "-j", "link", "show", "eth0"))[0]["address"]

    outer, inner = result.pop("interfaces")
    ips = result.pop("ips")

    assert outer == {"name": device("web"), "mac": "ee:ee:ee:ee:ee:ee"}
    mtu = {"mtu": paris.host.status()["mtu"]} if version == "1.1.0" else {}
    assert inner == {"name": "eth0", "mac": mac, "sandbox": sandbox, **mtu}
    assert result == {
        "cniVersion": version,
        "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0", "gw": "fe80::1"}],
        "dns": {},
    }
    four = {"interface": 1, "address": "10.244.1.2/32", "gateway": "169.254.1.1"}
    six = {"interface": 1, "address": "fd00:244:1::2/128", "gateway": "fe80::1"}
    if version.startswith("0."):
        four, six = {"version": "4", **four}, {"version": "6", **six}
    assert ips == [four, six]


def test_dns_of_the_network_goes_back_to_the_runtime(hosts):
    paris, _ = hosts

    paris.start("web", dns={"nameservers": ["10.244.0.53"]})

    assert paris.results["web"]["dns"] == {"nameservers": ["10.244.0.53"]}


def test_second_add_is_refused_and_the_container_goes_on(hosts):
    paris, _ = hosts
    paris.start("web")

    code, said = paris.call("ADD", "web")

    assert (code, said["code"], said["cniVersion"]) == (1, 100, "1.1.0")
    assert said["msg"] == "there is an interface eth0 of web in overlay already: remove it first"
    ping(paris, "web", paris.host.settings["address"])


def test_container_may_be_in_two_networks(hosts):
    paris, _ = hosts
    paris.start("web")

    code, said = paris.call("ADD", "web", network="other", interface="eth1")

    assert code == 0
    assert said["routes"] == []
    assert paris.call("DEL", "web", network="other", interface="eth1") == (0, None)
    ping(paris, "web", paris.host.settings["address"])


def test_del_never_fails_for_what_is_gone(hosts):
    paris, _ = hosts
    paris.start("web")
    result = paris.results["web"]

    assert paris.call("DEL", "web", prevResult=result) == (0, None)
    assert paris.call("DEL", "web", prevResult=result) == (0, None)
    assert paris.call("DEL", "web") == (0, None)
    assert paris.call("DEL", "web", path="/run/netns/none") == (0, None)
    assert paris.call("DEL", "never") == (0, None)
    assert devices(paris) == set()


def test_del_gives_the_address_back_where_the_namespace_went_first(hosts):
    paris, _ = hosts
    paris.start("web")
    paris.host.namespace.run("ip", "netns", "delete", paris.containers.pop("web").full_name)

    assert paris.call("DEL", "web", prevResult=paris.results["web"]) == (0, None)

    rows = attachments(paris)
    assert rows == []


def test_subnet_is_open_again_when_containers_ended_while_the_agent_was_away(hosts):
    paris, _ = hosts
    paris.start("web")

    def is_barred():
        return "unreachable 10.244.1.0/24" in paris.host.namespace.run("ip", "route")

    wait_until(is_barred)
    paris.host.stop()
    assert paris.call("DEL", "web", prevResult=paris.results["web"]) == (0, None)
    assert is_barred()  # the runtime has forgotten the remaining containers

    paris.host.start()

    wait_until(lambda: not is_barred())


def attachments(runtime):
    rows = []
    answer = control.converse(runtime.host.control_path, {"op": "attachments"}, rows.extend)
    assert answer == {"ok": True, "count": len(rows)}
    return rows


def test_check_holds_as_long_as_all_stands(hosts):
    paris, _ = hosts
    paris.start("web")
    result = paris.results["web"]
    assert paris.call("CHECK", "web", prevResult=result) == (0, None)

    code, said = paris.call("CHECK", "web", prevResult={**result, "ips": [{"address": "10.244.1.99/32"}]})
    assert (code, said["code"]) == (1, 101)
    assert "10.244.1.99 is not an address of eth0 of web in overlay" in said["msg"]
    paris.containers["web"].run("ip", "address", "flush", "dev", "eth0")
    code, said = paris.call("CHECK", "web", prevResult=result)
    assert (code, said["code"]) == (1, 101)
    assert "eth0 of web in overlay has lost 10.244.1.2" in said["msg"]
    assert paris.call("CHECK", "web")[1]["msg"] == "CHECK came without prevResult"
    assert paris.call("CHECK", "other", path=result["interfaces"][1]["sandbox"], prevResult=result)[0] == 1


def test_gc_removes_what_the_runtime_does_not_name_in_its_network_alone(hosts):
    paris, _ = hosts
    for name in ("a", "b", "c"):
        paris.start(name)
    assert paris.call("ADD", "a", network="other", interface="eth1")[0] == 0
    valid = [{"containerID": "b", "ifname": "eth0"}, {"containerID": "c", "ifname": "eth7"}]

    assert paris.call("GC", "", **{"cni.dev/valid-attachments": valid}) == (0, None)

    assert devices(paris) == {device("b"), device("a", "other", "eth1")}
    code, said = paris.call("GC", "")
    assert (code, said["code"]) == (1, 7)
    assert devices(paris) == {device("b"), device("a", "other", "eth1")}


def test_asked_for_addresses_are_given_by_all_ways_to_ask(hosts):
    paris, _ = hosts

    assert paris.start("cap", runtimeConfig={"ips": ["10.244.1.50/24", "fd00:244:1::50/64"]}) == "10.244.1.50"
    assert paris.results["cap"]["ips"][1]["address"] == "fd00:244:1::50/128"
    assert paris.start("args", args="IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.244.1.51") == "10.244.1.51"
    assert paris.start("cni", args="IgnoreUnknown=1") == "10.244.1.2"
    for wrong, text in (
        ("10.244.1.50", "10.244.1.50 belongs to eth0 of cap in overlay"),
        ("10.9.9.9", "10.9.9.9 is not in 10.244.1.0/24 or fd00:244:1::/64"),
        ("10.244.1.255", "10.244.1.255 is not for containers"),
        ("nonsense", "addresses: 'nonsense' does not appear to be"),
    ):
        paris.containers["late"] = paris.containers.get("late") or paris.host.network.lab.namespace(
            paris.host.network.namespace_name("late")
        )
        code, said = paris.call("ADD", "late", runtimeConfig={"ips": [wrong]})
        assert (code, said["code"]) == (1, 7)
        assert text in said["msg"]


def test_many_containers_start_at_once(hosts):
    paris, _ = hosts
    names = [f"c{number}" for number in range(12)]
    for name in names:
        network = paris.host.network
        paris.containers[name] = network.lab.namespace(network.namespace_name(name))
    threads = [threading.Thread(target=paris.start, args=[name]) for name in names]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = {paris.results[name]["ips"][0]["address"] for name in names}
    assert len(found) == len(names)
    ping(paris, "c0", paris.results["c11"]["ips"][0]["address"].partition("/")[0])


def test_status_tells_whether_containers_can_be_attached(hosts):
    paris, tokyo = hosts

    assert paris.call("STATUS", "") == (0, None)
    paris.host.namespace.run("ip", "link", "add", "br0", "type", "bridge")
    paris.host.namespace.run("ip", "address", "add", "10.244.1.1/24", "dev", "br0")
    paris.host.namespace.run("ip", "address", "add", "fd00:244:1::1/64", "dev", "br0", "nodad")
    paris.host.namespace.run("ip", "link", "set", "br0", "up")
    code, said = paris.call("STATUS", "")
    assert (code, said["code"]) == (1, 50), said
    assert "this host already has a route into 10.244.1.0/24" in said["msg"]
    paris.containers["web"] = paris.host.network.lab.namespace(paris.host.network.namespace_name("web"))
    assert paris.call("ADD", "web")[1]["code"] == 11
    tokyo.host.stop()
    code, said = tokyo.call("STATUS", "")
    assert (code, said["code"]) == (1, 50), said
    assert "no overlay agent runs for overlay0 here" in said["msg"]


def test_status_is_51_while_no_peer_answers_and_containers_start_all_the_same(lab, tmp_path):
    network = Network(lab, tmp_path)
    paris, tokyo = network.host("paris", address="10.244.255.1"), network.host("tokyo")
    timing = {"rekey_timeout": 0.2, "rekey_jitter": 0.01, "rekey_attempt_time": 1.0}
    tokyo.write()
    paris.start(timing=timing)
    runtime = Runtime(paris)
    runtime.start("web")
    runtime.containers["web"].completed("ping", "-c1", "-W1", tokyo.address)

    wait_until(lambda: runtime.call("STATUS", "")[0] == 1, what="the peer to be given up")

    assert runtime.call("STATUS", "")[1]["code"] == 51
    runtime.start("db")
    network.close()


def test_without_an_agent_add_is_to_be_tried_again_and_del_takes_the_interface(hosts):
    paris, _ = hosts
    paris.start("web")
    paris.start("db")
    paris.host.stop()

    paris.containers["late"] = paris.host.network.lab.namespace(paris.host.network.namespace_name("late"))
    code, said = paris.call("ADD", "late")
    assert (code, said["code"]) == (1, 11)
    assert said["details"].startswith("start it with `overlay up --peers FILE`")
    assert paris.call("DEL", "web", prevResult=paris.results["web"]) == (0, None)
    assert paris.call("GC", "", **{"cni.dev/valid-attachments": []}) == (0, None)
    assert devices(paris) == {device("db")}
    ping(paris, "db", paris.results["db"]["ips"][0]["address"].partition("/")[0])

    paris.host.start()
    wait_until(lambda: [row["container"] for row in attachments(paris)] == ["db"], what="the agent to look")
    assert paris.start("web") == "10.244.1.4"


@pytest.mark.parametrize("is_killed", [False, True])
def test_containers_outlive_the_agent_and_talk_on_after_it(hosts, is_killed):
    paris, tokyo = hosts
    web, db = paris.start("web"), tokyo.start("db")
    ping(tokyo, "db", web, 3)
    if is_killed:
        paris.host.kill()
    else:
        paris.host.stop()
    near = [paris.results["web"]["ips"][at]["address"].partition("/")[0] for at in (0, 1)]
    for address in near:
        paris.host.namespace.run("ping", "-c1", "-W30", address)

    paris.host.start()

    wait_until(
        lambda: tokyo.containers["db"].completed("ping", "-c1", "-W1", web).returncode == 0,
        what="paris again",
    )
    ping(paris, "web", db)
    assert paris.call("CHECK", "web", prevResult=paris.results["web"])[1] is None
    assert paris.start("more") not in {web, "10.244.1.2"}
    paris.stop("web")
    assert devices(paris) == {device("more")}


def test_subnet_of_the_host_changes_and_running_containers_keep_their_address(hosts):
    paris, tokyo = hosts
    web = paris.start("web")
    ping(tokyo, tokyo.start("db") and "db", web, 3)
    paris.host.settings["subnets"] = ["10.244.9.0/24", "10.244.1.2/32"]
    for runtime in hosts:
        assert "INFO reloaded" in runtime.host.reload()

    ping(tokyo, "db", web, 3)
    assert paris.start("new").startswith("10.244.9.")
    ping(tokyo, "db", paris.results["new"]["ips"][0]["address"].partition("/")[0], 3)


def test_namespaces_that_vanish_are_forgotten_without_a_word_of_the_runtime(hosts):
    paris, _ = hosts
    paris.start("web")

    paris.host.namespace.run("ip", "netns", "delete", paris.containers.pop("web").full_name)

    wait_until(lambda: attachments(paris) == [], what="the agent to see it")


def test_runtime_that_is_killed_in_the_middle_leaves_nothing_for_good(hosts):
    """It calls DEL for every container whose end it has not recorded."""
    paris, _ = hosts
    network = paris.host.network
    paris.containers["web"] = network.lab.namespace(network.namespace_name("web"))
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "web",
        "CNI_NETNS": f"/run/netns/{paris.containers['web'].full_name}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/x",
    }
    setting = [f"{key}={value}" for key, value in environment.items()]
    for delay in ("0.03", "0.05", "0.07", "0.1"):
        configuration = json.dumps({"cniVersion": "1.1.0", "name": "overlay", "type": "overlay-cni"})
        paris.host.namespace.completed(
            "timeout",
            "-sKILL",
            delay,
            "env",
            *setting,
            PYTHON,
            "-m",
            "overlay.cni",
            stdin=configuration,
        )
        assert paris.call("DEL", "web") == (0, None)
        wait_until(lambda: attachments(paris) == [], what="an agent that has finished")
        assert paris.call("DEL", "web") == (0, None)

    assert paris.start("web")
    assert "Traceback" not in paris.host.log


@pytest.mark.parametrize(
    "message",
    [
        {"op": "attach"}, {"op": "attach", "network": "n", "container": "c", "interface": "eth0"},
        {"op": "attach", "network": "n", "container": "../c", "interface": "eth0"},
        {"op": "attach", "network": "n", "container": "c", "interface": "eth0", "addresses": [7]},
        {"op": "attach", "network": "n", "container": "c", "interface": "eth0", "addresses": ["x"] * 17},
        {"op": "attach", "network": "n", "container": "c", "interface": "eth0", "routes": "x"},
        {"op": "attach", "network": "n", "container": "c", "interface": "eth0", "mac": "01:00:00:00:00:00"},
        {"op": "attach", "network": "n", "container": "c", "interface": "eth0", "mtu": 100},
        {"op": "attach", "network": "n", "container": "c", "interface": "eth0", "mtu": True},
        {"op": "detach"}, {"op": "detach", "network": [], "container": {}, "interface": None},
        {"op": "check_attachment", "network": "n", "container": "c", "interface": "eth0"},
        {"op": "collect"}, {"op": "collect", "network": "n", "valid": [["a"]]},
        {"op": "collect", "network": "n", "valid": [["a", "/"]]}, {"op": "collect", "network": 7, "valid": []},
        {"op": "collect", "network": "n", "valid": {}},
    ],
    ids=str,
)  # fmt: skip
def test_garbage_of_whoever_may_ask_is_refused_in_a_sentence(garbled, message):
    answer = control.request(garbled.control_path, message)

    assert answer["ok"] is False
    assert answer["error"]


@pytest.fixture(scope="module")
def garbled(tmp_path_factory):
    if reason := missing_requirement():
        pytest.skip(reason)
    with Lab() as lab:
        network = Network(lab, tmp_path_factory.mktemp("garbled"))
        host = network.host("paris")
        network.start()
        yield host
        network.close()


def test_socket_of_the_agent_is_roots_alone(hosts):
    paris, _ = hosts

    assert paris.host.control_path.stat().st_mode & 0o777 == 0o600
    assert (CONTROL / paris.host.control_path.name).with_suffix(".sock").exists()
    done = paris.host.namespace.completed("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "CNI_COMMAND=STATUS", "CNI_PATH=/x",
        "/usr/bin/python3", "-IS", "-c",
        "import sys; sys.path.insert(0, sys.argv[1]); from overlay.cni.__main__ import main; sys.exit(main())",
        os.fspath(ROOT), stdin='{"cniVersion":"1.1.0","name":"overlay"}',
    )  # fmt: skip
    if done.returncode != 1 or not done.stdout:
        pytest.skip("this tree cannot be read by other users")
    assert json.loads(done.stdout)["code"] == 5
