"""What importers of other programs' files have in common: places in them, remarks on them, and TOML as text."""
