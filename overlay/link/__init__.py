"""The messages between the agent and the forwarder, over a SOCK_SEQPACKET pair: ``messages``, and their ``codec``."""
