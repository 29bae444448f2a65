"""scripts/bench web: missing programs are named before anything is created."""

from __future__ import annotations

import argparse

import pytest

from scripts.benchmarks import web


def test_programs_that_are_missing_are_named_with_their_packages(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    parser = argparse.ArgumentParser()
    web.add_arguments(parser)

    with pytest.raises(SystemExit) as ended:
        web.run(parser.parse_args(["--contenders", "ours,wireguard-go"]))

    assert ended.value.code == 2
    assert "missing: nginx-light wireguard-go wrk; install them" in capsys.readouterr().err
