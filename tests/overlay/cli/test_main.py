import dataclasses
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from overlay.__main__ import describe
from overlay.__main__ import main as entry
from overlay.cli import main
from overlay.cli.exits import CommandGroup
from overlay.errors import ConfigError, HostError
from overlay.host.control import control_path
from peers.errors import StoreError, TableError
from tests import forked
from tests.overlay.cli.fakes import FakeAgent

ROOT = Path(__file__).parents[3]
SLOW = {"trio", "pyroute2", "numpy", "cryptography", "msgpack", "overlay.agent", "overlay.config"}


def run(*arguments, **fields):
    return subprocess.run(
        [sys.executable, "-m", "overlay", *arguments],
        cwd=ROOT,
        check=False,
        **{"capture_output": True, "text": True} | fields,
    )


def raising(error):
    @click.group(cls=CommandGroup)
    def group():
        pass

    @group.command()
    def fail():
        raise error

    return CliRunner().invoke(group, ["fail"])


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (HostError("no"), 1),
        (StoreError("no"), 1),
        (ConfigError("no"), 2),
        (TableError(Path("peers.toml"), 3, "no"), 2),
    ],
)
def test_an_error_is_a_sentence_and_an_exit_code(error, exit_code):
    result = raising(error)

    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr == f"Error: {error}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "is_loaded"), [*((files, True) for files in range(4, 13)), (5, False), (8, False), (12, False)]
)
def test_too_few_files_get_a_sentence(tmp_path, files, is_loaded):
    """Before, there was a traceback if the file that could not be opened was not the usual one."""
    (tmp_path / "peers.toml").write_text("")  # so that no agent ever starts
    arguments = ("up", "--peers", str(tmp_path / "peers.toml"))

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    def program():
        os.closerange(3, 1 << 16)  # those of the tests
        limit()
        entry()

    result = forked.run(program, *arguments) if is_loaded else run(*arguments, preexec_fn=limit)

    assert result.returncode in {1, 2}
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_shortage_is_distinguished_from_a_bug():
    shortage = OSError(errno.EMFILE, "Too many open files", "/proc/self/uid_map")

    assert describe(ExceptionGroup("", [shortage])).startswith(
        "this process may not open more files: raise its limit"
    )
    assert describe(ExceptionGroup("", [shortage, ValueError()])) is None
    both = ExceptionGroup("", [shortage, ExceptionGroup("", [shortage])])
    assert describe(both).startswith("this process may not open more files")
    assert describe(ExceptionGroup("", [both, ValueError()])) is None
    assert describe(OSError(errno.ENOSPC, "No space left on device", "/etc/file")) is None
    assert describe(OSError(errno.ENOENT, "No such file or directory")) is None
    assert describe(OSError("no number")) is None


def test_an_interrupt_is_quiet():
    result = raising(KeyboardInterrupt())

    assert (result.exit_code, result.output) == (130, "")


def test_any_other_exception_is_a_bug_and_not_hidden():
    error = ZeroDivisionError()

    assert raising(error).exception is error


def test_help_lists_every_command(overlay):
    result = overlay("--help")

    names = [
        line.split()[0] for line in result.stdout.partition("Commands:\n")[2].split("\n\n")[0].splitlines()
    ]
    assert names == [
        "keygen",
        "pubkey",
        "genpsk",
        "check",
        "up",
        "status",
        "ping",
        "capture",
        "doctor",
        "explain",
        "top",
        "log",
        "log-level",
        "web",
        "services",
        "network",
        "service",
        "cni",
        "import",
        "export",
        "rotate-key",
        "man",
        "completion",
        "down",
    ]


@pytest.mark.parametrize("name", list(main.commands))
def test_every_command_explains_itself_and_its_options(overlay, name):
    result = overlay(name, "-h")

    assert result.exit_code == 0
    command = main.commands[name]
    assert command.get_short_help_str(1000).endswith(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "log_level":
            assert parameter.help.rstrip("]").endswith((".", "key")), parameter.name


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["status", "--interface", "none"],
        ["ping", "tokyo", "--interface", "none"],
    ],
)
def test_quick_commands_load_nothing_slow(arguments):
    code = (
        "import sys\n"
        "from overlay.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "finally:\n"
        f"    sys.stderr.write('LOADED ' + ' '.join(sorted({SLOW!r} & set(sys.modules))))\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert result.stderr.endswith("LOADED ")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["genpsk"], ["keygen", "--key", "{}/key"]])
def test_a_reader_that_left_gets_no_traceback(arguments, tmp_path):
    read, write = os.pipe()
    os.close(read)
    try:
        result = run(
            *(each.format(tmp_path) for each in arguments),
            stdout=write,
            stderr=subprocess.PIPE,
            capture_output=False,
        )
    finally:
        os.close(write)

    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("genpsk",), ("--help",), ("--version",), ("ping", "--help")])
def test_a_result_that_cannot_be_written_gets_a_sentence(arguments):
    with open("/dev/full", "w") as full:
        result = run(*arguments, stdout=full, stderr=subprocess.PIPE, capture_output=False)

    assert (result.returncode, result.stderr) == (
        1,
        "Error: the result cannot be written: No space left on device\n",
    )


def test_ctrl_c_ends_a_command_quietly(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "overlay", "pubkey", "--key", "-"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        wait_until_reading(process.pid)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()

    assert (process.returncode, output, errors) == (130, b"", b"")


# A sitecustomize: the signal comes while the module is being loaded.
SIGNALLED = """
import os, signal, sys

class Signal:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{signal})

sys.meta_path.insert(0, Signal())
"""


def run_signalled(directory, module, signal_name, *arguments):
    """Run a command that gets a signal while it loads *module*."""
    (directory / "sitecustomize.py").write_text(SIGNALLED.format(module=module, signal=signal_name))
    return subprocess.run(
        [sys.executable, "-m", "overlay", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("module", ["overlay.cli", "click", "overlay.cli.status"])
def test_ctrl_c_is_quiet_while_the_command_is_being_loaded(tmp_path, module):
    result = run_signalled(tmp_path, module, "SIGINT", "--help")

    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


@pytest.mark.slow
def test_a_reload_that_is_asked_for_while_the_agent_is_being_loaded_does_not_end_it(tmp_path):
    result = run_signalled(tmp_path, "overlay.agent", "SIGHUP", "up", "--peers", "/nonexistent/peers.toml")

    assert result.returncode > 0
    assert "Error: " in result.stderr


def wait_until_reading(pid):
    """Wait until *pid* sleeps in a read of its stdin."""
    while Path(f"/proc/{pid}/syscall").read_text().split()[:2] != ["0", "0x0"]:
        time.sleep(0.01)


def complete(surroundings, *arguments):
    shell = ShellComplete(main, {"obj": surroundings}, "overlay", "_OVERLAY_COMPLETE")
    return [item.value for item in shell.get_completions(list(arguments[:-1]), arguments[-1])]


def test_interfaces_complete_from_the_agents_that_run_here(surroundings, agent):
    directory = surroundings.control_directory
    with FakeAgent(control_path("wan1", directory)):
        (directory / "elsewhere.4026999999.sock").touch()

        assert complete(surroundings, "status", "--interface", "") == ["overlay0", "wan1"]
        assert complete(surroundings, "status", "--interface", "w") == ["wan1"]


def test_peers_complete_from_the_agent(surroundings, agent):
    agent.answers["peer"] = {
        "ok": False,
        "kind": "unknown_peer",
        "error": "no",
        "known": ["rome", "tokyo", "torino"],
    }

    assert complete(surroundings, "ping", "to") == ["tokyo", "torino"]
    assert agent.requests == [{"op": "peer", "name": ""}]


def test_peers_complete_from_the_agent_of_the_interface(surroundings, agent):
    with FakeAgent(control_path("wan1", surroundings.control_directory)) as other:
        other.answers["peer"] = {"ok": False, "known": ["berlin"]}

        assert complete(surroundings, "ping", "--interface", "wan1", "") == ["berlin"]


def test_completion_without_an_agent_is_silent(surroundings, capfd):
    assert complete(surroundings, "ping", "") == []
    assert complete(surroundings, "status", "--interface", "") == []
    assert capfd.readouterr() == ("", "")


def test_a_shell_gets_its_completion():
    env = os.environ | {"_OVERLAY_COMPLETE": "bash_source"}

    result = subprocess.run(
        [sys.executable, "-c", "from overlay.cli import main; main(prog_name='overlay')"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "complete -o nosort -F _overlay_completion overlay" in result.stdout


@pytest.mark.parametrize("arguments", [("status",), ("ping", "tokyo")])
def test_where_a_killed_agent_left_routes_that_refuse_packets_the_remedies_are_named(surroundings, arguments):
    surroundings = dataclasses.replace(surroundings, count_guards=lambda interface: 2)

    result = CliRunner().invoke(main, arguments, obj=surroundings)

    assert result.exit_code == 1
    assert result.stderr == (
        "Error: no overlay agent runs for overlay0 here: start it with `overlay up --peers FILE`; one that was killed "
        "or ended with an error left routes that reject all packets for the overlay, so that none leaves unencrypted: "
        "`overlay up` takes them over, `overlay down` removes them\n"
    )


def test_routes_that_cannot_be_read_hide_no_answer(surroundings):
    def refuse(interface):
        raise HostError("no")

    result = CliRunner().invoke(main, ["status"], obj=dataclasses.replace(surroundings, count_guards=refuse))

    assert result.stderr == (
        "Error: no overlay agent runs for overlay0 here: start it with `overlay up --peers FILE`\n"
    )
