"""Names of hosts, which wg-quick files have only in comments, in the forms that people and programs use.

# Name = paris        # friendly_name=paris        # name: paris            wg-meta, Prometheus' exporter, people
### Client paris      # BEGIN_PEER paris           ### begin paris ###      scripts that install a server
# paris               above [Peer], beside it or below it                   people
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

# Ours
LONGEST = 63  # characters of a peer's name, see peers.peer.PEER_NAME
MOST_WORDS = 4  # of a comment that counts as a name
GENERIC = re.compile(r"wg\d*|wireguard\d*|client\d*|peer\d*|config|-")
_FIELD = re.compile(
    r"(?:friendly[_ -]?name|name|client|peer|user|device|host|hostname)\s*[=:]\s*(\S.*)", re.IGNORECASE
)
_MARK = re.compile(r"(?:begin[_ -]?peer|begin|client|peer)\s+(\S.*)", re.IGNORECASE)
_OTHER = re.compile(r"[A-Za-z]+\s*[=:]|end\b|end_|\W*$", re.IGNORECASE)
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


def name_from(text: str) -> str | None:
    """Return *text* as a valid name of a peer; None if no valid character is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    name = _UNFIT.sub("-", plain.replace("'", "").strip()).strip("-._")[:LONGEST].rstrip("-._")
    return name or None


def is_generic(name: str) -> bool:
    """Return whether *name* is a file name that many hosts use, such as ``wg0``."""
    return GENERIC.fullmatch(name) is not None


@dataclass(slots=True)
class Comments:
    """The comments of one section: those *above* it, *beside* its header, and *inside*.

    None stands for a blank line.
    """

    above: list[str | None] = field(default_factory=list)
    beside: str = ""
    inside: list[str | None] = field(default_factory=list)

    def name(self, *, is_plain: bool) -> str | None:
        """Return the name in the comments; if *is_plain*, a comment that consists only of a name counts, too."""
        written = [each for each in (*self.inside, self.beside, *reversed(self.above)) if each]
        for pattern in (_FIELD, _MARK):
            for each in written:
                match = pattern.fullmatch(_bare(each))
                if match is not None and (name := name_from(match[1])) is not None:
                    return name
        if not is_plain:
            return None
        near = (self.beside, (self.above or [None])[-1], (self.inside or [None])[0])
        return next((name for each in near if each and (name := _plain_name(each)) is not None), None)


def _plain_name(comment: str) -> str | None:
    bare = _bare(comment)
    if _OTHER.match(bare) or len(bare.split()) > MOST_WORDS or len(bare) > LONGEST:
        return None
    return name_from(bare)


def _bare(comment: str) -> str:
    return comment.strip().strip("#+!-=* \t").strip()
