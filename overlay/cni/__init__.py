"""The CNI plugin `overlay-cni`, a client of the agent (SPEC.md of containernetworking/cni, 0.3.1 to 1.1.0).

A container runtime starts a process for each question, and a container waits for it.  So this package imports as little
of the standard library as possible, and nothing else: not even what the agent and the command line share.
"""
