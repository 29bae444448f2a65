"""Compare the overlay with others: hosts with containers behind them, in network namespaces of this machine.

    scripts/bench                             # every contender, hosts and containers, 5 interleaved rounds
    scripts/bench --rounds 9 --contenders ours,wireguard-go --places containers --json bench.json --plot plots
    scripts/bench --install --underlay segmented
    scripts/bench parts                       # single steps, without a network

Other programs run on the machine, too, so figures are medians of rounds in which the contenders take turns, and only
their ratios matter.  Everything that this program makes is removed at the end.
"""

from __future__ import annotations

import argparse
import sys

from scripts.benchmarks import (
    agents,
    asked,
    attach,
    attack,
    checks,
    compare,
    gaps,
    goodput,
    handshakes,
    keepalives,
    lanes,
    packets,
    parts,
    reload,
    scale,
    services,
    watched,
    web,
)
from scripts.benchmarks.console import progress
from scripts.benchmarks.options import Parser

MEASUREMENTS = {
    "agents": agents,
    "asked": asked,
    "attach": attach,
    "attack": attack,
    "checks": checks,
    "compare": compare,
    "gaps": gaps,
    "goodput": goodput,
    "handshakes": handshakes,
    "keepalives": keepalives,
    "lanes": lanes,
    "packets": packets,
    "parts": parts,
    "reload": reload,
    "scale": scale,
    "services": services,
    "watched": watched,
    "web": web,
}
DEFAULT = "compare"


def main(words: list[str]) -> None:
    """Run the measurement that the command line names."""
    if not words or (words[0].startswith("-") and words[0] not in {"-h", "--help"}):
        words = [DEFAULT, *words]
    parser = Parser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="measurement", required=True, metavar="MEASUREMENT")
    for name, module in MEASUREMENTS.items():
        assert module.__doc__ is not None
        about = module.__doc__.partition("\n")[0]
        module.add_arguments(kinds.add_parser(name, help=about, description=about))
    arguments = parser.parse_args(words)
    try:
        MEASUREMENTS[arguments.measurement].run(arguments)
    except KeyboardInterrupt:
        progress("scripts/bench: interrupted; everything that it made is removed")
        raise SystemExit(130) from None


main(sys.argv[1:])
