"""An etcd for tests: one in memory, and the real one where it is installed."""
