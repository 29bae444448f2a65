"""Keys, the Noise handshake, cookies and the replay window.  Primitives come from cryptography and hashlib."""
