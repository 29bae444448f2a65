"""The assertion for a refusal: the exact reason, and nothing else."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from overlay.errors import PacketError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def refused(reason: str) -> Iterator[None]:
    """Expect the block to raise PacketError with exactly *reason*, which must be registered."""
    with pytest.raises(PacketError) as raised:
        yield
    assert raised.value.reason == reason
