"""Show an overlay on one machine.

Hosts are network namespaces, joined by an underlay that is another one, and real agents connect them.  Nothing outside
these namespaces is touched, and at the end, or at Ctrl-C, all of it is removed.
"""

# ruff: noqa: E402  a Ctrl-C while modules are loading ends the program silently: there is nothing to remove yet

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import contextlib
import sys
from pathlib import Path

from scripts.demos import containers, hosts, services, stage
from scripts.demos.screen import DemoError, Interruptions, Screen, StoppedError
from scripts.demos.stage import Stage


def stop(name: str, screen: Screen, interruptions: Interruptions) -> int:
    """Remove the demo *name*, or all that were kept if it is empty; return the exit code."""
    demos = stage.known()
    if name and name not in demos:
        print(f"scripts/demo: there is no demo {name}", file=sys.stderr)
        return 2
    chosen = [name] if name else [each for each, state in demos.items() if state != "at work"]
    if not chosen:
        print("scripts/demo: no demo was left running")
    for each in chosen:
        if demos[each] == "at work":
            print(f"scripts/demo: {each} is still running its steps: press Ctrl-C there", file=sys.stderr)
            return 1
        with screen.step(f"{each} stopped and removed"):
            Stage(each, screen, interruptions).remove()
    return 0


def show(
    kind: type[hosts.Demo | services.Demo | containers.Demo],
    keep: bool,
    screen: Screen,
    interruptions: Interruptions,
) -> int:
    """Run the demo; return the exit code.  Whatever happens, nothing is left behind unless it should be kept."""
    code = 1
    place: Stage | None = None
    is_kept = False
    try:
        try:
            with interruptions.held():
                place = stage.new(screen, interruptions)
            demo = kind(place)
            demo.run()
            screen.say(demo.closing)
            if keep:
                place.keep(demo.doors(), demo.questions())
                is_kept = True
            code = 0
        except DemoError as error:
            screen.say(f"\nThe demo failed: {error}.")
            if place is not None:
                place.show_logs()
        except StoppedError:
            code = 128 + signal.SIGINT
        finally:
            interruptions.ignore()
    except StoppedError:
        code = 128 + signal.SIGINT
    finally:
        if place is not None and not is_kept:
            try:
                with contextlib.suppress(StoppedError), screen.step("everything removed"):
                    place.remove()
            except DemoError as error:
                screen.say(f"{error}")
                code = 1
    return code


def main() -> int:
    """Return the exit code: 0 shown, 1 failed, 2 wrong usage, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--containers",
        action="store_true",
        help="show hosts that join a network in etcd, and their containers, instead of three hosts",
    )
    chosen.add_argument(
        "--services",
        action="store_true",
        help="show a virtual service, its directors and its servers instead of three hosts",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave it running, and print how to enter and stop it"
    )
    parser.add_argument(
        "--stop",
        nargs="?",
        const="",
        metavar="NAME",
        help="stop and remove demos that --keep left running: NAME, or all of them",
    )
    arguments = parser.parse_args()
    interruptions = Interruptions()
    interruptions.watch()
    screen = Screen(interruptions)
    if arguments.stop is not None:
        interruptions.ignore()
        try:
            return stop(arguments.stop, screen, interruptions)
        except DemoError as error:
            print(f"scripts/demo: {error}", file=sys.stderr)
            return 1
    if not Path("/dev/net/tun").exists():
        print("scripts/demo: this machine has no /dev/net/tun: load the kernel module tun", file=sys.stderr)
        return 1
    kind: type[hosts.Demo | services.Demo | containers.Demo] = hosts.Demo
    if arguments.services:
        kind = services.Demo
    elif arguments.containers:
        kind = containers.Demo
    return show(kind, arguments.keep, screen, interruptions)


if __name__ == "__main__":
    sys.exit(main())
