"""Names that a member of a network may write to attack whoever reads them."""

from __future__ import annotations

NAMES = {
    "line": "paris\nERROR forged",
    "carriage return": "paris\rtokyo",
    "escape sequence": "\x1b[2J\x1b]0;root\x07",
    "control of one byte": "\x9b31m",
    "null": "par\x00is",
    "bidirectional override": "par\u202esi",
    "isolate": "\u2066paris\u2069",
    "invisible": "par\u200bis",
    "line separator": "par\u2028is",
    "markup": '<img src=x onerror="alert(1)"><script>alert(1)</script>',
    "markup of the terminal's library": "[red]paris[/red][@click=app.quit]x[/]",
    "quotes": "par\"is', \\",
    "end of a section": 'x"\n[peers.forged]\npublic_key = "',
    "shell": "$(reboot);`reboot`|&",
    "path": "../../etc/passwd",
    "format": "%s%n{0}",
    "space": "paris tokyo",
    "none": "",
    "long": "p" * 10_000,
}
