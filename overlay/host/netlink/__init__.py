"""Routes, rules, addresses and the link of the tun: what the agent wants, and the difference to what is there.

Only `codec` imports pyroute2, and of it only the message formats; the socket is a plain one.  pyroute2's own sockets
bring an asyncio loop and threads along, and write one route in 65 us; here the message for many routes is written once,
by hand, and copied with another destination.

How our routes and rules are told from everybody else's, and from those of a second agent beside us:

- Every route and rule carries PROTOCOL.
- Routes on the tun are told apart by their device.  They vanish with it; from a persistent one they are taken.
- Addresses carry PROTOCOL as well.  On a persistent device those without it are an administrator's, and stay.
- The unreachable twin of each, same prefix and a worse metric, has no device and outlives a killed agent: packets
  for the overlay then get an ICMP error instead of leaving by the default route.  Its metric is a number derived
  from the interface name, as are the tables, so that the next agent of that name takes over what the last one left.
- A rule that looks up ``main`` carries the number as a firewall mark under an empty mask.  That matches every packet;
  the kernel keeps and shows it, so it serves as a label.

A subnet that may hold underlay endpoints (0.0.0.0/0 included) would catch our own datagrams if it were routed in the
main table.  It goes into one of our tables, one for each prefix length L, reached by two kinds of rules, longest
prefixes first:

    31000 + 2 * (32 - L)      to SUBNET lookup main suppress_prefixlength L     what main knows better stays there
    31000 + 2 * (32 - L) + 1  not from all fwmark MARK lookup TABLE             all but our own datagrams

where the first suppresses L - 1 for a SUBNET that this host is on itself: its own LAN goes on to win, as it does in the
main table.  Look-ups of names, by sockets of a user of their own (overlay/host/outside.py), pass both by:

    30999                         uidrange UID-UID goto 31300
    31300                         nop                                           other people's rules go on behind it

(128 instead of 32 for IPv6.)  For 0.0.0.0/0 these are the two rules of wg-quick.  ``not`` negates a whole rule, so
the second names no subnet: the table has routes for the subnets of length L only, and no other packet finds one.
"""
