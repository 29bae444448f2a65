"""Common parts of importers of other programs' files: places in files, remarks on them, and TOML as text."""
