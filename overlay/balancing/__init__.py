"""Virtual services at a running node: the edge between overlay.services, the forwarder and the network."""
