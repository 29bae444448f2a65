"""The packet filters of this host: read, never changed, and asked what becomes of a packet."""
