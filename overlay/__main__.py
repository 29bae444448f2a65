"""The command ``overlay``, also as ``python -m overlay``."""

# ruff: noqa: PLC0415  what takes time to load is loaded where an interrupt is heard

import sys

# Ours
INTERRUPTED = 130  # as in overlay.cli.exits


def main() -> None:
    """Run the command line.  Ctrl-C ends it quietly, also while it is being loaded."""
    try:
        from overlay import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
