"""A userspace overlay VPN: an agent that decides who is where, a forwarder for packets, WireGuard on the wire."""
