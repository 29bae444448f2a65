"""How large a packet the path to a peer takes, and what happens to one that is larger."""
