"""A forwarder of a tap that counts the frames that Python handles, in a file whose path it is given."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import Any

from overlay.forwarding import __main__ as forwarding
from overlay.forwarding.ethernet.clear import ClearFrames
from overlay.forwarding.ethernet.outbound import FramesOutbound

SIZE = 8


def main() -> None:
    """Forward; the file is mapped into memory before the process is confined."""
    with Path(sys.argv.pop(1)).open("r+b") as file:
        counted = mmap.mmap(file.fileno(), SIZE)
    for kind, names in ((FramesOutbound, ["forward"]), (ClearFrames, ["take", "take_payload", "take_run"])):
        for name in names:
            setattr(kind, name, counting(getattr(kind, name), counted))
    forwarding.main()


def counting(method: Any, counted: mmap.mmap) -> Any:
    """Return *method*, wrapped so that its calls are counted."""

    def counts(*given: Any) -> Any:
        counted[:] = (int.from_bytes(counted[:]) + 1).to_bytes(SIZE)
        return method(*given)

    return counts


if __name__ == "__main__":
    main()
