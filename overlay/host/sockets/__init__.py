"""Sockets of all kinds: of the underlay, raw, for frames on a link; and the kernel's programs and counters for them."""
