"""What a fuzzer's target is: a function that takes any bytes, and real input for it to begin with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CORPUS = Path(__file__).parents[1] / "corpus"


@dataclass(frozen=True)
class Target:
    """*run* raises only for a fault.  *seeds* are real input; the corpus holds what the fuzzer has found."""

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]

    @property
    def corpus(self) -> Path:
        """The directory of its corpus: one input per file."""
        return CORPUS / self.name

    def inputs(self) -> dict[str, bytes]:
        """Return its seeds and its corpus, by name."""
        found = {f"seed {number}": data for number, data in enumerate(self.seeds())}
        if self.corpus.is_dir():
            found |= {path.name: path.read_bytes() for path in sorted(self.corpus.iterdir())}
        return found


def split(data: bytes, count: int) -> list[bytes]:
    """Return *data* as at most *count* pieces: each begins with its size in two bytes, the last is the rest."""
    pieces = []
    while data and len(pieces) < count - 1:
        size = int.from_bytes(data[:2], "big")
        pieces.append(data[2 : 2 + size])
        data = data[2 + size :]
    return [*pieces, data] if data else pieces


def join(pieces: Iterable[bytes]) -> bytes:
    """Return the bytes that split() splits into *pieces*."""
    return b"".join(len(piece).to_bytes(2, "big") + piece for piece in pieces)
