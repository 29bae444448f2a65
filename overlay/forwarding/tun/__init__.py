"""IP packets between the tun and peers that are reached under encryption."""
