"""The machine the agent runs on: tun, sockets, routes, privileges, control socket.  Only this package raises HostError."""
