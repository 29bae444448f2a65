"""The keys of a node: how they are read, who else can read them, and how they are replaced."""
