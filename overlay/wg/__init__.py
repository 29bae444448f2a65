"""overlay-wg: a WireGuard device for one interface, for wg-quick and other programs that start wireguard-go."""
