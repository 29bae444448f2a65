"""Settings of the host that block traffic: reported, fixed on request, and restored whatever happens."""

from __future__ import annotations

import re
import signal

import pytest

from tests.netns.network import CONTROL, PATIENCE, PYTHON, Network, is_silent, trace
from tests.netns.topology import wait_until

ETH0, FORWARD = "net.ipv4.conf.eth0.rp_filter", "net.ipv4.ip_forward"


@pytest.fixture
def network(lab, tmp_path):
    made = Network(lab, tmp_path)
    yield made
    made.close()


@pytest.fixture
def hosts(network):
    """Paris, which is strict and forwards nothing, and Tokyo, behind which is everything, its endpoint included.

    Tokyo does not know where Paris is: otherwise it would call from its address next to Paris, which passes every
    filter.
    """
    paris, tokyo = network.host("paris", endpoint=None), network.host("tokyo", endpoint="203.0.113.2")
    tokyo.settings["subnets"] += ["0.0.0.0/0"]
    tokyo.namespace.run("ip", "address", "add", "203.0.113.2/32", "dev", "eth0")
    paris.namespace.run("ip", "route", "add", "default", "via", tokyo.outside)
    paris.namespace.run("sysctl", "-qw", f"{ETH0}=1", f"{FORWARD}=0", "net.ipv6.conf.all.forwarding=0")
    tokyo.start()
    return paris, tokyo


def value(host, key):
    return host.namespace.run("sysctl", "-n", key).strip()


def state_file(host):
    return host.control_path.with_suffix(".sysctl")


def filter_notes(host):
    return [note for note in host.status()["notes"] if "rp_filter" in note]


def test_strict_filter_is_noted_drops_and_goes_away_by_the_command(hosts):
    paris, tokyo = hosts
    paris.start()

    (note,) = filter_notes(paris)
    assert note in paris.log
    assert note.startswith(
        "strict rp_filter on eth0 drops packets of peers that bypass the policy routes: run `sysctl -w"
    )
    assert is_silent(paris.namespace, tokyo.address)

    paris.namespace.run("sh", "-c", note.partition("`")[2].partition("`")[0])
    paris.ping(tokyo.address)
    assert "ERROR" not in paris.reload()
    assert filter_notes(paris) == []


def test_notes_on_settings_come_and_go_with_them_while_the_agent_runs(hosts):
    """No reload and no change of the network in between: asking is enough."""
    paris, _ = hosts
    paris.namespace.run("sysctl", "-qw", f"{FORWARD}=1")
    paris.start()
    assert not any(FORWARD in note for note in paris.status()["notes"])

    paris.namespace.run("sysctl", "-qw", f"{FORWARD}=0")
    (note,) = [each for each in paris.status()["notes"] if FORWARD in each]
    assert note in paris.log

    paris.namespace.run("sh", "-c", note.partition("`")[2].partition("`")[0])
    assert not any(FORWARD in each for each in paris.status()["notes"])


def test_nothing_is_noted_where_nothing_would_be_dropped(network):
    """Both are strict, but the route to each enters and leaves by the same interface."""
    paris, tokyo = network.host("paris"), network.host("tokyo")
    tokyo.settings["subnets"] += ["0.0.0.0/0"]
    for host in (paris, tokyo):
        host.namespace.run("sysctl", "-qw", f"{ETH0}=1", "net.ipv4.conf.all.rp_filter=1")
    network.start()

    paris.ping(tokyo.address, 3)

    assert filter_notes(paris) == filter_notes(tokyo) == []


@pytest.mark.parametrize("way", ["SIGTERM", "down"])
def test_fixed_settings_are_put_back_at_the_end(hosts, way):
    paris, tokyo = hosts
    before = trace(paris.namespace)
    paris.start("--fix-sysctl")

    assert (value(paris, ETH0), value(paris, FORWARD)) == ("2", "1")
    assert not any("sysctl" in note for note in paris.status()["notes"])
    assert state_file(paris).stat().st_mode & 0o777 == 0o600
    paris.ping(tokyo.address)

    if way == "down":
        assert paris.overlay("down").returncode == 0
        assert paris.process.wait(PATIENCE) == 0
    else:
        paris.stop()

    assert trace(paris.namespace) == before
    assert not state_file(paris).exists()


@pytest.mark.parametrize("options", [(), ("--fix-sysctl",)])
def test_next_start_puts_back_what_a_killed_agent_changed(hosts, options):
    paris, _ = hosts
    before = trace(paris.namespace)
    paris.start("--fix-sysctl")
    paris.kill()
    assert (value(paris, ETH0), value(paris, FORWARD)) == ("2", "1")

    paris.start(*options)
    assert value(paris, ETH0) == ("2" if options else "1")
    paris.stop()

    assert trace(paris.namespace) == before
    assert not state_file(paris).exists()


def test_down_puts_back_what_a_killed_agent_changed(hosts):
    paris, _ = hosts
    paris.start("--fix-sysctl")
    paris.kill()

    done = paris.overlay("down")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "no agent runs for overlay0; cleaned up after one that was killed or ended with an error: put back net.ipv"
    )
    assert "and removed " in done.stdout
    assert (value(paris, ETH0), value(paris, FORWARD)) == ("1", "0")
    assert not list(CONTROL.glob(f"*.{paris.namespace.inode}.*"))
    again = paris.overlay("down")
    assert (again.returncode, "no overlay agent runs for overlay0" in again.stderr) == (1, True)


def test_value_that_somebody_changed_meanwhile_is_left_alone(hosts):
    paris, _ = hosts
    paris.start("--fix-sysctl")
    paris.kill()
    paris.namespace.run("sysctl", "-qw", f"{ETH0}=0")

    done = paris.overlay("down")

    assert "rp_filter" not in done.stdout
    assert (value(paris, ETH0), value(paris, FORWARD)) == ("0", "0")


def test_filter_that_becomes_a_matter_later_is_fixed_as_well(hosts):
    paris, tokyo = hosts
    settings = dict(tokyo.settings)
    tokyo.settings["subnets"] = ["10.244.2.0/24"]
    paris.start("--fix-sysctl")
    assert value(paris, ETH0) == "1"

    tokyo.settings.update(settings)
    tokyo.settings["subnets"] = ["10.244.2.0/24", "0.0.0.0/0"]
    paris.reload()

    assert value(paris, ETH0) == "2"
    paris.ping(tokyo.address)
    paris.stop()
    assert value(paris, ETH0) == "1"


def test_two_agents_put_back_what_the_administrator_had(hosts, network, tmp_path):
    paris, _ = hosts
    (tmp_path / "second").mkdir()
    second = network.beside(tmp_path / "second", "second0", prefix="10.245.0.0/16", port=51999).peers["paris"]
    paris.start("--fix-sysctl")
    second.start("--fix-sysctl")
    assert value(paris, FORWARD) == "1"

    paris.stop()
    assert value(paris, FORWARD) == "1"  # the other agent still needs it
    second.stop()

    assert (value(paris, ETH0), value(paris, FORWARD)) == ("1", "0")


@pytest.mark.parametrize("what", ["garbage", "link", "others"])
def test_file_that_is_not_to_be_believed_is_refused_with_the_remedy(hosts, tmp_path, what):
    paris, _ = hosts
    paris.write()
    path = state_file(paris)
    CONTROL.mkdir(exist_ok=True)
    match what:
        case "garbage":
            path.write_bytes(b"\x00garbage")
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
        case "others":
            path.write_text("{}")
            path.chmod(0o666)
    try:
        for command in (("up", "--peers", str(paris.peers_path), "--key", str(paris.key_path)), ("down",)):
            done = paris.overlay(*command)

            assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
            assert f"{path} " in done.stderr
            assert done.stderr.endswith("look at it and remove it\n")
        assert "overlay0" not in paris.namespace.run("ip", "link")
    finally:
        path.unlink()
    assert not (tmp_path / "elsewhere").exists()


def test_setting_that_may_not_be_changed_is_one_sentence(hosts):
    paris, _ = hosts
    paris.write()
    folder = "/proc/sys/net/ipv4/conf/eth0"
    read_only = f'mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && exec "$@"'
    before = trace(paris.namespace)

    done = paris.namespace.completed(
        *("unshare", "--mount", "sh", "-c", read_only, "sh", PYTHON, "-m", "overlay", "up", "--fix-sysctl"),
        *("--peers", paris.peers_path, "--key", paris.key_path),
    )

    assert done.returncode == 1
    assert f"{ETH0} could not be set to 2 (Read-only file system): make /proc/sys writable" in done.stderr
    assert "Traceback" not in done.stderr
    assert trace(paris.namespace) == before


def test_stop_by_a_signal_during_the_start_puts_back(hosts):
    paris, _ = hosts
    before = trace(paris.namespace)
    paris.launch("--fix-sysctl")
    wait_until(lambda: value(paris, FORWARD) == "1", PATIENCE, "the fix")

    paris.stop(signal.SIGTERM)

    assert trace(paris.namespace) == before


@pytest.mark.parametrize("options", [(), ("--fix-sysctl",)])
def test_hub_tells_its_spokes_to_go_to_each_other_only_where_it_is_left_to(network, options):
    hub, *spokes = (network.host(name) for name in ("hub", "paris", "tokyo"))
    hub.settings["subnets"] = ["10.244.0.0/16"]
    hub.namespace.run("sysctl", "-qw", f"{FORWARD}=1", "net.ipv4.conf.all.send_redirects=1")
    for one, other in (spokes, reversed(spokes)):
        one.write(re.sub(rf"\[peers\.{other.name}\].*?(?=\n\[|\Z)", "", network.toml(), flags=re.DOTALL))
    for host in (hub, *spokes):
        host.launch(*options)
    for host in (hub, *spokes):
        host.wait_ready()
    paris, tokyo = spokes
    noted = [note for note in hub.status()["notes"] if "redirects" in note]

    said = paris.namespace.run("ping", "-c5", "-i0.2", "-W30", tokyo.address)

    assert bool(noted) == ("Redirect" in said) == (not options)
    for note in noted:
        hub.namespace.run("sh", "-c", note.partition("`")[2].partition("`")[0])
        assert "Redirect" not in paris.namespace.run("ping", "-c5", "-i0.2", "-W30", tokyo.address)
        assert not [each for each in hub.status()["notes"] if "redirects" in each]
