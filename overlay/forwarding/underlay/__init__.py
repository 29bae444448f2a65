"""Sockets of the underlay: how datagrams leave and arrive."""
