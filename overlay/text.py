"""Text from outside, made safe for a terminal and a log.

Those who write names in a peers file, DNS names, or texts of a forwarder or an agent must not be able to move the
cursor, set a title, hide a line or fake one.  Everything that this program prints or logs goes through printable().
"""

from __future__ import annotations

# Ours
LINE_BREAK = "\n"


def printable(text: str, *, keeps_lines: bool = False) -> str:
    r"""Return *text* with an escape sequence, such as ``\x1b``, for each invisible character.

    These are control and format characters (including those that change the direction of writing), line breaks, spaces
    other than the plain one, surrogates, and characters that Unicode has not assigned.  With *keeps_lines* line feeds
    stay.
    """
    if text.isprintable():
        return text
    if keeps_lines:
        return LINE_BREAK.join(map(printable, text.split(LINE_BREAK)))
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
