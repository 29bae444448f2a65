"""Lanes of sessions with other agents: keypairs of their own, and whether their ports pass (``overlay.wire.lanes``)."""
