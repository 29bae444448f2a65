import stat
from pathlib import Path

import pytest

from overlay.keys.files import load_private_key
from peers import toml
from tests.overlay.wg_quick.files import preshared, private, public, text

TWO = """
    [Interface]
    PrivateKey = {private_paris}
    Address = 10.244.0.1/16

    # Name = tokyo
    [Peer]
    PublicKey = {public_tokyo}
    PresharedKey = {psk_any}
    AllowedIPs = 10.244.0.2/32
    Endpoint = 192.0.2.20:51820
"""


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "paris.conf"
    path.write_text(text(TWO))
    return path


def test_import_prints_a_peers_file_that_check_accepts(overlay, conf, tmp_path):
    keys, peers = tmp_path / "keys", tmp_path / "peers.toml"

    result = overlay("import", conf, "--keys", keys)
    peers.write_text(result.stdout)

    assert result.exit_code == 0
    assert list(toml.load(peers).peers) == ["paris", "tokyo"]
    checked = overlay("check", "--peers", peers, "--key", keys / "paris.key")
    assert (checked.exit_code, checked.stderr) == (0, "")


def test_keys_go_to_files_for_their_owner_alone_and_are_printed_nowhere(overlay, conf, tmp_path):
    result = overlay("import", conf, "--keys", tmp_path / "keys")

    files = {path.name: path for path in (tmp_path / "keys").iterdir()}
    assert load_private_key(files["paris.key"])[0] == private("paris")
    assert files["tokyo.psk"].read_text() == preshared("any").to_base64() + "\n"
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert set(files) == {"paris.key", "tokyo.psk"}
    for secret in (private("paris").to_base64(), preshared("any").to_base64()):
        assert secret not in result.output


def test_import_without_keys_writes_none_and_says_where_they_are(overlay, conf, tmp_path):
    result = overlay("import", conf)

    assert list(tmp_path.glob("**/*.key")) == []
    assert result.stderr == (
        "the private key of paris stays in its file: write it to a key file with --keys DIRECTORY\n"
        "tokyo.psk: preshared keys that the peers file names; --keys writes them\n"
    )


def test_import_again_changes_nothing(overlay, conf, tmp_path):
    first = overlay("import", conf, "--keys", tmp_path / "keys")

    again = overlay("import", conf, "--keys", tmp_path / "keys")

    assert (again.exit_code, again.output) == (0, first.output)


def test_no_file_is_replaced_and_then_none_is_written(overlay, conf, tmp_path):
    other = tmp_path / "keys" / "tokyo.psk"
    other.parent.mkdir()
    other.write_text("another\n")

    result = overlay("import", conf, "--keys", tmp_path / "keys")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"Error: {other} already exists with different contents and is not replaced; name another directory with "
        f"--keys\n"
    )
    assert list(other.parent.iterdir()) == [other]
    assert other.read_text() == "another\n"


def test_what_is_left_out_makes_exit_code_1(overlay, conf):
    conf.write_text(conf.read_text().replace("Address", "PostUp = true\nAddress"))

    result = overlay("import", conf)

    assert result.exit_code == 1
    assert result.stderr.startswith(f"{conf}:3: PostUp: no command is carried over; ")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "{path} does not exist; name the file to import"),
        (lambda path: path.mkdir(), "{path} is a directory; name a file in it"),
        (lambda path: path.write_bytes(b"\n\xff"), "{path}:2: is not UTF-8 text; name a wg-quick file"),
        (lambda path: path.write_text("x\n"), "{path}:1: is before the first [Interface] or [Peer]; name a wg-quick file"),
        (lambda path: path.symlink_to("/dev/zero"), ("{path} is a device, where a regular file is needed; name a "
            "wg-quick file")),
    ],
)  # fmt: skip
def test_wrong_file_is_one_sentence(overlay, tmp_path, make, sentence):
    path = tmp_path / "wg0.conf"
    make(path)

    result = overlay("import", path)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {sentence.format(path=path)}\n"


def test_public_keys_are_those_of_the_files(overlay, conf):
    peers = toml.parse(overlay("import", conf).stdout, Path("/etc/overlay/peers.toml")).peers

    assert [peer.public_key for peer in peers.values()] == [private("paris").public, private("tokyo").public]
    assert public("paris") in overlay("import", conf).stdout


def test_many_preshared_keys_are_named_by_the_first(overlay, tmp_path):
    conf = tmp_path / "hub.conf"
    peer = "[Peer]\nPublicKey = {{public_{0}}}\nPresharedKey = {{psk_{0}}}\nAllowedIPs = 10.0.0.{0}/32\n"
    conf.write_text(
        text(
            "[Interface]\nPrivateKey = {private_a}\nAddress = 10.0.0.1/24\n"
            + "".join(peer.format(number) for number in range(2, 10))
        )
    )

    result = overlay("import", conf)

    assert "peer-10.0.0.6.psk +3: preshared keys that the peers file names" in result.stderr
