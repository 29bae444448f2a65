"""Settings and fixtures for all tests."""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401  a codec that cannot be loaded once is missing for good: see below
import gc
import importlib
import random
import signal
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.hypothesis_profiles import PROFILE  # which it chooses
from tests.parallel import FileScheduling, is_worker, run_and_report

if TYPE_CHECKING:
    from xdist.remote import Producer

# encodings.idna is loaded here: a test that temporarily becomes another user may not be able to read Python's own
# files, and might be the first to resolve a host name.

gc.set_threshold(10_000, 20, 20)

# The files that take longest, if only because they wait: if they ran alone at the end of a parallel run, all workers
# but one would be idle.
LONG = {
    "test_any_packets.py",
    "test_app.py",
    "test_attendance.py",
    "test_changes.py",
    "test_cni.py",
    "test_codec.py",
    "test_compiled.py",
    "test_core.py",
    "test_crossing.py",
    "test_demo.py",
    "test_directors.py",
    "test_docker.py",
    "test_ending.py",
    "test_every_path.py",
    "test_first_packet.py",
    "test_first_units.py",
    "test_forwarder.py",
    "test_forwarders.py",
    "test_fuzz.py",
    "test_idle.py",
    "test_imports.py",
    "test_joining.py",
    "test_keepalived.py",
    "test_lan_claims.py",
    "test_lanes.py",
    "test_life.py",
    "test_main.py",
    "test_mutate.py",
    "test_names.py",
    "test_outbound.py",
    "test_page_in_browser.py",
    "test_questions.py",
    "test_raw.py",
    "test_rekeying.py",
    "test_reload.py",
    "test_restarts.py",
    "test_roaming.py",
    "test_rotating_keys.py",
    "test_script.py",
    "test_service_model.py",
    "test_services.py",
    "test_slices.py",
    "test_structure.py",
    "test_sync.py",
    "test_top.py",
    "test_units.py",
    "test_units_properties.py",
    "test_up.py",
    "test_vip.py",
    "test_vrrp.py",
    "test_vrrp_takeover.py",
    "test_vxlan.py",
    "test_webserver.py",
    "test_wireguard_go.py",
}

# The fraction of the run in which files with network namespaces are started: the others are shorter.
LAST_NAMESPACES = 0.4

# How many of the parametrized cases of one test the quick run takes.
FEW_CASES = 2

# SIGINT is ignored in a background job, and would be in every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


ROOT = Path(__file__).parent.parent


def pytest_sessionstart(session: pytest.Session) -> None:
    """In a parallel run of all tests, import a share of the test modules first.

    All workers collect the same files in the same order, and where those are new, as after a checkout, each would
    rewrite and compile every file.  So each starts with different ones, and finds the rest compiled.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is None or session.config.args != session.config.getini("testpaths"):
        return
    number, count = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    for path in sorted(ROOT.glob("tests/**/test_*.py"))[number::count]:
        # An error that prevents a module from being imported is reported when it is collected.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


# Twenty thousand tests are a million objects that stay: garbage collections that visit them again and again would
# take half as long as collecting the tests.


def pytest_collectstart() -> None:
    """Disable garbage collection while tests are collected."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Enable garbage collection, and exclude the collected tests from it."""
    gc.enable()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)  # scripts/mutate goes without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FileScheduling:
    """Give workers one file after the other."""
    return FileScheduling(config, log)


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test in a worker, which reports little, but for --durations, which asks for setup and teardown too."""
    if not is_worker(item.config) or item.config.option.durations is not None:
        return None
    return run_and_report(item, nextitem)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the files for parallel runs, which begin them in this order: see spread().

    The quick profile tries few cases of each test, as it tries few examples of each property.
    """
    if PROFILE == "quick":
        items[:], left = few_cases(items)
        config.hook.pytest_deselected(items=left)
    waiting = {item.path for item in items if item.get_closest_marker("netns") is not None}
    place = spread(list(dict.fromkeys(item.path for item in items)), waiting)
    items.sort(key=lambda item: place[item.path])


def spread(files: list[Path], waiting: set[Path]) -> dict[Path, float]:
    """Return where each of *files* begins in a run from 0 to 1.

    x, wait most of the time, and the others compute: they go beside each other from the beginning, so that the
    processors are busy.  Of both, the files that take longest are first, and the end is for short files that compute.
    """
    files = sorted(files, key=lambda path: path.name not in LONG)
    place: dict[Path, float] = {}
    for is_waiting, end in ((True, LAST_NAMESPACES), (False, 1.0)):
        kind = [path for path in files if (path in waiting) is is_waiting]
        place |= {path: end * number / len(kind) for number, path in enumerate(kind)}
    return place


def few_cases(items: list[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return which of *items* the quick run takes, and which it leaves out."""
    cases: defaultdict[str, list[str]] = defaultdict(list)
    for item in items:
        cases[name_of_test(item)].append(item.nodeid)
    chosen = {
        case
        for test, of_it in cases.items()
        for case in random.Random(test).sample(sorted(of_it), min(FEW_CASES, len(of_it)))
    }
    return (
        [item for item in items if item.nodeid in chosen],
        [item for item in items if item.nodeid not in chosen],
    )


def name_of_test(item: pytest.Item) -> str:
    """Return the name of the test that *item* is a case of."""
    return item.nodeid.partition("[")[0]
