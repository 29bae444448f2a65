"""The packet filters of this host: read, never changed, and evaluated for a packet."""
