"""Super-packets: what one stands for, how it is cut and joined, and checksums left partial."""
