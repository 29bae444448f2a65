"""A node to ask."""

from __future__ import annotations

from tests.overlay.agent.conftest import node

__all__ = ["node"]
