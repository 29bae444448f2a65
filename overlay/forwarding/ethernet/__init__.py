"""Ethernet frames between a tap and peers, encrypted and unencrypted."""
