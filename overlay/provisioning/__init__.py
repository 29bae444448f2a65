"""What a node sets up on its host: planned from the configuration, applied, and kept that way."""
