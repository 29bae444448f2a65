"""Commands of this host's operator that run on events."""
