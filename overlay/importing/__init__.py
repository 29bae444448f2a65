"""What importers of other programs' files share: places in them, remarks on them, and TOML as text."""
