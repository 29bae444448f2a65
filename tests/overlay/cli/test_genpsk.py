import stat

from overlay.crypto.keys import PresharedKey


def test_genpsk_prints_a_new_preshared_key(overlay):
    first, second = overlay("genpsk"), overlay("genpsk")

    keys = [PresharedKey.from_base64(result.stdout.removesuffix("\n")) for result in (first, second)]
    assert keys[0] != keys[1]


def test_genpsk_writes_a_file_for_its_owner_alone_and_prints_nothing(overlay, tmp_path):
    out = tmp_path / "tokyo.psk"

    result = overlay("genpsk", "--out", out)

    PresharedKey.from_base64(out.read_text().removesuffix("\n"))
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert (result.exit_code, result.output) == (0, "")


def test_genpsk_never_replaces_a_file(overlay, tmp_path):
    out = tmp_path / "tokyo.psk"
    out.write_text("old")

    result = overlay("genpsk", "--out", out)

    assert out.read_text() == "old"
    assert result.exit_code == 2
    assert result.stderr == f"Error: {out} already exists: remove it, or name another file with --out\n"
