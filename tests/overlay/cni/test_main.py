"""The plugin as a process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.test_imports import ROOT

CODE = "import sys; sys.path.insert(0, sys.argv[1]); from overlay.cni.__main__ import main; sys.exit(main())"


def call(environment, asked=b""):
    done = subprocess.run(
        [sys.executable, "-IS", "-c", CODE, str(ROOT)],
        env=environment, input=asked, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == b""
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("asked", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_version_is_answered_in_the_version_that_was_asked_in(asked):
    """podman asks this before each ADD, with dummies in the other variables."""
    environment = {"CNI_COMMAND": "VERSION", "CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": "dummy"}

    code, said = call(environment, json.dumps({"cniVersion": asked}).encode())

    assert (code, said) == (
        0,
        {"cniVersion": asked, "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]},
    )


@pytest.mark.parametrize("asked", [b"", b"garbage", b'{"cniVersion": "7"}', b"[]"])
def test_version_is_answered_whatever_is_asked(asked):
    code, said = call({"CNI_COMMAND": "VERSION"}, asked)

    assert (code, said["cniVersion"]) == (0, "1.1.0")


@pytest.mark.parametrize(
    ("environment", "asked", "code"),
    [
        ({}, b"{}", 4),
        ({"CNI_COMMAND": "FLY"}, b'{"cniVersion": "1.0.0"}', 4),
        ({"CNI_COMMAND": "ADD"}, b"", 6),
        ({"CNI_COMMAND": "ADD"}, b"garbage", 6),
        ({"CNI_COMMAND": "ADD"}, b'{"cniVersion": "9.0.0", "name": "x"}', 1),
        ({"CNI_COMMAND": "ADD"}, b'{"cniVersion": "1.0.0", "name": "x"}', 4),
        ({"CNI_COMMAND": "STATUS"}, b'{"cniVersion": "1.1.0", "name": "x", "interface": "none0"}', 50),
        (
            {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "a", "CNI_NETNS": "/none", "CNI_IFNAME": "eth0"},
            b'{"cniVersion": "1.0.0", "name": "x"}',
            3,
        ),
        (
            {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "a", "CNI_NETNS": "/etc/passwd", "CNI_IFNAME": "eth0"},
            b'{"cniVersion": "1.0.0", "name": "x"}',
            4,
        ),
    ],
)
def test_errors_are_json_with_the_code_of_the_specification(environment, asked, code):
    exit_code, said = call(environment, asked)

    assert (exit_code, said["code"]) == (1, code)
    assert said["msg"]
    assert said["cniVersion"] in {"1.0.0", "1.1.0"}
