"""A userspace overlay VPN: an agent for who and where, a forwarder for packets, WireGuard on the wire."""
