"""Measurements of the overlay, alone and next to others, in network namespaces of this machine."""
