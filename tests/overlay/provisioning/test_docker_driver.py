"""What the driver finds of earlier agents; in tests/netns/test_docker.py Docker itself calls it."""

from __future__ import annotations

import pytest

from overlay.docker.calls import NewNetwork
from overlay.docker.record import DockerEndpoint, Endpoints, Networks
from overlay.errors import HostError
from overlay.provisioning import docker_driver
from overlay.provisioning.docker_driver import Files


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(docker_driver.control, "own_directory", lambda: tmp_path)
    return Files("ovl", None, tmp_path / "state")


def test_networks_and_endpoints_come_back(files, tmp_path):
    networks, endpoints = Networks({"1": NewNetwork("1", ())}), Endpoints({"2": DockerEndpoint("1", ())})
    assert (files.load_networks(), files.load_endpoints()) == (Networks(), Endpoints())

    files.save_networks(networks)
    files.save_endpoints(endpoints)

    again = Files("ovl", None, tmp_path / "state")
    assert (again.load_networks(), again.load_endpoints()) == (networks, endpoints)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("load", ["load_networks", "load_endpoints"])
def test_file_of_somebody_else_is_named(files, tmp_path, load):
    files.save_networks(Networks())
    files.save_endpoints(Endpoints())
    for path in (*tmp_path.glob("*.docker"), *(tmp_path / "state").iterdir()):
        path.write_text("{}")

    with pytest.raises(HostError, match="does not contain what an agent writes there: remove it"):
        getattr(files, load)()
