import base64
from dataclasses import fields

import pytest

from overlay import lifecycle  # noqa: F401  what the command loads, loaded once
from overlay.__main__ import main
from overlay.cli.up import command
from overlay.config import Options
from tests import forked
from tests.peers.examples import key_text


@pytest.fixture
def up(tmp_path):
    """Run ``overlay up`` in a separate process, in a directory with a key and a peers file without it."""
    (tmp_path / "peers.toml").write_text(
        f'[network]\nprefix = "10.244.0.0/16"\n[peers.tokyo]\npublic_key = "{key_text("tokyo")}"\n'
        'address = "10.244.2.0"\n'
    )

    (tmp_path / "key").write_text(base64.b64encode(bytes(range(32))).decode())
    (tmp_path / "key").chmod(0o600)
    return lambda *arguments: forked.run(main, "up", *arguments, cwd=tmp_path)


def sentence(result):
    assert (result.returncode, result.stdout) == (2, "")
    return result.stderr


def test_a_missing_key_gets_its_remedy_with_a_path_that_works_anywhere(up, tmp_path):
    assert sentence(up("--peers", "peers.toml", "--key", "none")) == (
        f"Error: {tmp_path}/none does not exist: make one with `overlay keygen --key {tmp_path}/none`\n"
    )


@pytest.mark.parametrize("name", ["none.toml", "file:none.toml"])
def test_a_missing_peers_file_gets_a_sentence(up, tmp_path, name):
    assert sentence(up("--peers", name, "--key", "key")) == (
        f"Error: {tmp_path}/none.toml: there is no such file; write it, or name the right one\n"
    )


def test_a_host_without_a_peer_gets_its_public_key(up, tmp_path):
    said = sentence(up("--peers", "peers.toml", "--key", "key"))

    assert said.startswith(f"Error: no peer in {tmp_path}/peers.toml has this host's public key ")
    assert said.endswith(f"=: add it, or use a private key other than {tmp_path}/key with --key\n")


def test_an_unknown_node_gets_those_that_are(up, tmp_path):
    said = sentence(up("--peers", "peers.toml", "--key", "key", "--node", "paris"))

    assert said == f"Error: --node paris: {tmp_path}/peers.toml has no such peer; it has tokyo\n"


def test_an_interface_name_that_the_kernel_refuses_is_refused(up):
    assert "'a/b' is not an interface name" in sentence(up("--peers", "peers.toml", "--interface", "a/b"))


def test_an_unknown_log_level_gets_those_that_are(up):
    said = sentence(up("--peers", "peers.toml", "--log-level", "loud"))

    assert "'loud' is not one of 'debug', 'info', 'warning', 'error'" in said


def test_every_option_is_a_field_of_the_options_of_an_agent():
    options = {parameter.name for parameter in command.params} - {"log_level"}

    assert options == {each.name for each in fields(Options)} - {"wg_directory", "is_bare"}
