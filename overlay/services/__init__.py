"""Virtual services: what the agent and the forwarder compute for them, without I/O but for checks."""
