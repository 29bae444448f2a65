"""IP packets to and from peers in the clear, in UDP or as IP protocols of their own."""
