"""Virtual addresses on a LAN: who among the directors has them (VRRP), and how the others on the link learn that.

memberships   the groups in which this node takes part, out of the peers file; pure
router        one virtual router: its state machine, its socket, and what is tracked
presence      the addresses that are here: questions for them answered, and announced
conflicts     which of them other hosts on the link claim too; pure
lan           the task that waits for all of it
"""
