"""The machine the agent runs on: tun, sockets, routes, privileges, control socket.  What it refuses is a HostError."""
