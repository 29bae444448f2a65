"""What a node remembers: its log, the last events, and an hour of traffic, all in bounded memory."""
