"""The key files of a host in each step, with an agent and without, and refusals."""

import contextlib
import json
import stat

import pytest

from overlay.crypto.keys import PrivateKey, encode_key
from overlay.host.control import control_path
from tests.overlay.cli.fakes import FakeAgent

OLD = PrivateKey(bytes([1] * 32))


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "private.key"
    path.write_text(OLD.to_base64() + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def following(key):
    return key.with_name("private.key.new")


class Agent(FakeAgent):
    """Follows the files immediately."""

    def __init__(self, path, key, **fields):
        super().__init__(path)
        self.key, self.fields = key, fields
        self.answers["own_keys"] = self.own_keys

    def own_keys(self, _request):
        new = self.key.with_name(self.key.name + ".new")
        takes_it = new.exists() and self.fields.get("reload_error") is None
        current, following = public(self.key), public(new) if takes_it else None
        listed = {"old": current, "new": following or current}[self.fields.get("listed", "old")]
        peers = self.fields.get("peers", {"new": [], "old": ["tokyo"], "silent": []}) if following else None
        return {
            "ok": True,
            "schema": 1,
            "name": "paris",
            "key_file": str(self.fields.get("key_file", self.key)),
            "peers_file": "/etc/overlay/peers.toml",
            "is_by_file": self.fields.get("is_by_file", True),
            "is_store_silent": self.fields.get("is_store_silent", False),
            "public_key": current,
            "next_public_key": following,
            "listed_public_key": listed,
            "delay": self.fields.get("delay"),
            "reload_error": self.fields.get("reload_error"),
            "peers": peers,
        }


def public(path):
    return encode_key(PrivateKey.from_base64(path.read_text().strip()).public)


@pytest.fixture
def agent(surroundings, key, tmp_path):
    def make(**fields):
        return Agent(control_path("overlay0", tmp_path / "run"), key, **fields)

    return make


def test_new_key_lies_beside_the_old_one_for_its_owner_alone(overlay, key, following):
    result = overlay("rotate-key", "--key", key)

    assert (result.exit_code, result.stdout) == (0, public(following) + "\n")
    assert stat.S_IMODE(following.stat().st_mode) == 0o600
    assert public(key) == encode_key(OLD.public)
    assert result.stderr == (
        f'write public_key = "{public(following)}" into the section of this host in the peers file, on every host\n'
        "no agent runs for overlay0; it uses these files when it starts\n"
    )
    assert following.read_text().strip() not in result.output


def test_new_key_may_be_read_by_who_may_read_the_old_one(overlay, key, following):
    key.chmod(0o640)

    overlay("rotate-key", "--key", key)

    assert stat.S_IMODE(following.stat().st_mode) == 0o640


def test_command_again_shows_the_same_key(overlay, key):
    first = overlay("rotate-key", "--key", key)

    assert overlay("rotate-key", "--key", key).stdout == first.stdout


def test_agent_tells_who_uses_which_key(overlay, key, following, agent):
    with agent(peers={"new": ["rome"], "old": ["tokyo"], "silent": ["oslo"]}):
        result = overlay("rotate-key", "--key", key)

    assert result.stderr == (
        "the new key is used by rome\n"
        f'write public_key = "{public(following)}" into peers.paris of the peers file, on every host; '
        "these do not use it "
        "yet: tokyo, oslo\n"
    )


def test_state_is_printed_as_json(overlay, key, following, agent):
    with agent():
        told = json.loads(overlay("rotate-key", "--key", key, "--json").stdout)

    assert told == {
        "schema": 1,
        "public_key": encode_key(OLD.public),
        "next_public_key": public(following),
        "listed_public_key": encode_key(OLD.public),
        "peers": {"new": [], "old": ["tokyo"], "silent": []},
    }


def test_finish_gives_the_new_key_the_place_of_the_old_one(overlay, key, following, agent):
    with agent(listed="new", peers={"new": ["tokyo"], "old": [], "silent": []}):
        new = overlay("rotate-key", "--key", key).stdout.strip()
        result = overlay("rotate-key", "--key", key, "--finish")

    assert (result.exit_code, result.stderr) == (0, f"this host answers to {new} only, from now on\n")
    assert public(key) == new
    assert not following.exists()
    assert [each.name for each in key.parent.iterdir() if "key" in each.name] == ["private.key"]


def test_abort_removes_the_new_key(overlay, key, following, agent):
    with agent():
        overlay("rotate-key", "--key", key)
        result = overlay("rotate-key", "--key", key, "--abort")

    assert (result.exit_code, result.stderr) == (
        0,
        f"this host answers to {encode_key(OLD.public)} only, from now on\n",
    )
    assert not following.exists()


@pytest.mark.parametrize(
    ("verb", "fields", "sentence"),
    [
        ("--finish", {}, "/etc/overlay/peers.toml has another public_key for paris, which is this host"),
        ("--finish", {"listed": "new"}, "tokyo would be cut off once the old key is withdrawn"),
        (
            "--finish",
            {"listed": "new", "peers": {"new": ["rome"], "old": [], "silent": ["oslo"]}},
            "oslo would be cut off once the old key is withdrawn",
        ),
        ("--abort", {"listed": "new"}, "/etc/overlay/peers.toml has the new public_key for paris"),
        (
            "--abort",
            {"peers": {"new": ["rome"], "old": [], "silent": []}},
            "rome would be cut off once the new key is withdrawn",
        ),
    ],
)
def test_what_would_cut_peers_off_is_refused_and_changes_nothing(
    overlay, key, following, agent, verb, fields, sentence
):
    with agent(**fields):
        overlay("rotate-key", "--key", key)
        before = key.read_text(), following.read_text()

        result = overlay("rotate-key", "--key", key, verb)

        assert result.exit_code == 1
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1
        assert (key.read_text(), following.read_text()) == before
        assert overlay("rotate-key", "--key", key, verb, "--force").exit_code == 0


@pytest.mark.parametrize("verb", ["--finish", "--abort"])
def test_without_an_agent_it_takes_force(overlay, key, following, verb):
    overlay("rotate-key", "--key", key)

    refused = overlay("rotate-key", "--key", key, verb)

    assert refused.exit_code == 1
    assert "no agent runs for overlay0, so it is not known which key the peers use" in refused.stderr
    assert overlay("rotate-key", "--key", key, verb, "--force").exit_code == 0
    assert not following.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--finish"], "there is nothing to finish: "),
        (["--abort"], "there is nothing to abort: "),
        (["--finish", "--abort"], "--finish and --abort cannot be combined"),
        (["--force"], "--force is for --finish and --abort; leave it out"),
    ],
)
def test_wrong_use_is_one_sentence(overlay, key, arguments, sentence):
    result = overlay("rotate-key", "--key", key, *arguments)

    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_key_of_another_agent_is_refused(overlay, key, following, agent, tmp_path):
    with agent(key_file=tmp_path / "other.key"):
        result = overlay("rotate-key", "--key", key)

    assert result.exit_code == 2
    assert f"the agent of overlay0 uses {tmp_path / 'other.key'}" in result.stderr
    assert not following.exists()


def test_key_that_is_missing_is_that_of_the_agent_where_one_runs(overlay, key, agent, tmp_path):
    with agent():
        result = overlay("rotate-key", "--key", tmp_path / "none")

    assert result.exit_code == 2
    assert f"the agent of overlay0 uses {key}; name that" in result.stderr


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "the new key will be published to the other hosts within seconds\n"),
        ({"delay": "its public key is not enrolled"}, "its public key is not enrolled\n"),
        ({"listed": "new"}, "the new key is published to the other hosts; these do not use it yet: tokyo\n"),
        (
            {"listed": "new", "peers": {"new": ["tokyo"], "old": [], "silent": []}},
            (
                "the new key is used by tokyo\n"
                "every peer uses it: withdraw the old key with `overlay rotate-key --finish --key {key}`\n"
            ),
        ),
    ],
)
def test_in_etcd_the_agent_tells_the_others_and_nobody_edits_a_file(
    overlay, key, following, agent, fields, sentence
):
    with agent(is_by_file=False, **fields):
        result = overlay("rotate-key", "--key", key)

    assert (result.exit_code, result.stdout) == (0, public(following) + "\n")
    assert result.stderr == sentence.format(key=key)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"delay": "etcd is silent"}, "etcd is silent; finish then, or give --force"),
        ({"listed": "new"}, "tokyo would be cut off once the old key is withdrawn"),
    ],
)
def test_in_etcd_the_old_key_stays_until_the_others_use_the_new_one(
    overlay, key, following, agent, fields, sentence
):
    with agent(is_by_file=False, **fields):
        overlay("rotate-key", "--key", key)
        result = overlay("rotate-key", "--key", key, "--finish")

    assert result.exit_code == 1
    assert sentence in result.stderr
    assert following.exists()


def test_in_etcd_abort_goes_back_though_peers_use_the_new_key(overlay, key, following, agent):
    with agent(is_by_file=False, listed="new", peers={"new": ["tokyo"], "old": [], "silent": []}):
        overlay("rotate-key", "--key", key)
        result = overlay("rotate-key", "--key", key, "--abort")

    assert (result.exit_code, following.exists()) == (0, False)


def test_in_etcd_abort_waits_for_one_that_is_silent(overlay, key, following, agent):
    fields = {"listed": "new", "peers": {"new": ["tokyo"], "old": [], "silent": []}}
    with agent(is_by_file=False, is_store_silent=True, **fields):
        overlay("rotate-key", "--key", key)
        result = overlay("rotate-key", "--key", key, "--abort")

    assert (result.exit_code, following.exists()) == (1, True)
    assert (
        "etcd is silent, so the old key cannot be published again; wait for it, or give --force"
        in result.stderr
    )


def test_key_that_is_a_link_is_refused_before_anything_is_made(overlay, key, tmp_path):
    link = tmp_path / "link.key"
    link.symlink_to(key)

    result = overlay("rotate-key", "--key", link)

    assert result.exit_code == 1
    assert "is not a regular file and is not replaced" in result.stderr
    assert not link.with_name("link.key.new").is_symlink()
    assert not link.with_name("link.key.new").exists()


def test_garbage_in_the_place_of_the_new_key_is_named(overlay, key, following):
    following.write_text("garbage\n")

    result = overlay("rotate-key", "--key", key)

    assert result.exit_code == 2
    assert f"{following} is not a private key: " in result.stderr
    assert result.stderr.endswith(f"; remove the file with `overlay rotate-key --abort --key {key}`\n")


@pytest.mark.parametrize("is_running", [True, False])
def test_garbage_in_the_place_of_the_new_key_is_removed_by_abort(overlay, key, following, agent, is_running):
    following.write_text("garbage\n")

    with agent(reload_error="no private key") if is_running else contextlib.nullcontext():
        result = overlay("rotate-key", "--abort", "--key", key)

    assert result.exit_code == 0, result.output
    assert not following.exists()
    assert public(key) == encode_key(OLD.public)


@pytest.mark.parametrize("verb", [(), ("--finish", "--force"), ("--abort", "--force")])
def test_link_in_the_place_of_the_new_key_is_refused_and_no_key_is_printed(
    overlay, key, following, tmp_path, verb
):
    before = key.read_text()
    following.symlink_to(tmp_path / "nothing")

    result = overlay("rotate-key", "--key", key, *verb)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"{following} is not a regular file" in result.stderr
    assert (key.read_text(), following.is_symlink()) == (before, True)


def test_copy_of_the_key_in_use_is_not_a_next_key(overlay, key, following):
    before = key.read_text()
    following.write_text(before)

    for verb in ((), ("--finish", "--force")):
        result = overlay("rotate-key", "--key", key, *verb)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert f"{following} contains the key that is in use" in result.stderr
    assert overlay("rotate-key", "--key", key, "--abort", "--force").exit_code == 0
    assert (key.read_text(), following.exists()) == (before, False)
