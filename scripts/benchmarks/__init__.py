"""Measurements of the overlay, alone and beside others, in network namespaces of this machine."""
