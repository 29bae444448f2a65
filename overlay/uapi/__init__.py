"""The requests of `wg`: WireGuard's cross-platform interface (UAPI), without input or output."""
