from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import HostError
from overlay.host import control
from tests.crowds import crowd_at
from tests.netns.topology import ROOT

LISTEN = (
    "import sys, time; from pathlib import Path; from overlay.host import control\n"
    "control.listen(Path(sys.argv[1])); print('listening', flush=True); time.sleep(100)"
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "overlay0.sock"


def test_socket_is_for_its_owner_and_its_directory_for_all(path):
    server = control.listen(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    server.close()


def test_nothing_is_left_after_close(path):
    control.listen(path).close()

    assert list(path.parent.iterdir()) == []


def test_second_agent_is_refused_with_the_process_of_the_first(path):
    server = control.listen(path)

    with pytest.raises(HostError, match=f"overlay0 is already run by process {os.getpid()}:") as raised:
        control.listen(path)

    assert isinstance(raised.value.__cause__, OSError)
    server.close()


def test_agent_that_looks_whether_a_lock_has_an_owner_keeps_nobody_from_it(path, monkeypatch):
    path.parent.mkdir()
    looking = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_EX)
    monkeypatch.setattr(control.time, "sleep", lambda _seconds: os.close(looking))  # the look is over

    control.listen(path).close()

    assert list(path.parent.iterdir()) == []


def test_socket_of_a_killed_agent_is_taken_over(path):
    agent = subprocess.Popen(
        [sys.executable, "-c", LISTEN, path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with agent:
        assert agent.stdout.readline() == "listening\n"
        with pytest.raises(HostError, match=f"process {agent.pid}:"):
            control.listen(path)
        agent.send_signal(signal.SIGKILL)
    assert path.exists()

    server = control.listen(path)

    server.close()


def test_agents_that_start_and_stop_at_once_never_share_a_path(path):
    together, at_once, most = threading.Lock(), [0], [0]

    def life():
        for _ in range(100):
            try:
                server = control.listen(path)
            except HostError:
                continue
            with together:
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
            with together:
                at_once[0] -= 1
            server.close()

    threads = [threading.Thread(target=life) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == [1]
    assert list(path.parent.iterdir()) == []


def test_directory_that_cannot_be_made_is_named():
    with pytest.raises(HostError, match=r"/proc/overlay could not be created: .*; see what is in its place"):
        control.listen(control.control_path("overlay0", control.Path("/proc/overlay")))


def test_directory_that_others_may_write_is_refused(path):
    path.parent.mkdir(mode=0o755)
    path.parent.chmod(0o775)

    with pytest.raises(HostError, match="can be written by others: correct its owner and mode"):
        control.listen(path)

    assert list(path.parent.iterdir()) == []


def test_directory_that_is_a_link_is_refused(path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    path.parent.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(HostError, match="belongs to another user or can be written by others"):
        control.listen(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory to somebody else")
def test_directory_of_somebody_else_is_refused(path):
    path.parent.mkdir(mode=0o755)
    os.chown(path.parent, 65528, 65528)

    with pytest.raises(HostError, match="belongs to another user"):
        control.listen(path)


def test_path_that_is_too_long_for_a_socket_is_named(tmp_path):
    path = tmp_path / ("x" * 100) / "overlay0.sock"

    with pytest.raises(HostError, match=r"could not be created: AF_UNIX path too long"):
        control.listen(path)


def test_nobody_can_listen_while_it_is_forbidden(path):
    path.parent.mkdir()
    with control.nobody_listening(path), pytest.raises(HostError, match="is already run by process"):
        control.listen(path)

    control.listen(path).close()
    assert list(path.parent.iterdir()) == []


def test_listening_is_not_forbidden_to_an_agent_that_does(path):
    server = control.listen(path)

    with pytest.raises(HostError, match="is already run by process"), control.nobody_listening(path):
        raise AssertionError

    server.close()


DIRECTORIES = """
import os
from overlay.host import control
os.setresuid({uid}, {uid}, {uid})
try: print(control.own_directory())
except control.HostError as error: print(error)
print(*control.directories())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize(
    ("uid", "runtime", "own", "asked"),
    [
        (0, "/run/user/7", "/run/overlay", "/run/overlay"),
        (65528, "/run/user/7", "/run/user/7/overlay", "/run/user/7/overlay /run/overlay"),
        (
            65528,
            "relative",
            "there is no directory for the control socket, because only root may write to /run/overlay",
            "/run/overlay",
        ),
        (
            65528,
            "",
            "there is no directory for the control socket, because only root may write to /run/overlay",
            "/run/overlay",
        ),
    ],
)
def test_users_without_root_have_a_place_of_their_own(uid, runtime, own, asked):
    done = subprocess.run(
        [sys.executable, "-c", DIRECTORIES.format(uid=uid)],
        cwd=ROOT,
        env={"XDG_RUNTIME_DIR": runtime},
        capture_output=True,
        text=True,
        check=True,
    )

    said = done.stdout.splitlines()
    assert said[0].startswith(own)
    assert said[1] == asked


def test_agent_is_found_where_it_is_and_else_where_it_would_be(tmp_path):
    mine, shared = tmp_path / "mine", tmp_path / "shared"
    mine.mkdir()
    shared.mkdir()
    assert control.find("overlay0", [mine, shared]).parent == shared

    server = control.listen(control.control_path("overlay0", mine))

    assert control.find("overlay0", [mine, shared]) == server.path
    assert control.find("overlay1", [mine, shared]).parent == shared
    server.close()


@pytest.fixture
def agent(path):
    """Return a function that makes an agent answer the next connection with given bytes; it returns the question."""
    server = control.listen(path)
    threads = []

    def answer(data):
        def serve():
            connection, _ = server.socket.accept()
            with connection:
                connection.setblocking(True)
                connection.recv(65536)
                try:
                    connection.sendall(data)
                except BrokenPipeError:
                    return

        server.socket.setblocking(True)
        threads.append(threading.Thread(target=serve))
        threads[-1].start()

    yield answer
    for thread in threads:
        thread.join()
    server.close()


def test_request_returns_the_answer(path, agent):
    agent(control.encode({"peers": ["paris"] * 100_000}))

    assert control.request(path, {"command": "status"}) == {"peers": ["paris"] * 100_000}


@pytest.mark.parametrize("data", [b"", b'{"peers": 1}', b"[]\n", b"nonsense\n"])
def test_incomplete_answer_is_refused(path, agent, data):
    agent(data)

    with pytest.raises(HostError, match="the agent of overlay0 did not answer completely"):
        control.request(path, {})


def test_answer_without_end_is_refused(path, agent):
    agent(b"x" * 2 * control.LINE_SIZE)

    with pytest.raises(HostError, match="did not answer completely"):
        control.request(path, {})


def test_rows_before_the_answer_belong_into_its_status(path, agent):
    rows = [{"name": f"peer{number}"} for number in range(50)]
    pieces = [control.encode({"rows": rows[at : at + 20], "more": True}) for at in (0, 20, 40)]
    agent(b"".join(pieces) + control.encode({"ok": True, "status": {"node": "paris"}}))

    assert control.request(path, {}) == {"ok": True, "status": {"node": "paris", "peers": rows}}


def test_a_status_without_peers_has_none(path, agent):
    agent(control.encode({"ok": True, "status": {"node": "paris"}}))

    assert control.request(path, {})["status"]["peers"] == []


def test_a_refusal_after_rows_is_the_answer(path, agent):
    agent(control.encode({"rows": [{}], "more": True}) + control.encode({"ok": False, "error": "no"}))

    assert control.request(path, {}) == {"ok": False, "error": "no"}


def test_an_answer_may_be_larger_than_any_line(path, agent, monkeypatch):
    monkeypatch.setattr(control, "LINE_SIZE", 2_000_000)
    row = {"name": "x" * 1_000_000}
    agent(control.encode({"rows": [row], "more": True}) * 10 + control.encode({"status": {}}))

    assert control.request(path, {})["status"]["peers"] == [row] * 10


@pytest.mark.parametrize(
    "piece", [{"more": True}, {"more": True, "rows": 1}, {"more": True, "rows": {"a": 1}}]
)
def test_a_piece_without_rows_is_refused(path, agent, piece):
    agent(control.encode(piece) + control.encode({"status": {}}))

    with pytest.raises(HostError, match="did not answer completely"):
        control.request(path, {})


def test_an_answer_that_ends_among_its_rows_is_refused(path, agent):
    agent(control.encode({"rows": [{}], "more": True}))

    with pytest.raises(HostError, match="did not answer completely"):
        control.request(path, {})


def test_silent_agent_is_given_up(path):
    server = control.listen(path)

    with pytest.raises(HostError, match=r"did not answer in 0\.1 s"):
        control.request(path, {}, timeout=0.1)

    server.close()


def test_request_waits_while_so_many_ask_that_the_queue_is_full(path):
    server = control.listen(path)
    with crowd_at(path), pytest.raises(HostError, match=r"did not answer in 0\.1 s"):
        control.request(path, {}, timeout=0.1)

    server.close()


def test_full_queue_is_an_agent_that_answers(path):
    server = control.listen(path)
    with crowd_at(path):
        assert control.is_answered(path)

    server.close()


def test_request_without_agent_says_that_none_runs(path):
    with pytest.raises(control.NoAgentError, match=r"^no overlay agent runs for overlay0 here$"):
        control.request(path, {})


def test_agent_that_may_be_asked_or_is_absent_is_no_matter_of_permission(path):
    control.refuse_unless_permitted(path)
    with contextlib.closing(control.listen(path)):
        control.refuse_unless_permitted(path)


def test_request_to_a_killed_agent_says_that_none_runs(path):
    server = control.listen(path)
    server.socket.close()

    with pytest.raises(HostError, match="no overlay agent runs"):
        control.request(path, {})

    server.close()


@pytest.mark.parametrize(
    "call", ["request(Path(sys.argv[1]), {})", "refuse_unless_permitted(Path(sys.argv[1]))"]
)
def test_request_without_permission_says_so(path, call):
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    server = control.listen(path)
    for directory in path.parents[:3]:
        directory.chmod(0o755)
    code = "import sys, os; from pathlib import Path; from overlay.host import control\n"
    code += "os.setresuid(65528, 65528, 65528)\n"
    code += f"try: control.{call}\nexcept Exception as error: print(error)"

    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout == f"{path} may be used by root only: run as root\n"
    server.close()


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none()))
def test_message_is_one_line_and_comes_back(message):
    line = control.encode(message)

    assert line.count(b"\n") == 1
    assert control.decode(line) == message


@given(st.binary() | st.binary().map(lambda data: data + b"\n") | st.just(b"[" * 100_000 + b"\n"))
def test_any_line_gives_a_message_or_value_error(line):
    try:
        message = control.decode(line)
    except ValueError:
        return
    assert isinstance(message, dict)
    assert json.loads(line) == message


@pytest.mark.parametrize("interface", ["overlay0", "a.b", "tun.7"])
def test_path_tells_its_interface(interface):
    assert control.interface_of(control.control_path(interface)) == interface
    assert control.interface_of(control.Path(f"/run/overlay/{interface}.4026532177.sock")) == interface


@pytest.mark.netns
def test_path_carries_the_inode_outside_the_initial_namespace(lab):
    code = "from overlay.host.control import control_path; print(control_path('overlay0'))"
    host = lab.namespace("host")

    assert host.python(code) == f"/run/overlay/overlay0.{host.inode}.sock\n"


@pytest.mark.netns
def test_path_does_not_depend_on_privileges(lab):
    code = (
        "from overlay.host.process.privileges import keep_only; keep_only(set())\n"
        "from overlay.host.control import control_path; print(control_path('overlay0'))"
    )
    host = lab.namespace("host")

    assert host.python(code) == f"/run/overlay/overlay0.{host.inode}.sock\n"


def test_path_is_plain_in_the_initial_namespace():
    if not control.ONLY_IN_INITIAL_NAMESPACE.exists():
        pytest.skip("these tests do not run in the initial network namespace")

    assert str(control.control_path("overlay0")) == "/run/overlay/overlay0.sock"


def test_what_killed_agents_left_in_the_directory_goes_with_the_next_start(tmp_path):
    for name in ("overlay0.4026532177", "overlay1"):
        (tmp_path / f"{name}.sock").touch()
        (tmp_path / f"{name}.lock").touch()
    living = control.listen(tmp_path / "overlay2.sock")

    newcomer = control.listen(tmp_path / "overlay3.sock")

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "overlay2.lock",
        "overlay2.sock",
        "overlay3.lock",
        "overlay3.sock",
    ]
    newcomer.close()
    living.close()


def test_start_elsewhere_leaves_the_files_of_an_agent_that_has_just_followed_another(path, monkeypatch):
    """Before, it took the lock that the former agent had given up, and removed the socket of the next."""
    former, following = control.listen(path), []
    inode, flock = os.fstat(former.lock).st_ino, fcntl.flock

    def lock_later(descriptor, how):
        if not following and os.fstat(descriptor).st_ino == inode:
            following.append(None)
            former.close()
            following[:] = [control.listen(path)]
        return flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", lock_later)
    elsewhere = control.listen(path.with_name("overlay1.sock"))

    assert control.is_answered(path)
    following[0].close()
    elsewhere.close()


def test_a_lock_that_cannot_be_written_is_no_agent_that_runs(tmp_path):
    """Before, a full disk was reported as another running agent."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(HostError, match="could not be written: File too large; make room"):
            control.listen(tmp_path / "overlay0.sock")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
