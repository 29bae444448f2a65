import base64

import pytest

from overlay.crypto.keys import PrivateKey, encode_key

PRIVATE = PrivateKey(bytes(range(32)))


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(PRIVATE.to_base64() + "\n")
    return path


def test_pubkey_prints_what_keygen_printed(overlay, tmp_path):
    made = overlay("keygen", "--key", tmp_path / "key")

    result = overlay("pubkey", "--key", tmp_path / "key")

    assert (result.exit_code, result.output) == (0, made.output)


def test_pubkey_reads_stdin_as_wg_pubkey_does(overlay):
    result = overlay("pubkey", "--key", "-", input=PRIVATE.to_base64() + "\n")

    assert (result.exit_code, result.output) == (0, encode_key(PRIVATE.public) + "\n")


def test_pubkey_warns_of_a_key_that_others_can_read(overlay, key):
    key.chmod(0o640)

    result = overlay("pubkey", "--key", key)

    assert (result.exit_code, result.stdout) == (0, encode_key(PRIVATE.public) + "\n")
    assert result.stderr == f"Warning: {key} can be read by others: run `chmod 600 {key}`\n"


def test_a_missing_key_gets_its_remedy(overlay, tmp_path):
    key = tmp_path / "key"

    result = overlay("pubkey", "--key", key)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {key} does not exist: make one with `overlay keygen --key {key}`\n"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (b"", "a key has 44 characters of base64, as `wg genkey` writes it; this has 0"),
        (b"short", "a key has 44 characters of base64, as `wg genkey` writes it; this has 5"),
        (b"*" * 44, "a key is written in base64; this has other characters"),
        (b"\xff" * 44, "a key is written in base64; this has other characters"),
        (base64.b64encode(bytes(31)), "a key is 32 bytes in base64; this does not decode to 32 bytes"),
    ],
)
def test_anything_but_a_key_gets_a_sentence_that_does_not_repeat_it(overlay, text, finding):
    result = overlay("pubkey", "--key", "-", input=text)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: stdin does not contain a private key: {finding}\n"


def test_endless_stdin_is_refused(overlay):
    assert overlay("pubkey", "--key", "-", input=b"A" * (1 << 20)).exit_code == 2
