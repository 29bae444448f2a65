"""Sockets of all kinds: of the underlay, raw, for frames on a link, and what the kernel runs and counts for them."""
