"""The machine that the agent runs on: tun, sockets, routes, privileges, control socket.

Refusals of the kernel become HostError.
"""
