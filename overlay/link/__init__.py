"""What the agent and the forwarder tell each other, over a SOCK_SEQPACKET pair: ``messages``, and their ``codec``."""
