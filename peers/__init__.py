"""Who is in the overlay and where: peers, their prefixes, and the file that says so.

Pure values and parsers, except ``peers.stores``.  Never imports ``overlay``.
"""
