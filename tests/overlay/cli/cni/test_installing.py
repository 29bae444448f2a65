from __future__ import annotations

import json
import os
import subprocess

import pytest

from overlay.cli.cni import network

READY = {"ok": True, "state": "ready", "reason": ""}


@pytest.fixture
def folders(tmp_path):
    """Folders for networks and plugins, which do not exist yet."""
    return tmp_path / "net.d", tmp_path / "bin"


@pytest.fixture
def cni(overlay, folders):
    """Run ``overlay cni`` on those folders."""
    conf, plugins = folders
    return lambda *arguments: overlay("cni", *arguments, "--conf-dir", conf, "--bin-dir", plugins)


def portmap(plugins, versions):
    """Create a portmap with those *versions*, or one that fails."""
    plugins.mkdir(exist_ok=True)
    said = json.dumps({"cniVersion": "1.0.0", "supportedVersions": versions})
    program = plugins / "portmap"
    program.write_text(f"#!/bin/sh\necho '{said}'\n" if versions else "#!/bin/sh\nexit 1\n")
    program.chmod(0o755)


def test_network_and_plugin_are_written_for_everybody_to_read(cni, agent, folders):
    agent.answers["can_attach"] = READY

    result = cni("install")

    conf, plugins = folders
    assert result.exit_code == 0
    assert os.listdir(conf) == ["10-overlay.conflist"]
    assert os.listdir(plugins) == ["overlay-cni"]
    assert (conf / "10-overlay.conflist").stat().st_mode & 0o777 == 0o644
    assert (plugins / "overlay-cni").stat().st_mode & 0o777 == 0o755
    assert json.loads((conf / "10-overlay.conflist").read_text()) == {
        "cniVersion": "1.0.0",
        "cniVersions": ["1.0.0", "1.1.0"],
        "name": "overlay",
        "plugins": [
            {"type": "overlay-cni", "interface": "overlay0", "capabilities": {"ips": True, "mac": True}}
        ],
    }
    assert "so no ports are published: install the reference plugins" in result.stderr


@pytest.mark.parametrize(
    ("versions", "written"), [(["0.4.0", "1.0.0"], ["1.0.0"]), (["1.0.0", "1.1.0"], ["1.0.0", "1.1.0"])]
)
def test_portmap_follows_where_it_is_in_versions_that_it_has(cni, agent, folders, versions, written):
    agent.answers["can_attach"] = READY
    portmap(folders[1], versions)

    result = cni("install")

    read = json.loads((folders[0] / "10-overlay.conflist").read_text())
    assert (result.exit_code, result.stderr) == (0, "")
    assert read["cniVersions"] == written
    assert read["plugins"][1] == {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}


def test_portmap_that_does_not_run_does_not_follow(cni, agent, folders):
    agent.answers["can_attach"] = READY
    portmap(folders[1], None)

    result = cni("install")

    assert result.exit_code == 0
    assert len(json.loads((folders[0] / "10-overlay.conflist").read_text())["plugins"]) == 1


def test_runtime_can_start_what_was_written(cni, agent, folders):
    agent.answers["can_attach"] = READY
    cni("install")

    done = subprocess.run(
        [folders[1] / "overlay-cni"],
        env={"CNI_COMMAND": "VERSION"},
        input=b"{}",
        capture_output=True,
        check=True,
    )

    assert json.loads(done.stdout)["supportedVersions"][-1] == "1.1.0"


@pytest.mark.parametrize("interpreter", ["/" + "x" * 200 + "/python3", "/a folder/python3"])
def test_interpreter_that_no_first_line_can_name_is_started_by_a_shell(monkeypatch, interpreter):
    monkeypatch.setattr("sys.executable", interpreter)

    first, *_ = network.launcher().splitlines()

    assert first == "#!/bin/sh"
    assert "exec '/a folder/python3'" in network.launcher() or "x" * 200 in network.launcher()


def test_nothing_is_written_before_an_agent_can_serve(cni, agent, folders):
    agent.answers["can_attach"] = {"ok": True, "state": "no_subnet", "reason": "peers.paris has no subnet"}

    result = cni("install")

    assert (result.exit_code, result.stderr) == (1, "Error: peers.paris has no subnet\n")
    assert not any(folder.exists() for folder in folders)


def test_nothing_is_written_without_an_agent(cni, folders):
    result = cni("install")

    assert result.exit_code == 1
    assert "no overlay agent runs for overlay0" in result.stderr
    assert not any(folder.exists() for folder in folders)


def test_peers_that_do_not_answer_are_reported_and_hold_nothing_up(cni, agent, folders):
    agent.answers["can_attach"] = {"ok": True, "state": "cut_off", "reason": "no peer answers (tokyo)"}

    result = cni("install")

    assert result.exit_code == 0
    assert "Warning: no peer answers (tokyo)" in result.stderr


def test_installed_again_it_is_as_the_second_says(cni, agent, folders):
    agent.answers["can_attach"] = READY
    cni("install")

    result = cni("install", "--name", "other")

    assert result.exit_code == 0
    assert json.loads((folders[0] / "10-overlay.conflist").read_text())["name"] == "other"


def test_network_of_somebody_else_is_not_replaced(cni, agent, folders):
    agent.answers["can_attach"] = READY
    folders[0].mkdir()
    (folders[0] / "10-overlay.conflist").write_text('{"name": "x", "plugins": [{"type": "bridge"}]}')

    result = cni("install")

    assert result.exit_code == 2
    assert "belongs to another network: move it away" in result.stderr


def test_name_that_is_taken_is_refused(cni, agent, folders):
    agent.answers["can_attach"] = READY
    folders[0].mkdir()
    (folders[0] / "87-podman.conflist").write_text('{"name": "overlay", "plugins": [{"type": "bridge"}]}')

    result = cni("install")

    assert result.exit_code == 2
    assert "already has a network overlay: choose another --name" in result.stderr


@pytest.mark.parametrize("name", ["", "a/b", "-x", "a b"])
def test_name_that_no_network_can_have_is_refused(cni, name):
    assert cni("install", "--name", name).exit_code == 2


def test_network_that_comes_first_is_reported(cni, agent, folders):
    agent.answers["can_attach"] = READY
    folders[0].mkdir()
    (folders[0] / "05-old.conf").write_text("garbage")

    result = cni("install")

    assert result.exit_code == 0
    assert "05-old.conf, which comes first by its name" in result.stderr


def test_uninstall_takes_away_what_install_wrote_and_nothing_else(cni, agent, folders):
    agent.answers["can_attach"] = READY
    portmap(folders[1], ["1.0.0"])
    cni("install")
    agent.stop()

    first, second = cni("uninstall"), cni("uninstall")

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert second.stdout == "nothing was installed\n"
    assert os.listdir(folders[0]) == []
    assert os.listdir(folders[1]) == ["portmap"]


def test_uninstall_keeps_what_is_not_its_own(cni, folders):
    folders[0].mkdir()
    (folders[0] / "10-overlay.conflist").write_text("{}")

    result = cni("uninstall")

    assert result.exit_code == 2
    assert "remove it yourself" in result.stderr


def test_folder_that_cannot_be_written_is_reported(cni, agent, folders):
    agent.answers["can_attach"] = READY
    folders[1].write_text("a file")

    result = cni("install")

    assert result.exit_code in {1, 2}
    assert str(folders[1]) in result.stderr
    assert "Traceback" not in result.output
