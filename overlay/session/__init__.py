"""The handshakes and timers of peers, without I/O, and when to start again."""
