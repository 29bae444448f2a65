"""The files of a key that is being replaced, and who this host is in the meantime."""

import pytest

from overlay.crypto.keys import PrivateKey
from overlay.errors import ConfigError, KeyFileError
from overlay.keys.own import KeyFiles, find_by_keys, load_next_key, next_path
from tests.peers.examples import peer, table

OLD, NEW = PrivateKey(bytes([1] * 32)), PrivateKey(bytes([2] * 32))


def write(path, key):
    path.write_text(key.to_base64() + "\n")
    path.chmod(0o600)


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "private.key"
    write(made, OLD)
    return made


def test_next_key_lies_beside_the_one_in_use(path):
    assert load_next_key(path) is None

    write(next_path(path), NEW)

    assert next_path(path).name == "private.key.new"
    assert load_next_key(path) == NEW


def test_next_key_that_is_none_is_an_error_that_names_the_file_and_what_aborts(path):
    next_path(path).write_text("nothing\n")

    with pytest.raises(KeyFileError, match=r"private\.key\.new is not a private key") as raised:
        load_next_key(path, "wg0")

    assert (
        raised.value.remedy
        == f"remove the file with `overlay rotate-key --abort --key {path} --interface wg0`"
    )


def test_directory_in_the_place_of_the_next_key_is_to_be_moved(path):
    next_path(path).mkdir()

    with pytest.raises(KeyFileError, match=r"private\.key\.new is a directory: move it away$"):
        load_next_key(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: write(next_path(path), NEW),
        lambda path: path.unlink(),
        lambda path: path.rename(path.with_name("elsewhere")),
    ],
)
def test_change_of_a_file_is_noticed_once(path, change):
    files = KeyFiles(path)
    assert not files.changed()

    change(path)

    assert files.changed()
    assert not files.changed()


def test_rename_in_one_step_is_noticed(path):
    write(next_path(path), NEW)
    files = KeyFiles(path)

    next_path(path).replace(path)

    assert files.changed()


def test_host_is_found_by_either_key():
    by_old = table(peer("paris", "10.244.1.0/24", public_key=OLD.public), peer("tokyo", "10.244.2.0/24"))
    by_new = table(peer("paris", "10.244.1.0/24", public_key=NEW.public), peer("tokyo", "10.244.2.0/24"))

    assert find_by_keys(by_old, OLD, NEW).name == "paris"
    assert find_by_keys(by_new, OLD, NEW).name == "paris"
    assert find_by_keys(by_new, OLD, None) is None


def test_two_sections_for_one_host_are_refused():
    both = table(
        peer("paris", "10.244.1.0/24", public_key=OLD.public),
        peer("paris2", "10.244.2.0/24", public_key=NEW.public),
    )

    with pytest.raises(ConfigError, match=r"peers\.paris and peers\.paris2 are both this host"):
        find_by_keys(both, OLD, NEW)
