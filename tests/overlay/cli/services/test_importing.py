"""The command line of imports.  Examples are whole files, each with the output and the remarks that it has."""

from pathlib import Path

import pytest

from peers import toml
from tests.overlay.services.importing.test_owners import PEERS

EXAMPLES = Path(__file__).parents[2] / "services/importing/examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.toml"))
WEB = "virtual_server 10.9.9.9 80 {\nlb_kind TUN\nprotocol TCP\nreal_server 10.0.0.2 80 {\n}\n}\n"
RULES = "-A -t 10.9.9.9:80\n-a -t 10.9.9.9:80 -r 10.0.0.2 -i\n"


@pytest.fixture
def run(overlay, tmp_path, monkeypatch):
    """Run the command in a directory of its own; a text in place of a file is written to one."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **files):
        for name, text in files.items():
            Path(name).write_text(text)
        return overlay("services", "import", *arguments)

    return run


@pytest.mark.parametrize("name", NAMES)
def test_example_has_its_output_and_remarks(name, overlay, monkeypatch):
    monkeypatch.chdir(EXAMPLES)
    source = ["--ipvsadm", f"{name}.rules"] if name == "ipvsadm" else [f"{name}.conf", "--config-id", "dir-a"]
    remarks = (EXAMPLES / f"{name}.remarks").read_text()

    result = overlay("services", "import", *source, "--director", "lb1", "--director", "lb2")

    assert result.stdout == (EXAMPLES / f"{name}.toml").read_text()
    assert result.stderr == remarks
    assert result.exit_code == (1 if remarks else 0)


@pytest.mark.parametrize("name", NAMES)
def test_output_of_an_example_is_accepted_by_check(name, overlay):
    result = overlay("check", "--peers", EXAMPLES / f"{name}.toml", "--json")

    assert result.exit_code == 0


@pytest.mark.parametrize("location", ["peers.toml", "file:peers.toml"])
def test_output_is_accepted_behind_its_peers_file(location, run):
    result = run("k.conf", "--peers", location, "--director", "a", **{"k.conf": WEB, "peers.toml": PEERS})

    table = toml.parse(PEERS + result.stdout, Path("peers.toml"))
    assert table.services["10.9.9.9-tcp-80"].directors == ("a",)


@pytest.mark.parametrize("option", ["--ipvsadm", None])
def test_file_may_be_standard_input(option, overlay):
    arguments = [*([option] if option else []), "-"]

    result = overlay("services", "import", *arguments, input=RULES if option else WEB)

    assert result.exit_code == 0
    assert "[services." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "files", "sentence"),
    [
        ([], {}, "name one file: a keepalived.conf, or the rules of ipvsadm with --ipvsadm"),
        (["k.conf", "--ipvsadm", "r"], {}, "name one file"),
        (["nowhere.conf"], {}, "nowhere.conf: the file does not exist; name the one to import"),
        (["."], {}, ".: this is a directory; name a file in it"),
        (["/dev/null"], {}, "/dev/null: it is a device"),
        (["k.conf"], {"k.conf": "}\n"}, "k.conf:1: this } closes nothing"),
        (["k.conf"], {"k.conf": "include k.conf\n"}, "k.conf:1: files and repetitions are nested"),
        (["--ipvsadm", "r"], {"r": "hello\n"}, "r:1: has no command"),
        (
            ["--ipvsadm", "r", "--config-id", "x"],
            {"r": RULES},
            "--config-id is for keepalived's configuration",
        ),
        (["k.conf", "--director", "a b"], {"k.conf": WEB}, "--director 'a b' is not the name of a peer"),
        (["k.conf", "--director", "a", "--director", "a"], {"k.conf": WEB}, "--director a is given twice"),
        (["k.conf", "--peers", "p"], {"k.conf": WEB}, "p: there is no such file"),
        (["k.conf", "--peers", "p"], {"k.conf": WEB, "p": "[network\n"}, "p, line 1: this is not TOML"),
        (
            ["k.conf", "--peers", "p", "--director", "paris"],
            {"k.conf": WEB, "p": PEERS},
            "--director paris: p has no such peer; the peers are a, b, c, d",
        ),
        (
            ["k.conf", "--peers", "p"],
            {
                "k.conf": WEB,
                "p": 'peers = { a = { encapsulation = "ipip", endpoint = "a", address = "10.0.0.1" } }\n[network]\nprefix = "10.0.0.0/8"\n',
            },
            "no section can follow p",
        ),
    ],
)
def test_what_cannot_be_read_ends_with_one_sentence_and_nothing_else(run, arguments, files, sentence):
    result = run(*arguments, **files)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {sentence}")
    assert result.stderr.count("\n") == 1


def test_nothing_is_printed_where_no_service_is_left(run):
    result = run("k.conf", **{"k.conf": WEB.replace("TUN", "NAT")})

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1] == "k.conf: no service could be carried over"


def test_names_that_would_move_the_cursor_are_shown_as_escapes(run):
    result = run("k.conf", **{"k.conf": WEB + "\x1b[2J odd\n"})

    assert "\x1b" not in result.stderr
    assert r"\x1b[2J odd" in result.stderr


def test_pattern_may_have_alternatives(run):
    files = {"a.inc": "delay_loop 9\n", "b.inc": "lb_algo rr\n"}

    result = run(
        "k.conf", **files, **{"k.conf": WEB.replace("protocol TCP", "protocol TCP\ninclude {a,b,c}.inc")}
    )

    assert 'scheduler = "rr"' in result.stdout
    assert result.exit_code == 0
