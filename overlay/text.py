"""Text from outside, made fit for a terminal and a log.

Names in a peers file, DNS names, what the forwarder or an agent says: anyone who writes such text must not move the
cursor, set a title, hide a line or fake another.  Whatever this program prints or logs goes through printable().
"""

from __future__ import annotations

# Ours
LINE_BREAK = "\n"


def printable(text: str, *, keeps_lines: bool = False) -> str:
    r"""Return *text* with an escape sequence, as in ``\x1b``, for each character that is not to be seen.

    These are control and format characters (those that change the direction of writing among them), line breaks,
    spaces other than the plain one, surrogates, and what Unicode has not assigned.  With *keeps_lines* line feeds stay.
    """
    if text.isprintable():
        return text
    if keeps_lines:
        return LINE_BREAK.join(map(printable, text.split(LINE_BREAK)))
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
