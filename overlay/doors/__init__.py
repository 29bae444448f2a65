"""Who may ask this node, and how: HTTP, and what speaks it.  What is answered comes from overlay.answers."""
