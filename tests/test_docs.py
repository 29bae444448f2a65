"""The documentation is correct in its links, paths, commands, options, keys and examples.

tests/overlay/test_reasons.py compares docs/drops.md with the registry that it is generated from.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from overlay.cli import main
from overlay.services.schedulers import SCHEDULERS
from peers import toml
from peers.encapsulation import PORTS
from peers.errors import KeyProblem, TableError
from peers.kinds import KINDS
from peers.peer import Network
from peers.services.keys import KINDS as CHECK_KINDS
from peers.services.keys import SERVER
from peers.services.sections import CHECKS, SERVICES, VRRPS
from peers.stores.etcd.document import read_document
from peers.toml_section import Section
from tests.test_imports import ROOT

README = ROOT / "README.md"
COMMANDS = ROOT / "docs" / "commands.md"
KEYS = ROOT / "docs" / "peers-toml.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
README_LINES = 150

HELP = {"-h", "--help"}
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED_LINK = re.compile(r"\[([\w./-]+\.md)\]\(([^)\s#]+)")
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
CALL = re.compile(r"(?<![\w./-])(?:/\S+/)?overlay (?=[a-z]|-)([^|#&;)`]*)")
SCRIPT_CALL = re.compile(r"(?<![\w./-])scripts/(\w+)([^|#&;)`]*)")
TREE_PATH = re.compile(r"(?<![\w./-])(?:overlay|peers|scripts|tests|docs)/[\w./-]*\w")
RANGE = re.compile(r"^(\d+) to (\d+)")
BOUNDS = re.compile(r"^(\d+(?:\.\d+)?) to (\d+)")  # with a fraction or not
DEFAULT = re.compile(r"""`?("[^"]*"|[\d.]+|true|false)`?(?:$|:)""")


@dataclass(frozen=True)
class Block:
    """A fenced block: the language after its fence, and its lines."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        """Return its position, as the name of a test."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page):
    text = page.read_text()
    for match in FENCE.finditer(text):
        body = re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE)
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[2], body)


def prose(page):
    """Return the text of *page* without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def code(page):
    """Return each piece of code on *page*: the spans, and the lines of shell blocks."""
    spans = [span.replace("\\|", "|") for span in SPAN.findall(prose(page))]
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines()]
    return spans + lines


def anchors(page):
    """Return the names that GitHub gives to the headings of *page*."""
    names = []
    for _, title in HEADING.findall(prose(page)):
        plain = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        earlier = sum(name == plain or name.startswith(f"{plain}-") for name in names)
        names.append(f"{plain}-{earlier}" if plain in names else plain)
    return names


def section(page, title):
    """Return the text of *page* below the heading *title*, without that of its subsections."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{page.relative_to(ROOT)} has no heading {title!r}"
    return found[1]


def rows(text):
    """Return the cells of each row of the tables in *text*, without the heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    heads = {id(head) for head, below in itertools.pairwise(cells) if below[0] == "---"}
    return [row for row in cells if id(row) not in heads and row[0] != "---"]


def parametrize_pages(function):
    return pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])(
        function
    )


# Links, paths and names


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= README_LINES


@parametrize_pages
def test_every_link_leads_to_a_file_and_a_heading(page):
    broken = []
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert not broken


@parametrize_pages
def test_a_link_that_is_named_by_a_file_leads_to_it(page):
    wrong = [text for text, path in NAMED_LINK.findall(prose(page)) if Path(text).name != Path(path).name]

    assert not wrong


def test_every_page_is_linked_from_the_readme():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in LINK.findall(prose(README))}

    assert set(PAGES) - {README} <= linked


@parametrize_pages
def test_every_path_in_the_tree_is_there(page):
    text = " ".join(code(page))
    missing = {path for path in TREE_PATH.findall(text) if not (ROOT / path).exists()}

    assert not missing


def test_every_entry_of_the_map_is_there():
    (tree,) = (block.text for block in blocks(README) if block.language == "text")
    missing, top = [], ""
    for line in tree.splitlines():
        entry = line.split()[0]
        if line.startswith("   "):
            continue  # a continued description
        top = entry if not line.startswith(" ") else top
        path = ROOT / entry if not line.startswith(" ") else ROOT / top / entry
        if not path.exists():
            missing.append(line)

    assert not missing


@pytest.fixture(scope="module")
def sources():
    """The names of all files of the code, and the text of all but this one."""
    paths = [path for name in ("overlay", "peers", "scripts", "tests") for path in (ROOT / name).rglob("*")]
    files = [path for path in paths if path.is_file() and path.suffix in {"", ".py", ".toml"}]
    texts = (path.read_text(errors="replace") for path in files if path != Path(__file__))
    return "\n".join([*map(str, files), *texts])


@parametrize_pages
def test_every_name_with_an_underscore_is_one_that_the_code_knows(page, sources):
    """Keys, fields of the JSON, drop reasons, settings of the kernel: renamed ones may not remain here."""
    names = {name for span in SPAN.findall(prose(page)) for name in re.findall(r"[a-z]+(?:_[a-z]+)+", span)}

    assert not {name for name in names if name not in sources}


# Commands


def commands(group=main, before=""):
    """Yield all commands by their names after ``overlay``, those of groups with the name of their group."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"{before}{name}", command


ALL = dict(commands())


def options(command):
    """Return the options of *command* by their spellings."""
    return {
        name: option for option in command.params if isinstance(option, click.Option) for name in option.opts
    }


@parametrize_pages
def test_every_command_and_option_that_is_named_is_there(page):
    unknown = []
    for piece in code(page):
        for call in CALL.findall(piece):
            name, *words = shlex.split(call, comments=True)
            command = main if name.startswith("-") else main.commands.get(name)
            while (
                isinstance(command, click.Group)
                and command is not main
                and words
                and words[0] in command.commands
            ):
                command = command.commands[words.pop(0)]
            if isinstance(command, click.Group) and "list" in command.commands:
                command = command.commands["list"]  # may be omitted
            if command is None:
                unknown.append(f"overlay {name}")
                continue
            known = options(command).keys() | HELP
            if command is ALL["service install"]:
                known |= options(ALL["up"]).keys()  # it accepts those, too
            given = [word for word in (name, *words) if re.match(r"--?[a-zA-Z]", word)]
            unknown += [f"overlay {name} {word}" for word in given if word not in known]
        if re.match(r"--?[a-zA-Z]", piece):
            everywhere = HELP.union(options(main), *map(options, ALL.values()))
            unknown += [piece] if piece.replace(",", " ").split()[0] not in everywhere else []

    assert not unknown


@parametrize_pages
def test_every_script_and_option_of_it_that_is_named_is_there(page):
    unknown = []
    for piece in code(page):
        for name, rest in SCRIPT_CALL.findall(piece):
            texts = [path.read_text() for path in (ROOT / "scripts").glob(f"{name}*") if path.is_file()]
            package = {"bench": "benchmarks", "demo": "demos"}.get(name)
            if package is not None:
                texts += [path.read_text() for path in (ROOT / "scripts" / package).rglob("*.py")]
            given = [word for word in rest.split() if word.startswith("--") and word not in HELP]
            unknown += [f"scripts/{name} {word}" for word in given if word not in "\n".join(texts)]

    assert not unknown


@pytest.mark.parametrize("name", ALL)
def test_every_command_and_each_of_its_options_is_documented(name):
    table = rows(section(COMMANDS, f"`overlay {name}`"))
    documented = {span.split()[0]: row for row in table for span in SPAN.findall(row[0]) if span[0] == "-"}
    known = options(ALL[name])

    assert documented.keys() == known.keys()
    for spelling, option in known.items():
        default = documented[spelling][2]
        assert (default == "required") == option.required, spelling
        if isinstance(option.default, int | float | str | Path) and not option.is_flag:
            written = f"{option.default:g}" if isinstance(option.default, float) else str(option.default)
            assert default.strip("`") == written, spelling


def test_options_of_all_commands_are_documented():
    spans = SPAN.findall(section(COMMANDS, "What all commands share"))

    assert {f"overlay {name}" if name == "--version" else name for name in options(main)} | HELP <= set(spans)


# Keys


def key_rows(title):
    return {key: row for row in rows(section(KEYS, title)) for key in SPAN.findall(row[0])}


@pytest.mark.parametrize(
    ("title", "known"),
    [("`[network]`", toml.NETWORK_KEYS), *((f"`[{kind.name}.NAME]`", kind.names) for kind in KINDS)],
)
def test_every_key_is_documented_and_every_documented_key_is_there(title, known):
    assert sorted(key_rows(title)) == sorted(known)


@parametrize_pages
def test_every_key_that_is_given_a_value_is_there(page):
    """In the prose; text in an example is read as a peers file."""
    named = {match[1] for span in SPAN.findall(prose(page)) if (match := re.match(r"([a-z_]+) = ", span))}

    assert named <= {*toml.NETWORK_KEYS, *(key for kind in KINDS for key in kind.names)}


def read(table, key, value):
    """Read a peers file in which *key* of *table*, the network or a peer, is *value*."""
    lines = {"network": "", "peer": ""} | {table: f"{key} = {value}"}
    text = f"""
        [network]
        prefix = "10.244.0.0/16"
        encapsulation = "{"gre" if key.startswith("gre") else "wireguard"}"
        {lines["network"]}
        [peers.paris]
        public_key = "{"A" * 42}E="
        endpoint = "192.0.2.10"
        address = "10.244.0.1"
        {lines["peer"]}
        """
    return toml.parse(text, Path("peers.toml"))


@pytest.mark.parametrize(
    ("table", "key", "low", "high"),
    [
        (table, key, *map(int, match.groups()))
        for table, title in (("network", "`[network]`"), ("peer", "`[peers.NAME]`"))
        for key, row in key_rows(title).items()
        if (match := RANGE.match(row[2]))
    ],
)
def test_documented_bounds_are_those_that_are_accepted(table, key, low, high):
    read(table, key, low)
    read(table, key, high)
    for beyond in (low - 1, high + 1):
        with pytest.raises(TableError):
            read(table, key, beyond)


SERVICE_KINDS = (SERVICES, CHECKS, VRRPS)
NARROWED = {"interval"}  # by another key


def read_section(kind, key, *value):
    """Read a section of *kind* in which *key* is *value*, or is left out."""
    needed = {"address": ["192.0.2.1", "2001:db8::1"]}
    if key.startswith("persistence_"):
        needed["persistence"] = 1
    if kind is CHECKS:
        of = next((name for name, keys in CHECK_KINDS.items() if key in {row.name for row in keys}), "tcp")
        needed = {"kind": of, "command": "/bin/true"} if of == "script" else {"kind": of}
    if kind is VRRPS:
        needed = {"router": 1, "interface": "eth0"}
    needed.update((key, each) for each in value)
    return kind.read(Section((kind.name,), {"x": needed}), "x", Network(()), None)


@pytest.mark.parametrize(
    ("kind", "key", "low", "high"),
    [
        (kind, key, *(json.loads(each) for each in match.groups()))
        for kind in SERVICE_KINDS
        for key, row in key_rows(f"`[{kind.name}.NAME]`").items()
        if key not in NARROWED and (match := BOUNDS.match(row[2]))
    ],
)
def test_documented_bounds_of_services_are_those_that_are_accepted(kind, key, low, high):
    read_section(kind, key, low)
    read_section(kind, key, high)
    for beyond in (low - 1, high + 1):
        with pytest.raises(KeyProblem):
            read_section(kind, key, beyond)


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [
        (key, *map(int, match.groups()))
        for key, row in key_rows("Entries of servers").items()
        if (match := RANGE.match(row[2])) and key != "name"
    ],
)
def test_documented_bounds_of_servers_are_those_that_are_accepted(key, low, high):
    def read_server(value):
        around = {"upper_threshold": 4_000_000} if key == "lower_threshold" else {}
        read_section(SERVICES, "servers", [{"peer": "a", key: value, **around}])

    read_server(low)
    read_server(high)
    for beyond in (low - 1, high + 1):
        with pytest.raises(KeyProblem):
            read_server(beyond)


def test_every_key_of_an_entry_of_servers_is_documented():
    assert sorted(key_rows("Entries of servers")) == sorted(key.name for key in SERVER)


@pytest.mark.parametrize(
    ("kind", "key", "default"),
    [
        (kind, key, tomllib.loads(f"x = {match[1]}")["x"])
        for kind in SERVICE_KINDS
        for key, row in key_rows(f"`[{kind.name}.NAME]`").items()
        if (match := DEFAULT.match(row[3]))
    ],
)
def test_documented_defaults_of_services_are_those_that_are_taken(kind, key, default):
    assert read_section(kind, key, default) == read_section(kind, key)


@pytest.mark.parametrize(("key", "row"), key_rows("`[network]`").items())
def test_documented_defaults_are_those_that_are_taken(key, row):
    ports = {port.key: port.default for port in PORTS.values()}
    default, documented = ports.get(key, getattr(Network(()), key, None)), row[3].strip('`"')
    if re.fullmatch(r"\d+|true|false|[a-z]+", documented) and documented not in {"required", "none"}:
        assert str(default or False if documented == "false" else default).lower() == documented
    elif key != "prefix":
        assert default is None


# Examples


EXAMPLES = [block for page in PAGES for block in blocks(page) if block.language == "toml"]
AROUND = """
[network]
prefix = "10.244.0.0/16"

[peers.around]
public_key = "BY1X6q7LmSThjaSdMPmTs7LTkI971d+0dxdtL8ZfTH4="
endpoint = "192.0.2.99"
address = "10.244.99.1"
"""


def test_every_scheduler_is_documented_as_it_describes_itself():
    table = re.findall(r"^\| `(\w+)` \| (.*) \|$", (ROOT / "docs/services.md").read_text(), re.MULTILINE)
    assert {name: kind.sentence for name, kind in SCHEDULERS.items()}.items() <= dict(table).items()


def test_there_are_examples_of_peers_files():
    assert {block.page for block in EXAMPLES} >= {README, KEYS}


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_every_example_of_a_peers_file_is_accepted_by_check(block, tmp_path):
    peers = tmp_path / "peers.toml"
    peers.write_text(block.text if "[network]" in block.text else AROUND + block.text)

    result = CliRunner().invoke(main, ["check", "--peers", str(peers), "--key", str(tmp_path / "none")])

    assert result.exit_code == 0, result.output


def test_the_example_of_leases_is_accepted():
    page = ROOT / "docs/etcd.md"
    (leases,) = (block.text for block in blocks(page) if block.text.startswith("[leases]"))
    network = '[network]\nprefix = ["10.244.0.0/16", "fd00:244::/48"]\n\n'

    assert read_document(network + leases, page).leases == read_document(network, page).leases


@parametrize_pages
def test_every_example_has_a_language(page):
    assert not [
        str(block)
        for block in blocks(page)
        if block.language not in {"sh", "toml", "ini", "json", "text", "python"}
    ]
