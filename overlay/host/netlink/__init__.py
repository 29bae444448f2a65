"""Routes, rules, addresses and the link of the tun: what the agent wants, and the difference from what exists.

Only `codec` imports pyroute2, and of it only the message formats; the socket is a plain one.  pyroute2's own sockets
come with an asyncio loop and threads, and write one route in 65 us; here the message for many routes is built once, by
hand, and copied with another destination.

How our routes and rules are distinguished from all others, and from those of a second agent on this host:

- Every route and rule carries PROTOCOL.
- Routes on the tun are recognized by their device.  They vanish with it; from a persistent device they are removed.
- Addresses carry PROTOCOL, too.  On a persistent device, those without it are an administrator's, and stay.
- The unreachable twin of each, same prefix and a worse metric, has no device and outlives a killed agent: packets
  for the overlay then get an ICMP error instead of leaving by the default route.  Its metric is a number derived
  from the interface name, as are the tables, so that the next agent of that name takes over what the last one left.
- A rule that looks up ``main`` carries the number as a firewall mark under an empty mask.  That matches every packet;
  the kernel keeps and shows it, so it serves as a label.

A subnet that may hold underlay endpoints (0.0.0.0/0 included) would catch our own datagrams if it were routed in the
main table.  It goes into one of our tables, one for each prefix length L, reached by two kinds of rules, longest
prefixes first:

    31000 + 2 * (32 - L)      to SUBNET lookup main suppress_prefixlength L     more specific routes of main win
    31000 + 2 * (32 - L) + 1  not from all fwmark MARK lookup TABLE             all except our own datagrams

where the first suppresses L - 1 for a SUBNET that this host is on itself: its own LAN continues to win, as in the main
table.  Look-ups of names, by sockets of a separate user (overlay/host/policy_bypass.py), skip both:

    30999                         uidrange UID-UID goto 31300
    31300                         nop                                           rules of others follow

(128 instead of 32 for IPv6.)  For 0.0.0.0/0 these are the two rules of wg-quick.  ``not`` negates a whole rule, so
the second names no subnet: the table has routes for the subnets of length L only, and no other packet finds one.
"""
