"""The members of the overlay: peers, their prefixes, and the file that lists them.

Pure values and parsers, except ``peers.stores``.  Never imports ``overlay``.
"""
