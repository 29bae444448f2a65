"""Bulk units: one seal for a whole super-packet, between agents of this kind."""
