"""The questions and settings of `wg`: WireGuard's cross-platform interface (UAPI), without input or output."""
