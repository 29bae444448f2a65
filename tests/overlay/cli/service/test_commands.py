"""``overlay service``, with a systemctl that records its calls."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from overlay.cli import main
from overlay.cli.service.unit import MARK

SYSTEMCTL = """#!/bin/sh
echo "$*" >> {log}
case "$1" in
is-enabled) echo enabled;;
is-active) echo {active}; [ {active} = active ];;
{fails}) echo "Failed to {fails} unit: no bus" >&2; exit 1;;
esac
"""


class Host:
    """A host with systemd: *log* has the calls of systemctl."""

    def __init__(self, tmp_path, monkeypatch):
        self.units, self.log, self._path = tmp_path / "units", tmp_path / "log", tmp_path / "bin"
        self.units.mkdir()
        self._path.mkdir()
        monkeypatch.setenv("PATH", str(self._path), prepend=":")
        monkeypatch.chdir(tmp_path)
        self.unit = self.units / "overlay@overlay0.service"
        self.has()

    def has(self, active="active", fails="never"):
        program = self._path / "systemctl"
        program.write_text(SYSTEMCTL.format(log=self.log, active=active, fails=fails))
        program.chmod(0o755)

    def has_none(self, monkeypatch):
        monkeypatch.setenv("PATH", str(self.units))

    def run(self, verb, *options):
        return CliRunner().invoke(main, ["service", verb, "--directory", str(self.units), *options])

    def asked(self):
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def host(tmp_path, monkeypatch):
    return Host(tmp_path, monkeypatch)


def test_unit_is_written_with_the_options_enabled_and_started(host, tmp_path):
    done = host.run("install", "--peers", "my peers.toml", "--masquerade", "--lanes", "2")

    assert done.exit_code == 0, done.output
    assert host.asked() == [
        "daemon-reload",
        "enable overlay@overlay0.service",
        "restart overlay@overlay0.service",
    ]
    start = next(line for line in host.unit.read_text().splitlines() if line.startswith("ExecStart="))
    assert start.endswith(f'overlay up --peers "{tmp_path}/my peers.toml" --masquerade --lanes 2')
    assert host.unit.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in host.units.iterdir()] == [host.unit.name]


def test_same_options_again_restart_nothing_and_others_do(host):
    host.run("install", "--peers", "/p")
    host.asked()

    host.run("install", "--peers", "/p")
    assert host.asked()[-1] == "start overlay@overlay0.service"

    host.run("install", "--peers", "/p", "--forward")
    assert host.asked()[-1] == "restart overlay@overlay0.service"


def test_files_that_are_not_there_yet_are_named(host, tmp_path):
    done = host.run("install", "--peers", "peers.toml", "--key", "key")
    assert done.exit_code == 0
    assert f"there is no {tmp_path}/peers.toml: the agent is restarted" in done.output
    assert f"there is no {tmp_path}/key: " in done.output
    assert f"`overlay keygen --key {tmp_path}/key`" in done.output

    (tmp_path / "peers.toml").touch()
    (tmp_path / "key").touch()
    for peers in ("peers.toml", "etcd://192.0.2.1:2379/net"):
        assert "there is no" not in host.run("install", "--peers", peers, "--key", "key").output


def test_each_interface_has_a_unit_and_a_network_in_etcd_stays_as_it_is_named(host):
    host.run("install", "--peers", "etcd://192.0.2.1:2379/net", "--interface", "office")

    text = (host.units / "overlay@office.service").read_text()
    assert "--peers etcd://192.0.2.1:2379/net --interface office" in text


def test_unit_can_be_printed_and_then_nothing_is_changed(host):
    done = host.run("install", "--print", "--peers", "/p")

    assert done.output.startswith(MARK)
    assert host.asked() == []
    assert not host.unit.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--peers", "/p", "--nonsense"), "does not have an option --nonsense"),
        (("--peers", "/p", "--interface", "much-too-long-a-name"), "is not an interface name"),
        (("--peers", "/p", "--interface", "wg\\"), "has a character that a unit cannot hold"),
        (("--peers", "/p", "--interface", 'w"g'), "has a character that a unit cannot hold"),
        (("--peers", "a\nExecStartPre=/bin/sh"), "has a character that a unit cannot hold"),
    ],
)
def test_what_up_would_refuse_is_refused_before_anything_is_written(host, options, said):
    done = host.run("install", *options)

    assert done.exit_code == 2
    assert said in done.output
    assert host.asked() == []
    assert not list(host.units.iterdir())


def test_unit_of_somebody_else_is_left_alone(host):
    host.unit.write_text("[Service]\n")

    for verb, options in (("install", ("--peers", "/p")), ("remove", ())):
        done = host.run(verb, *options)
        assert done.exit_code == 1
        assert "was not made by" in done.output
    assert host.unit.read_text() == "[Service]\n"
    assert host.asked() == []


def test_status_says_how_it_stands(host):
    host.run("install", "--peers", "/p")
    host.asked()

    done = host.run("status")
    assert done.exit_code == 0
    assert done.output.startswith("overlay@overlay0.service: enabled, active; ")

    host.has(active="failed")
    done = host.run("status", "--json")
    assert done.exit_code == 1
    told = json.loads(done.output[: done.output.index("}") + 1])
    assert told == {
        "schema": 1,
        "unit": "overlay@overlay0.service",
        "path": str(host.unit),
        "is_installed": True,
        "enabled": "enabled",
        "active": "failed",
    }
    assert "journalctl -u overlay@overlay0.service" in done.output


def test_without_a_unit_status_and_remove_say_so(host):
    for verb, said in (("status", "run `overlay service install`"), ("remove", "there is nothing to remove")):
        done = host.run(verb)
        assert done.exit_code == 1
        assert said in done.output


def test_removed_unit_is_stopped_first(host):
    host.run("install", "--peers", "/p")
    host.asked()

    done = host.run("remove")

    assert done.exit_code == 0
    assert host.asked() == ["disable --now overlay@overlay0.service", "daemon-reload"]
    assert not host.unit.exists()


def test_output_of_systemctl_is_shown(host, monkeypatch):
    host.has(fails="enable")
    done = host.run("install", "--peers", "/p")
    assert done.exit_code == 1
    assert "`systemctl enable overlay@overlay0.service` failed: Failed to enable unit: no bus" in done.output

    host.has_none(monkeypatch)
    done = host.run("install", "--peers", "/p")
    assert done.exit_code == 1
    assert "there is no systemctl" in done.output


def test_directory_that_cannot_be_written_is_named(host):
    host.units.rmdir()

    done = host.run("install", "--peers", "/p")

    assert done.exit_code == 1
    assert "cannot be written: No such file or directory; see what is in its place" in done.output


@pytest.mark.parametrize("fails", ["daemon-reload", "enable"])
@pytest.mark.parametrize("before", [[], ["--lanes", "1"]])
def test_install_that_systemd_refuses_leaves_the_units_as_they_were(host, before, fails):
    if before:
        assert host.run("install", *before).exit_code == 0
    text = host.unit.read_text() if before else None
    host.has(fails=fails)

    done = host.run("install", "--lanes", "2")

    assert done.exit_code == 1
    assert f"Failed to {fails} unit" in done.output
    assert (host.unit.read_text() if host.unit.exists() else None) == text
    host.has()
    host.asked()
    assert host.run("install", "--lanes", "2").exit_code == 0
    assert host.asked()[-1] == "restart overlay@overlay0.service"
