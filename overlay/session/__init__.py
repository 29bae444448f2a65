"""One peer's life without I/O: the handshake, its timers, and when to start again."""
