"""Super-packets: their segments, cutting and joining them, and partial checksums."""
