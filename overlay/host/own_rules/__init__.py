"""The agent's own rules in the packet filters of this host, made on request: ``masquerade`` and ``forward``.

Masquerading has an nftables table of its own.  Accepting cannot: an accept ends only the chain of its own table, and
the policy of another table still drops.  So accepts are in our own chain inside each table that drops, with a jump to
it.
"""
