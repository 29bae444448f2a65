"""Our text, as Prometheus' own readers parse it."""

from __future__ import annotations

import math
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_plain

from overlay.metrics.exposition import Samples, number, wants_openmetrics
from overlay.metrics.families import FAMILIES

NAMES = st.text(st.characters(codec="utf-8"), max_size=20)


def text(samples, *, is_openmetrics):
    return b"".join(samples.render(is_openmetrics=is_openmetrics)).decode()


def read(samples):
    """Return the samples as both readers parse them, which must be the same."""
    found = []
    for is_openmetrics, reader in ((True, read_openmetrics), (False, read_plain)):
        families = reader(text(samples, is_openmetrics=is_openmetrics))
        found.append(
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in families
                for sample in family.samples
            }
        )
    assert found[0] == found[1]
    return found[0]


def full(labels="x"):
    """Return one sample of every family."""
    samples = Samples()
    for name, family in FAMILIES.items():
        samples.add(name, 1, **dict.fromkeys(family.labels, labels))
    return samples


def test_every_family_is_read_with_its_kind_and_help():
    families = {each.name: each for each in read_openmetrics(text(full(), is_openmetrics=True))}

    for name, family in FAMILIES.items():
        assert families[family.base].type == family.kind
        assert families[family.base].documentation == family.help
        assert families[family.base].samples[0].name == name


def test_promtool_finds_nothing_to_say_of_it():
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")

    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text(full(), is_openmetrics=False), capture_output=True, text=True, check=False
    )  # fmt: skip

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@given(NAMES, st.integers(0, 2**63))
def test_any_label_and_count_is_read_as_it_was(name, count):
    samples = Samples()
    samples.add("overlay_peer_receive_bytes_total", count, peer=name)

    assert read(samples) == {("overlay_peer_receive_bytes_total", frozenset({("peer", name)})): count}


def test_count_beyond_what_a_float_holds_is_written_out():
    assert number(2**63 + 1) == "9223372036854775809"


@pytest.mark.parametrize(("value", "written"), [(1.5, "1.5"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"), (True, "1")])  # fmt: skip
def test_numbers_are_written_as_prometheus_writes_them(value, written):
    assert number(value) == written


def test_family_without_a_sample_is_left_out_and_the_text_has_an_end():
    samples = Samples()
    samples.add("overlay_mtu_bytes", None)

    assert text(samples, is_openmetrics=True) == "# EOF\n"
    assert text(samples, is_openmetrics=False) == ""


def test_long_family_comes_in_pieces_with_one_head():
    samples = Samples()
    for peer in range(5000):
        samples.add("overlay_peer_receive_bytes_total", 1, peer=str(peer))

    pieces = list(samples.render(is_openmetrics=True))

    assert len(pieces) == 4
    assert b"".join(pieces).count(b"# TYPE") == 1


@pytest.mark.parametrize(
    ("accept", "is_wanted"),
    [
        ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("text/plain", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_format_is_the_one_that_the_client_takes(accept, is_wanted):
    assert wants_openmetrics(accept) is is_wanted
