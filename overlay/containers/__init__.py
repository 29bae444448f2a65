"""Containers of this host in the overlay: their addresses and attachments.

It is pure: `overlay.provisioning.attaching` is the edge.

A container is attached by a veth pair and nothing else.  There is no bridge,
and the host's subnet is configured nowhere:

    container                                     host
    eth0 10.244.1.5/32                            oc3f2a... (no address)
      169.254.1.1 dev eth0, permanent neighbour     10.244.1.5 dev oc3f2a... mtu 1420, permanent neighbour
      default via 169.254.1.1

So no running container depends on the subnet that addresses are given out from: when it changes, each container keeps
its address and its route.  169.254.1.1 and fe80::1 are the gateway of every container.  Both ends know each other's
Ethernet address, so neither asks for it, and no address has to be tested for duplicates.

The host's end takes packets of any size, so that a packet that is too big for the tunnel is answered with an error: the
MTU of a container's device cannot be changed from outside when that of the tunnel changes.
"""
