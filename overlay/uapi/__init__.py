"""What `wg` asks and tells: the cross-platform interface of WireGuard (UAPI), without input or output."""
