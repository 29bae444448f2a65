"""What is imported from other programs: keepalived's configuration and rules of ipvsadm."""

from __future__ import annotations

from pathlib import Path

from overlay.importing.places import Remarks, UnreadableError
from overlay.services.importing.composing import compose
from overlay.services.importing.keepalived import read_keepalived
from overlay.services.importing.lines import File
from overlay.services.importing.rules import read_rules
from peers import toml

EXAMPLES = Path(__file__).parents[2] / "overlay/services/importing/examples"


def _compose(read):
    """Everything that is imported gives a valid peers file, or nothing."""
    remarks = Remarks()
    try:
        plan = read(remarks)
    except UnreadableError:
        return
    text = compose(plan, remarks, "imported", ("lb1", "lb2"))
    if text:
        toml.parse(text, Path("imported.toml"))
    assert all("\n" not in str(each) for each in remarks.all())


def keepalived(data):
    """An included file is the one that includes it."""
    file = File("k.conf", data.decode(errors="replace"))
    once = [file]
    _compose(
        lambda remarks: read_keepalived(
            file, lambda _pattern, _beside: [once.pop()] if once else [], remarks, "a"
        )
    )


def rules(data):
    file = File("rules", data.decode(errors="replace"))
    _compose(lambda remarks: read_rules(file, lambda _name, _protocol: None, remarks))


def keepalived_seeds():
    return (path.read_bytes() for path in sorted(EXAMPLES.glob("*.conf")))


def rules_seeds():
    return (path.read_bytes() for path in sorted(EXAMPLES.glob("*.rules")))
