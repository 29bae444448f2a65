from __future__ import annotations

import pytest

from overlay.host.process.cpu import has_aes


@pytest.mark.parametrize(
    ("cpu_info", "has"),
    [
        ("processor\t: 0\nflags\t\t: fpu aes sse2 pclmulqdq avx\n\nprocessor\t: 1\n", True),
        ("flags\t\t: fpu aes sse2 avx\n", False),
        ("flags\t\t: fpu pclmulqdq\n", False),
        ("Features\t: fp asimd aes pmull sha1\n", True),
        ("Features\t: fp asimd\n", False),
        ("model name\t: aes pclmulqdq\nflags\t\t: fpu\n", False),
        ("", False),
    ],
)
def test_both_instructions_of_aes_gcm_are_asked_for(tmp_path, cpu_info, has):
    (tmp_path / "cpuinfo").write_text(cpu_info)

    assert has_aes(tmp_path / "cpuinfo") is has


def test_machine_that_does_not_tell_counts_as_without(tmp_path):
    assert has_aes(tmp_path / "nothing") is False
