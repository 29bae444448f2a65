"""Lines of keepalived's configuration.  What is expected was seen with keepalived 2.2.7, or is in its lib/parser.c."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.importing.places import Remarks, UnreadableError
from overlay.services.importing.lines import MOST_LINES, File, read_lines
from tests.overlay.services.importing.reading import nothing, refusal


def read(text, config_id=None, include=nothing, remarks=None):
    found = read_lines(File("k.conf", text), include, Remarks() if remarks is None else remarks, config_id)
    return [line.text for line in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a b\t\n\n \n", ["a b"]),
        ("a # b\n# c\n! d\ne!f\n", ["a", "e"]),
        ('path "/a#b!c" # d\n', ['path "/a#b!c"']),
        ("a\\#b\\!c\n", ["a#b!c"]),
        ("# it's \"\nb\n", ["b"]),
        ("# ends with \\\nb\n", ["b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("\ufeffa\n", ["a"]),
        ("a {\n}\n", ["a", "{", "}"]),
        ("a{b{c}}d\n", ["a", "{", "b", "{", "c", "}", "}", "d"]),
        ('a "{}" {\n', ['a "{}"', "{"]),
        ("}{ }\n", ["}", "{", "}"]),
    ],
)
def test_comments_blanks_and_braces(text, expected):
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A=1\nx $A ${A}2 $A,$A $AB\n", ["x 1 12 1,1 $AB"]),
        ("$A=1\n$A=2\n$A\n", ["2"]),
        ("$A=\nx$A y\n", ["x y"]),
        ("$A=$B\n$B=1\n$A\n", ["1"]),
        ("$A =1\n", ["$A =1"]),
        ("x $A $1 $\n", ["x $A $1 $"]),
        ("$A=a \\\n b \\\n c\n1 $A\n2\n", ["1 a", "b", "c", "2"]),
        ("$A=a \\\n b \\\n\nx $A\n", ["x a", "b"]),
        ("$A=a \\\n b\nx $A y\n", ["x $A y"]),  # one of several lines has to end the line
        ("$A=x { \\\n y \\\n }\n$A\n", ["x", "{", "y", "}"]),
        ("a$_HASH b\n", ["a"]),
        ("a ${_BANG}\n", ["a"]),  # what is put in is looked at again for comments
    ],
)
def test_variables(text, expected):
    assert read(text) == expected


@pytest.mark.parametrize(
    ("config_id", "expected"), [("one", ["a", "c", "d"]), ("two", ["b", "c", "d"]), (None, ["b", "d"])]
)
def test_conditions_hold_for_a_configuration_identifier(config_id, expected):
    text = "@one a\n@^one b\n@one c\n@two c\n@one\n$A=@^three\nd\n"

    assert read(text, config_id) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("~SEQ(A, 3) x $A\n", ["x 1", "x 2", "x 3"]),
        ("~SEQ(A, -2) x $A\n", ["x -1", "x -2"]),
        ("~SEQ(A, 0) x $A\n", ["x 1", "x 0"]),
        ("~SEQ(A, 3, 1) x $A\n", ["x 3", "x 2", "x 1"]),
        ("~SEQ(A, 1, 2, 6) x $A\n", ["x 1", "x 3", "x 5"]),
        ("~SEQ(A, 010, 012) x $A\n", ["x 8", "x 9", "x 10"]),
        ("~SEQx(A, 0x9, 0xb) x $A\n", ["x 9", "x a", "x b"]),
        ("$N=2\n~SEQ(A, $N) x $A\n", ["x 1", "x 2"]),
        ("~SEQ(A, 2) ~SEQ(B, 2) x ${A}${B}\n", ["x 11", "x 12", "x 21", "x 22"]),
        ("~SEQ(A, 2) x { $A }\n", ["x", "{", "1", "}", "x", "{", "2", "}"]),
        ("~LST(A, p, q) x $A\n", ["x p", "x q"]),
        ("~LST({A, B}, {p, 1}, {q}) x $A ${B} ${A}${B}\n", ["x p 1 p1", "x q  q"]),
        ("~SEQ(A, 2) @one x\n", []),
    ],
)
def test_repetitions(text, expected):
    assert read(text) == expected


def test_files_are_included_where_they_are_named_and_relative_to_each_other():
    files = {("conf.d/*", "k.conf"): ["conf.d/a", "conf.d/b"], ("c", "conf.d/a"): ["conf.d/c"]}
    texts = {"conf.d/a": "a\ninclude c\nd\n", "conf.d/b": "b", "conf.d/c": "c"}

    def include(pattern, beside):
        return [File(path, texts[path]) for path in files[pattern, beside]]

    found = list(read_lines(File("k.conf", "1\ninclude conf.d/*\n2\n"), include, Remarks()))

    assert [(line.text, str(line.place)) for line in found] == [
        ("1", "k.conf:1"),
        ("a", "conf.d/a:1"),
        ("c", "conf.d/c:1"),
        ("d", "conf.d/a:3"),
        ("b", "conf.d/b:1"),
        ("2", "k.conf:3"),
    ]


def test_included_file_that_does_not_exist_is_named():
    remarks = Remarks()

    assert read("a\ninclude nowhere\nb\n", remarks=remarks) == ["a", "b"]
    assert [str(each) for each in remarks.all()] == [
        "k.conf:2: include nowhere: the file does not exist, so its content is missing here"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('a\nb "c\n', 'k.conf:2: a " is not closed'),
        ("a\0b\n", "k.conf:1: contains a null character"),
        ("includer nowhere\n", "k.conf:1: includer nowhere names no file"),
        ("~SEQ(A) x\n", "k.conf:1: this is not a repetition"),
        ("~SEQ(A, b) x\n", "k.conf:1: the limits of this ~SEQ are not numbers"),
        ("~SEQ(A, 1, 0, 2) x\n", "k.conf:1: this ~SEQ never ends"),
        ("~SEQ(A, 1, 9999999999) x\n", f"k.conf:1: this ~SEQ has more than {MOST_LINES} numbers"),
        ("~SEQ(A, 999) ~SEQ(B, 999) x\n", f"k.conf:1: the repetitions make more than {MOST_LINES} lines"),
        ("~SEQx(A, -1, 2) x\n", "k.conf:1: ~SEQx has no negative numbers"),
        ("~LST({A}, {1, 2}) x\n", "k.conf:1: this ~LST has a set with more values than names"),
        ("$A=${A}\n$A\n", "k.conf:2: has more than 256 variables, or one that contains itself"),
        ("$A=${A}${A}x\n$A\n", "k.conf:2: has more than"),
        ("$A=${B}${B}\n$B=${C}${C}\n$C=" + "x" * 9000 + "\n$A\n", "k.conf:4: has more than 16384 characters"),
        ("x $_RANDOM\n", "k.conf:1: $_RANDOM is another number at each start"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text, problem):
    error = refusal(UnreadableError, read, text)

    assert str(error).startswith(problem)


def test_file_that_includes_itself_is_refusal():
    def include(pattern, beside):
        return [File(pattern, "include k.conf\n")]

    assert "deep" in str(refusal(UnreadableError, read, "include k.conf\n", include=include))


PIECES = st.sampled_from(
    [
        *"{}\"'#!\\$@~\n\n  \t,()",
        "$A",
        "$A=",
        "${A}",
        "~SEQ(A, 1, 3) ",
        "~LST(A,b,c) ",
        "@one ",
        "@^one ",
        "include x",
        "a",
        "1",
    ]
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_text_is_lines_or_refusal(text):
    try:
        found = read(text, "one")
    except UnreadableError:
        return

    assert all(line and line == line.strip(" \t") for line in found)
    assert all(line in {"{", "}"} or '"' in line or not set(line) & set("{}") for line in found)
