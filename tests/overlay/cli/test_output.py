import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.cli.output import format_age, format_bytes, format_some, format_table, show_secret, suggest


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (10 * 1024, "10.0 KiB"),
        (999 * 1024, "999 KiB"),
        (23.4 * 2**20, "23.4 MiB"),
        (2**40, "1.00 TiB"),
        (2**70, "1048576 PiB"),
    ],
)
def test_an_amount_has_three_digits_and_a_unit(size, text):
    assert format_bytes(size) == text


@given(st.integers(0, 10**18))
def test_an_amount_is_never_wider_than_its_column_expects(size):
    assert len(format_bytes(size)) <= 8


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "never"),
        (0, "0 s ago"),
        (12.9, "12 s ago"),
        (60, "1 min ago"),
        (125, "2 min 5 s ago"),
        (3600 * 3 + 720 + 5, "3 h 12 min ago"),
        (86400 * 4 + 3600, "4 d 1 h ago"),
        (-1, "0 s ago"),
    ],
)
def test_an_age_has_its_two_largest_units(seconds, text):
    assert format_age(seconds) == text


def test_columns_are_as_wide_as_their_widest_cell():
    assert format_table(("A", "LONG"), [("longer", "1"), ("b", "22")], right=[1]) == (
        "A       LONG\nlonger     1\nb         22"
    )


def test_a_table_may_be_empty():
    assert format_table(("A", "B"), []) == "A  B"


def test_of_many_items_the_first_are_shown():
    assert format_some([1, 2, 3], 2) == "1, 2 +1"
    assert format_some([1, 2], 2) == "1, 2"
    assert format_some([], 2) == ""


def test_a_name_without_a_near_one_gets_those_that_are():
    assert suggest("x", ["paris", "rome"]) == "the peers are paris, rome"
    assert suggest("x", ["paris"]) == "the only peer is paris"
    assert suggest("pari", ["paris", "rome"]) == "did you mean paris?"
    assert suggest("x", []) == "there are no others"


@pytest.mark.parametrize(("mode", "is_told"), [(0o644, True), (0o600, False)])
def test_a_secret_in_a_file_that_others_can_read_is_warned_of(tmp_path, monkeypatch, capfd, mode, is_told):
    path = tmp_path / "router.conf"
    path.touch()
    path.chmod(mode)

    with path.open("w") as file, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", file)
        show_secret("secret")

    assert path.read_text() == "secret\n"
    assert ("umask 077" in capfd.readouterr().err) == is_told
