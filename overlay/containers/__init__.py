"""Containers of this host in the overlay: their addresses and attachments.  Pure; `overlay.attaching` is the edge.

A container is attached by a veth pair and nothing else.  There is no bridge,
and the host's subnet is configured nowhere:

    container                                     host
    eth0 10.244.1.5/32                            oc3f2a... (no address)
      169.254.1.1 dev eth0, permanent neighbour     10.244.1.5 dev oc3f2a... mtu 1420, permanent neighbour
      default via 169.254.1.1

So nothing that runs depends on the subnet that addresses are given out from: when it changes, each container keeps its
address and its route.  169.254.1.1 and fe80::1 are the gateway of every container; both ends know each other's Ethernet
address, so nobody asks for it, and no address has to be tested for duplicates.

The host's end takes packets of any size, so that what is too big for the tunnel gets an answer that says so: the MTU
of a container's device cannot be changed from outside when that of the tunnel changes.
"""
