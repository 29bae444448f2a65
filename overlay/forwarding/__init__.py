"""The fast process: from the tun to the wire and back.

It owns the tun descriptor, the sockets and the transport keys, and nothing else.  Read ``loop`` first, then
``outbound`` and ``inbound``.
"""
