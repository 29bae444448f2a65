"""An etcd to test with: one in memory, and the real one where it is installed."""
