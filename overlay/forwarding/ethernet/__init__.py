"""Ethernet frames between a tap and peers, encrypted and in the clear."""
