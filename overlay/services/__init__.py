"""Virtual services: what is computed of them, by the agent and by the forwarder."""
