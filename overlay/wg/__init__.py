"""overlay-wg: a WireGuard device of one interface, for wg-quick and whoever else would start wireguard-go."""
