from __future__ import annotations

import platform
import shutil
import subprocess
import sys

import pytest

from overlay.forwarding import native as compiled
from tests.fuzz import native
from tests.fuzz.target import CORPUS, join, split
from tests.fuzz.targets import TARGETS
from tests.hypothesis_profiles import PROFILE


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_a_target_takes_its_seeds_and_all_that_the_fuzzer_found_for_it(target):
    inputs = target.inputs()

    assert inputs
    for data in inputs.values():
        target.run(data)


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff", bytes(64), b"\xff" * 64])
@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_a_target_takes_input_that_is_hardly_any(target, data):
    target.run(data)


def test_every_corpus_is_that_of_a_target():
    others = {
        "both",
        "native",
    }  # test_compiled runs one kind of story; the other is run here

    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= set(TARGETS) | others


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    """The fuzzer of the compiled path, which takes seconds to build; None where no clang has libFuzzer."""
    clang = native.find_clang()
    if clang is None:
        return None
    program = tmp_path_factory.mktemp("fuzzer") / "story"
    native.build(clang, program, is_guided=True)
    return program


@pytest.mark.slow
@pytest.mark.timeout(400)  # a clang next to other work
def test_no_story_that_the_fuzzer_found_makes_the_compiled_path_do_what_it_must_not(fuzzer, tmp_path):
    """By the fuzzer itself, which tells what is in files, too; without it, or thoroughly, by any compiler's program."""
    programs = [fuzzer] if fuzzer is not None else []
    compiler = next(filter(shutil.which, ("gcc", "clang-19", "clang")), None)
    if (not programs or PROFILE == "thorough") and compiler and native.has_sanitizers(compiler):
        programs.append(tmp_path / "story")
        native.build(compiler, programs[-1], is_guided=False)
    if not programs:
        pytest.skip("no C compiler with sanitizers: install gcc and libc6-dev")

    for program in programs:
        done = native.replay(program, sorted((CORPUS / "native").iterdir()), is_guided=program == fuzzer)

        assert done.returncode == 0, done.stderr[-3000:]
        assert "inputs" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_fuzzer_of_the_compiled_path_is_built_and_tells_stories(fuzzer):
    if fuzzer is None:
        pytest.skip("no clang with libFuzzer: install clang-19 and libclang-rt-19-dev")

    done = subprocess.run(
        [fuzzer, "-rss_limit_mb=0", "-runs=100", "-seed=1"],
        check=False,
        text=True,
        capture_output=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert " stories" in done.stderr


@pytest.mark.parametrize(
    "broken", ["overlay/forwarding/native/fuzz/story.c", "overlay/forwarding/native/raw_inbound.c"]
)
def test_a_fuzzer_that_does_not_build_is_an_error(broken, tmp_path, monkeypatch):
    """Before, its test was skipped, and nobody noticed that the stories were no longer run."""
    compiler = next(filter(shutil.which, ("gcc", "clang-19", "clang")), None)
    if compiler is None:
        pytest.skip("no C compiler")
    folder = (tmp_path / broken).parent
    folder.mkdir(parents=True)  # only of this: compiling the others takes seconds
    (tmp_path / broken).write_text("int broken(void) { return }\n")
    monkeypatch.setattr(native, "NATIVE", tmp_path / "overlay/forwarding/native")

    with pytest.raises(subprocess.CalledProcessError) as error:
        native.build(compiler, tmp_path / "story", is_guided=False)
    assert str(tmp_path / broken) in error.value.cmd


def test_pieces_that_were_joined_are_split_again():
    pieces = [b"one", b"", b"three" * 100]

    assert split(join(pieces), 4) == pieces


@pytest.mark.slow
@pytest.mark.timeout(400)  # next to other work
@pytest.mark.skipif(compiled.core is None, reason=f"no compiled packet path: {compiled.missing}")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc tells what is allocated")
def test_the_compiled_path_keeps_nothing_of_sessions_peers_and_packets():
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.leaks",
        "--rounds",
        "6",
        "--inputs",
        "1",
        "--only",
        "wireguard",
    ]

    done = subprocess.run(command, check=False, text=True, capture_output=True)

    assert done.returncode == 0, done.stdout + done.stderr
