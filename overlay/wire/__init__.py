"""Byte formats.

What a transport payload is, its first nibble tells: 4 and 6 are IP packets (``ip``), 8 and 9 control messages between
two of our agents (``control``), E an Ethernet frame (``frames``, which says why).  No bytes at all are a keepalive.
"""
