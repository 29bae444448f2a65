"""Numbers of TCP (RFC 9293 sections 3.1 and 3.2)."""

from __future__ import annotations

# Specification
TCP_HEADER_SIZE = 20  # without options
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
FLAGS_OFFSET = 13  # in bytes from the start of the header
END_OF_OPTIONS, NO_OPERATION, MAXIMUM_SEGMENT_SIZE = 0, 1, 2
MSS_SIZE = 4  # bytes of the option
