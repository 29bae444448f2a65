"""Rules of our own in the packet filters of this host, for who asks for them: ``masquerade`` and ``forward``.

Masquerading is a table of nftables of our own.  Accepting is not: an accept ends only the chain of its own table, and
the policy of another still drops.  So accepts are in our own chain inside each table that drops, with a jump to it.
"""
