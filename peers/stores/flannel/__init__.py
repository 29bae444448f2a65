"""A network that flannel keeps in etcd: its config and its leases, read and written by its rules."""
