import sys

import pytest

from overlay.crypto.keys import encode_key
from overlay.wg_quick.conf import Conf
from tests.overlay.wg_quick.files import preshared, private, public, text

PEERS = """
    [network]
    prefix = "10.244.0.0/16"

    [peers.paris]
    public_key = "{public_paris}"
    endpoint = "192.0.2.10"
    address = "10.244.0.1"
    subnets = ["0.0.0.0/0", "10.244.1.0/24"]
    keepalive = 25

    [peers.phone]
    public_key = "{public_phone}"
    address = "10.244.0.9"
    preshared_key_file = "phone.psk"
"""


@pytest.fixture
def peers(tmp_path):
    path = tmp_path / "peers.toml"
    path.write_text(text(PEERS))
    (tmp_path / "phone.psk").write_text(preshared("phone").to_base64() + "\n")
    return path


def test_export_prints_the_file_of_wg_quick(overlay, peers, tmp_path):
    key = tmp_path / "phone.key"
    key.write_text(private("phone").to_base64() + "\n")
    key.chmod(0o600)

    result = overlay("export", "phone", "--peers", peers, "--key", key)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == text("""
        [Interface]
        # Name = phone
        PrivateKey = {private_phone}
        Address = 10.244.0.9/16

        [Peer]
        # Name = paris
        PublicKey = {public_paris}
        PresharedKey = {psk_phone}
        AllowedIPs = 10.244.0.1/32, 0.0.0.0/0, 10.244.1.0/24
        Endpoint = 192.0.2.10:51820
        PersistentKeepalive = 25
    """)


def test_new_key_is_shown_once_with_the_public_key_to_publish(overlay, peers, tmp_path):
    before = sorted(tmp_path.rglob("*"))

    result = overlay("export", "phone", "--peers", peers, "--new-key")

    made = Conf.parse(result.stdout, "phone.conf").host.private_key
    assert made != private("phone")
    assert result.stderr == (
        f'phone has a new key, shown only this once: write public_key = "{encode_key(made.public)}" into peers.phone of '
        f"{peers} on "
        "every host\n"
    )
    assert made.to_base64() not in result.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert text(PEERS) == peers.read_text()


def test_peer_that_is_not_in_the_file_yet_gets_a_section_to_append(overlay, peers):
    result = overlay("export", "tablet", "--peers", peers, "--new-key", "--address", "10.244.0.10")

    head, _, section = result.stderr.partition("\n\n")
    assert head.splitlines()[-1] == f"Append this to {peers} on every host:"
    peers.write_text(peers.read_text() + "\n" + section)
    assert overlay("check", "--peers", peers, "--node", "tablet").exit_code == 0
    assert 'address = ["10.244.0.10"]' in section


def test_address_outside_the_prefix_is_warned_of(overlay, peers):
    result = overlay("export", "tablet", "--peers", peers, "--new-key", "--address", "10.9.0.1")

    assert result.exit_code == 0
    assert "Warning: 10.9.0.1 of tablet is outside 10.244.0.0/16" in result.stderr


def test_qr_code_is_of_the_file_without_names(overlay, peers):
    segno = pytest.importorskip("segno")

    result = overlay("export", "phone", "--peers", peers, "--qr")

    assert result.exit_code == 0
    rows = result.stdout.splitlines()
    assert len({len(row) for row in rows}) == 1
    expected = Conf.parse(overlay("export", "phone", "--peers", peers).stdout, "x")
    from overlay.wg_quick.exporting import without_names

    code = segno.make(without_names(expected).build(), error="l", micro=False, mode="byte")
    assert len(rows[0]) == code.symbol_size()[0]
    assert set(result.stdout) <= set("█▀▄ \n")


def test_too_long_for_a_qr_code_is_one_sentence(overlay, peers):
    more = "".join(
        f'[peers.p{number}]\npublic_key = "{public(str(number))}"\naddress = "10.244.3.{number}"\n'
        for number in range(1, 40)
    )
    peers.write_text(peers.read_text() + more)

    result = overlay("export", "phone", "--peers", peers, "--qr")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "and a QR code holds 2953; leave out --qr and copy the file to the device" in result.stderr


def test_qr_without_the_library_names_it(overlay, peers, monkeypatch):
    monkeypatch.setitem(sys.modules, "segno", None)

    result = overlay("export", "phone", "--peers", peers, "--qr")

    assert result.exit_code == 1
    assert (
        result.stderr == "Error: --qr needs the Python package segno; install it with `pip install segno`\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["phon"], "has no peer phon; did you mean phone? (for a new one, give --new-key and --address)"),
        (["phone", "--address", "10.244.0.7"], "phone is in"),
        (["x", "--new-key", "--address", "a"], "--address a is not an IP address"),
        (["x", "--new-key", "--address", "10.244.0.1"], "x does not fit into"),
        (["x/y", "--new-key", "--address", "10.244.0.7"], "is not the name of a peer"),
        (["phone", "--new-key", "--key", "/dev/null"], "--key and --new-key cannot be combined"),
    ],
)
def test_wrong_use_is_one_sentence(overlay, peers, arguments, sentence):
    result = overlay("export", *arguments, "--peers", peers)

    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_key_of_another_is_refused(overlay, peers, tmp_path):
    key = tmp_path / "paris.key"
    key.write_text(private("paris").to_base64() + "\n")
    key.chmod(0o600)

    result = overlay("export", "phone", "--peers", peers, "--key", key)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "--key is not the key of phone" in result.stderr


def test_preshared_key_that_is_missing_is_named(overlay, peers, tmp_path):
    (tmp_path / "phone.psk").unlink()

    result = overlay("export", "phone", "--peers", peers)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {tmp_path / 'phone.psk'} does not exist")
