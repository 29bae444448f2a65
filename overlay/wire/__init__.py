"""Byte formats.

The first nibble of a transport payload is its kind: 4 and 6 are IP packets (``ip``), 8 and 9 are control messages
between two agents of this project (``control``), and E is an Ethernet frame (``frames`` explains the choice).  An empty
payload is a keepalive.
"""
