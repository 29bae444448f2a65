"""Captures of packets: the file format, whose packet each is, and a line about it.  No input or output."""
