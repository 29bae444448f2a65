"""Virtual addresses on a LAN: which director has them (VRRP), and how the other hosts on the link learn that.

memberships   the groups in which this node takes part, according to the peers file; pure
router        one virtual router: its state machine, its socket, and what is tracked
presence      the addresses that are here: answers requests for them, and announces them
conflicts     which of them other hosts on the link claim, too; pure
lan           the task that waits for all these events
"""
